"""The page of several runs: their curves on the same axes, what differs in their recipes, and each
against the first on the problems that both answered.

No run is called the best where the runs answered different problems.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1recipes.machine import files
from r1recipes.machine.units import duration
from r1recipes.report import curves, facts, page
from r1recipes.report.charts import drawing
from r1recipes.report.page import Cell, Figures, Headline, Key, Table
from r1recipes.runs import reading
from r1recipes.runs.reading import Reading, Row


def html(runs: Sequence[Reading], render: Callable[..., str] = page.render) -> str:
    """The page of several runs, which have labels; `render` makes it of a template and names."""
    environments = [run.environment for run in runs]
    has_differences = bool(reading.differing(environments))
    return render(
        "runs.html",
        title=f"{len(runs)} runs compared",
        kicker="",
        verdict=_ranking(runs),
        overview=_overview(runs),
        recipes=_differences([run.settings for run in runs], runs),
        pairs=_pairs(runs),
        figures=_figures(runs),
        environments=_differences(environments, runs) if has_differences else None,
        now=facts.utc(files.now()),
    )


def _ranking(runs: Sequence[Reading]) -> Headline:
    """The best run, where all that were evaluated answered the same problems."""
    ranked = reading.best(runs)
    if not ranked:
        return Headline("No run has been evaluated after training yet", is_sentence=True)
    if problem := _not_comparable(ranked):
        return Headline("", [problem])
    best = ranked[0]
    share = facts.percent(best.evaluated("after")["accuracy"])
    first = f"{best.label} has the highest accuracy: {share}"
    if len(ranked) == 1:
        return Headline(first, ["No other run has been evaluated yet."], is_sentence=True)
    label, pair = ranked[1].label, reading.paired(ranked[1], best)
    assert pair is not None, "they answered the same problems, and 2 at least"
    headline = first if pair.is_clear else f"{first}, but it is no clear winner"
    if pair.mean == 0:
        headline = f"{best.label} and {label} are equal on the problems that both answered"
    sentence, tone = facts.difference_sentence(pair.mean, pair.interval)
    sentence += f", against {label}, the next, on the same {pair.num_problems} problems."
    return Headline(headline, [sentence], tone, is_sentence=True)


def _not_comparable(ranked: Sequence[Reading]) -> str:
    """Why no run can be called the best; empty where one can."""
    if len(ranked) == 1:
        return ""
    answered = [reading.problems(run) for run in ranked]
    names = [run.label for run, problems in zip(ranked, answered, strict=True) if not problems]
    if names:
        return (
            "Whether the runs answered the same problems is not known: "
            f"{', '.join(names)} came without answers. Their accuracies cannot be compared."
        )
    if any(problems != answered[0] for problems in answered) or len(answered[0]) < 2:
        return (
            "The runs answered different problems, so their accuracies cannot be compared: more "
            "may be right because the problems are easier."
        )
    if how := reading.sampled_differently(ranked, with_number=False):
        return (
            f"The runs sampled their answers differently ({how}), so their accuracies cannot be "
            "compared. Their greedy answers can: see the paired comparison."
        )
    return ""


def _figures(runs: Sequence[Reading]) -> list[Figures]:
    """The charts of a page, group by group, with the runs on the same axes."""
    groups = [
        Figures("Before and after", curves.results(runs)),
        Figures("Learning", curves.learning(runs)),
        Figures("Completions", curves.completions(runs), is_folded=True),
        Figures("Optimiser", curves.optimiser(runs), is_folded=True),
        Figures("Time and memory", curves.cost(runs), is_folded=True),
    ]
    return [group for group in groups if group.charts]


def _overview(runs: Sequence[Reading]) -> Table:
    rows: list[list[Cell]] = []
    for number, run in enumerate(runs):
        steps = f"{run.steps} of {run.max_steps}" if run.max_steps else run.steps
        ends = [facts.accuracy(run.evaluated(when)) for when in ("before", "after")]
        key = Key(run.label, drawing.colour(number))
        rows.append([key, run.name, run.status, steps, duration(run.duration_s), *ends])
    return Table(["label", "run", "status", "steps", "time", "before", "after"], rows)


@dataclass(frozen=True)
class Differences:
    """Keys with a value that is not the same in all runs."""

    table: Table | None
    unknown: str
    """Labels of the runs of which nothing is known."""


def _differences(tables: Sequence[Row], runs: Sequence[Reading]) -> Differences:
    rows = [[key, *map(facts.text, values)] for key, values in reading.differing(tables).items()]
    table = Table(["key", *(run.label for run in runs)], rows) if rows else None
    return Differences(table, reading.unknown(runs, tables))


def _pairs(runs: Sequence[Reading]) -> Table:
    """Each run against the first; also by greedy answers, where the samples differ in how they were
    drawn."""
    rows: list[list[Cell]] = []
    for run in runs[1:]:
        label, pair = f"{run.label} - {runs[0].label}", reading.paired(runs[0], run)
        if pair is None:
            rows.append([label, "no common problems", None])
        else:
            sentence, _ = facts.difference_sentence(pair.mean, pair.interval)
            how = reading.sampled_differently([runs[0], run])
            rows.append([f"{label}, sampled: {how}" if how else label, sentence, pair.num_problems])
            if how and (pair := reading.paired(runs[0], run, greedy=True)):
                sentence, _ = facts.difference_sentence(pair.mean, pair.interval)
                rows.append([f"{label}, greedy", sentence, pair.num_problems])
    return Table(["pair", "difference", "problems"], rows)

"""Run folders -> one self-contained HTML page: verdict, curves, samples, recipe, how to reproduce.

The page of several runs overlays their curves, lists what differs in their recipes, and compares
them in pairs. `Live` observes a run and writes its page while it trains.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from r1recipes.algorithms import ALGORITHMS
from r1recipes.machine import files
from r1recipes.machine.units import duration
from r1recipes.planning.plan import Plan
from r1recipes.report import charts, curves, facts, page, samples
from r1recipes.report.charts import scales
from r1recipes.report.page import Cell, Figures, Headline, Pill, Table
from r1recipes.runs import health, pass_rates, reading
from r1recipes.runs.health import HeldOut, Terms
from r1recipes.runs.reading import Reading, Row
from r1recipes.runs.record import Run
from r1recipes.training.observers import Observer

EVERY_S = 180.0
"""Seconds between two pages of a run that trains."""
MAX_SHARE = 0.005
"""Share of the training time that writing pages may take."""
TONES = {"complete": "good", "failed": "bad", "killed": "bad"}


def html(runs: Sequence[Run]) -> str:
    """The page of one run, or of several that are compared.

    Raises: RecipeError when a file of a run is damaged.
    """
    with reading.understood(*runs):
        return html_of(_labelled(runs))


def html_of(readings: Sequence[Reading], render: Callable[..., str] = page.render) -> str:
    """The page of runs that are being read; several are labelled. `render` makes it of a template
    and its names.

    Raises: RecipeError, or what `reading.understood` turns into one.
    """
    alone = len(readings) == 1
    return _single(readings[0], render) if alone else _several(readings, render)


def _labelled(runs: Sequence[Run]) -> list[Reading]:
    names = reading.letters(len(runs)) if len(runs) > 1 else [""]
    return [reading.read(run, name) for run, name in zip(runs, names, strict=True)]


def write_csv(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the data of every chart into `folder`, made if need be. Returns the files.

    Raises: RecipeError when a file of a run is damaged; OSError when the folder cannot be written.
    """
    with reading.understood(*runs):
        readings = _labelled(runs)
        drawn = curves.every(readings)
        if len(runs) == 1:
            drawn += [chart for figures in _of_stages(readings[0]) for chart in figures.charts]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in drawn:
        written.append(folder / f"{chart.key}.csv")
        files.write_text(written[-1], charts.csv(chart))
    return written


class Live(Observer):
    """Writes report.html of a run: after the first step, every few minutes, and at the end."""

    name: ClassVar[str] = "the report page"
    sees_stages: ClassVar[bool] = True

    def __init__(self) -> None:
        self._run: Run | None = None
        self._next = 0.0

    def begin(self, run: Run, plan: Plan) -> None:
        self._run, self._next = run, time.monotonic()

    def step(self, row: Row) -> None:
        if self._run and time.monotonic() >= self._next:
            began = time.monotonic()
            _write(self._run)
            now = time.monotonic()
            self._next = now + max(EVERY_S, (now - began) / MAX_SHARE)

    def end(self, run: Run) -> None:
        _write(run)


def _write(run: Run) -> None:
    files.write_text(run.report, html([run]))


def _single(run: Reading, render: Callable[..., str]) -> str:
    plan = {key: value for key, value in run.resolved.items() if key != "base_dir"}
    lock_rows = [(name, _text(value)) for name, value in run.environment.items()]
    version = run.lock.get("versions", {}).get("r1recipes", "")
    return render(
        "run.html",
        title=run.record.get("description") or run.record.get("recipe", run.name),
        kicker=run.name,
        status=Pill(run.status, TONES.get(run.status, "")),
        verdict=_verdict(run),
        facts=facts.of(run),
        stages=_stages(run),
        figures=[*_figures([run]), *_of_stages(run)],
        chosen=samples.choose(run),
        reproduce_note=f"With r1recipes {version} and the recipe below; the lock has the versions "
        "and hashes that made it.",
        command=facts.command(run),
        recipe=run.recipe_text,
        plan=json.dumps(plan, indent=1, ensure_ascii=False) if run.resolved else "",
        lock=Table(["what", "value"], lock_rows) if run.lock else None,
        now=facts.utc(files.now()),
    )


def _figures(runs: Sequence[Reading]) -> list[Figures]:
    """The charts of a page, group by group."""
    alone = runs[0] if len(runs) == 1 else None
    groups = [
        Figures("Before and after", curves.results(runs), _held_out_note(alone) if alone else ""),
        Figures("Training problems", curves.problems(alone), _kept_note(alone)) if alone else None,
        Figures("Learning", curves.learning(runs)),
        Figures("Optimiser", curves.optimiser(runs), _kl_note(alone) if alone else ""),
        Figures("Time and memory", curves.cost(runs)),
    ]
    return [group for group in groups if group and group.charts]


def _stages(run: Reading) -> Table | None:
    """What each stage has reached; None for a run without [[stage]], or before the first result."""
    recorded = [stage for stage in run.record.get("stages", []) if "evaluation" in stage]
    if not recorded:
        return None
    rows: list[list[Cell]] = [["before", "", None, "", *_reached(run.evaluated("before")), ""]]
    for stage in recorded:
        difference = stage["difference"]
        sentence, _ = difference_sentence(difference["mean"], difference["interval"])
        title = ALGORITHMS[stage["algorithm"]].title
        about = [stage["name"], title, stage["steps"], duration(stage["seconds"])]
        rows.append([*about, *_reached(stage["evaluation"]), sentence])
    header = ["stage", "algorithm", "steps", "time", "accuracy", "greedy", "against the one before"]
    return Table(header, rows)


def _reached(evaluation: Row) -> list[Cell]:
    return [_accuracy(evaluation), percent(evaluation["greedy"]) if evaluation else ""]


def _of_stages(run: Reading) -> list[Figures]:
    """The curves of each stage before the last training."""
    groups = []
    for stage in reading.stages(run):
        drawn = [
            *curves.learning([replace(stage, label="")]),
            *curves.optimiser([replace(stage, label="")]),
        ]
        named = [replace(chart, key=f"{stage.label}-{chart.key}") for chart in drawn]
        groups.append(Figures(f"Stage {stage.label}", named))
    return [group for group in groups if group.charts]


def _held_out_note(run: Reading) -> str:
    evaluation = run.evaluated("after") or run.evaluated("before")
    if not evaluation:
        return ""
    return f"On {evaluation['num_problems']} problems that are in no training set."


def _kept_note(run: Reading) -> str:
    recorded = run.record.get("pass_rates")
    return f"{pass_rates.sentence(recorded)}." if recorded else ""


def _kl_note(run: Reading) -> str:
    beta = run.recipe.get("train", {}).get("beta")
    return "The KL divergence is not measured at beta = 0." if beta == 0 else ""


def _verdict(run: Reading) -> Headline:
    before, after, status = run.evaluated("before"), run.evaluated("after"), run.status
    if status == "complete" and before and after:
        difference = run.record["evaluation"]["difference"]
        sentence, tone = difference_sentence(difference["mean"], difference["interval"])
        problems = f"{after['num_problems']} held-out problems, {after['num_samples']} samples each"
        greedy = f"Greedy {percent(before['greedy'])} → {percent(after['greedy'])}."
        return Headline(
            percent(after["accuracy"]),
            [f"{sentence} on {problems}. {greedy}", run.ending],
            tone,
            before=percent(before["accuracy"]),
        )
    progress = _progress(run)
    sentences = [_learning_sentence(run), run.ending]
    if before:
        sentences.append(f"Accuracy before training: {percent(before['accuracy'])}.")
    if status != "failed":
        headline = f"{status.capitalize()}: {progress}"
        return Headline(headline, sentences, is_sentence=True)
    message = (run.record.get("error") or {}).get("message", "the record does not say why")
    return Headline(f"Failed at {progress}", [message, *sentences], "worse", is_sentence=True)


def _progress(run: Reading) -> str:
    """`step 5 of 90`; before the last training begins, with the stage: `stage 1-sft, step 5 ...`"""
    begun = [stage for stage in reading.stages(run) if stage.metrics]
    part, name = (
        (begun[-1], f"stage {begun[-1].label}, ") if begun and not run.metrics else (run, "")
    )
    most = f" of {part.max_steps}" if part.max_steps else ""
    return f"{name}step {part.steps}{most}"


def difference_sentence(mean: float, interval: Sequence[float]) -> tuple[str, str]:
    """What a difference of two accuracies, from -1 to 1, says; and its tone for `Headline`."""
    low, high = interval
    points = f"{100 * mean:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    if low > 0:
        return f"Better: {points}", "better"
    if high < 0:
        return f"Worse: {points}", "worse"
    return f"No clear difference: {points}", ""


def _learning_sentence(run: Reading) -> str:
    """Whether the run learned, in the words of the live view; empty while that is not known."""
    if not (run.metrics and run.resolved):
        return ""
    before = run.evaluated("before")
    held_out = [HeldOut.of_summary(0, before)] if before else []
    return f"{health.sentence(run.metrics, Terms.of(run.resolved), held_out)}."


def _several(runs: Sequence[Reading], render: Callable[..., str]) -> str:
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
    ranked = reading.best(runs)
    if not ranked:
        return Headline("No run has been evaluated after training yet", is_sentence=True)
    best = ranked[0]
    first = f"{best.label} has the highest accuracy: {percent(best.evaluated('after')['accuracy'])}"
    if len(ranked) == 1:
        return Headline(first, ["No other run has been evaluated yet."], is_sentence=True)
    label, pair = ranked[1].label, reading.paired(ranked[1], best)
    if pair is None:
        return Headline(first, ["The runs answered different problems."], is_sentence=True)
    headline = first if pair.is_clear else f"{first}, but it is no clear winner"
    if pair.mean == 0:
        headline = f"{best.label} and {label} are equal on the problems that both answered"
    sentence, tone = difference_sentence(pair.mean, pair.interval)
    sentence += f", against {label}, the next, on the same {pair.num_problems} problems."
    return Headline(headline, [sentence], tone, is_sentence=True)


def _overview(runs: Sequence[Reading]) -> Table:
    rows: list[list[Cell]] = []
    for run in runs:
        steps = f"{run.steps} of {run.max_steps}" if run.max_steps else run.steps
        cells = [run.label, run.name, run.status, steps, duration(run.duration_s)]
        rows.append([*cells, *(_accuracy(run.evaluated(when)) for when in ("before", "after"))])
    return Table(["", "run", "status", "steps", "time", "before", "after"], rows)


def _accuracy(evaluation: Row) -> str:
    if not evaluation:
        return ""
    low, high = evaluation["interval"]
    return f"{percent(evaluation['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True)
class Differences:
    """Keys with a value that is not the same in all runs."""

    table: Table | None
    unknown: str
    """Labels of the runs of which nothing is known."""


def _differences(tables: Sequence[Row], runs: Sequence[Reading]) -> Differences:
    rows = [[key, *map(_text, values)] for key, values in reading.differing(tables).items()]
    table = Table(["key", *(run.label for run in runs)], rows) if rows else None
    return Differences(table, reading.unknown(runs, tables))


def _pairs(runs: Sequence[Reading]) -> Table:
    """Each run against the first."""
    rows: list[list[Cell]] = []
    for run in runs[1:]:
        label, pair = f"{run.label} - {runs[0].label}", reading.paired(runs[0], run)
        if pair is None:
            rows.append([label, "no common problems", None])
        else:
            sentence, _ = difference_sentence(pair.mean, pair.interval)
            rows.append([label, sentence, pair.num_problems])
    return Table(["", "difference", "problems"], rows)


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def percent(share: float) -> str:
    """`41.6 %`, with a space that does not break."""
    return scales.text(share, "%").replace(" ", "\u00a0")

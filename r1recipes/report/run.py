"""Run folders -> one self-contained HTML page: verdict, curves, samples, recipe, how to reproduce.

`several` makes the page of several runs. `Live` observes a run and writes its page while it trains.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from r1recipes.algorithms import ALGORITHMS
from r1recipes.machine import files
from r1recipes.machine.units import duration
from r1recipes.planning.plan import Plan
from r1recipes.report import charts, curves, facts, page, samples, several
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
WHY_STOPPED = "It was stopped by Ctrl-C, or by a signal to end."
WHY_KILLED = (
    "Its process is gone and has recorded no end: the system killed it, such as for memory, or the "
    "machine went down."
)


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
    return _single(readings[0], render) if alone else several.html(readings, render)


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
    lock_rows = [(name, facts.text(value)) for name, value in run.environment.items()]
    return render(
        "run.html",
        title=run.record.get("description") or run.record.get("recipe", run.name),
        kicker=run.name,
        status=Pill(run.status, TONES.get(run.status, "")),
        verdict=_verdict(run),
        facts=facts.of(run),
        stages=_stages(run),
        figures=[*_figures(run), *_of_stages(run)],
        chosen=samples.choose(run),
        reproduce=facts.reproduce(run),
        recipe=run.recipe_text,
        plan=json.dumps(plan, indent=1, ensure_ascii=False) if run.resolved else "",
        lock=Table(["what", "value"], lock_rows) if run.lock else None,
        now=facts.utc(files.now()),
    )


def _figures(run: Reading) -> list[Figures]:
    """The charts of a page, group by group."""
    results = [*curves.results([run]), *curves.problems(run)]
    note = " ".join(filter(None, (_held_out_note(run), _kept_note(run))))
    optimiser = curves.optimiser([run])
    groups = [
        Figures("Before and after" if run.evaluated("after") else "Before training", results, note),
        Figures("Learning", curves.learning([run])),
        Figures("Completions", curves.completions([run]), is_folded=True),
        Figures("Optimiser", optimiser, _kl_note(run), is_folded=True),
        Figures("Time and memory", curves.cost([run]), is_folded=True),
    ]
    return [group for group in groups if group.charts]


def _stages(run: Reading) -> Table | None:
    """What each stage has reached; None for a run without [[stage]], or before the first result."""
    recorded = [stage for stage in run.record.get("stages", []) if "evaluation" in stage]
    if not recorded:
        return None
    rows: list[list[Cell]] = [["before", "", None, "", *_reached(run.evaluated("before")), ""]]
    for stage in recorded:
        difference = stage["difference"]
        sentence, _ = facts.difference_sentence(difference["mean"], difference["interval"])
        title = ALGORITHMS[stage["algorithm"]].title
        about = [stage["name"], title, stage["steps"], duration(stage["seconds"])]
        rows.append([*about, *_reached(stage["evaluation"]), sentence])
    header = ["stage", "algorithm", "steps", "time", "accuracy", "greedy", "against the one before"]
    return Table(header, rows)


def _reached(evaluation: Row) -> list[Cell]:
    return [facts.accuracy(evaluation), facts.percent(evaluation["greedy"]) if evaluation else ""]


def _of_stages(run: Reading) -> list[Figures]:
    """The curves of each stage before the last training."""
    groups = []
    for stage in reading.stages(run):
        drawn = [
            *curves.learning([replace(stage, label="")]),
            *curves.completions([replace(stage, label="")]),
            *curves.optimiser([replace(stage, label="")]),
        ]
        named = [replace(chart, key=f"{stage.label}-{chart.key}") for chart in drawn]
        groups.append(Figures(f"Stage {stage.label}", named, is_folded=True))
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
    before, after = run.evaluated("before"), run.evaluated("after")
    if run.status != "complete" or not (before and after):
        return _unfinished(run, before)
    difference = run.record["evaluation"]["difference"]
    sentence, tone = facts.difference_sentence(difference["mean"], difference["interval"])
    greedy = f"greedy {facts.percent(before['greedy'])} → {facts.percent(after['greedy'])}"
    about = f"{after['num_samples']} samples of each problem; {greedy}."
    return Headline(
        facts.percent(after["accuracy"]),
        [f"{sentence}.", about, _learning_sentence(run), _unpaid_sentence(run), run.ending],
        tone,
        label=f"Accuracy on {after['num_problems']} held-out problems, before → after training",
        before=facts.percent(before["accuracy"]),
    )


def _unfinished(run: Reading, before: Row) -> Headline:
    """How far a run came, why it ended, and the command that goes on."""
    error = run.record.get("error") or {}
    reasons = {
        "failed": error.get("message") or "The record does not say why.",
        "killed": WHY_KILLED,
        "stopped": WHY_STOPPED,
    }
    hint = error.get("hint") if run.status == "failed" else ""
    sentences = [
        reasons.get(run.status, ""),
        f"To mend it: {hint}." if hint else "",
        _learning_sentence(run),
        _unpaid_sentence(run),
        run.ending,
        f"Accuracy before training: {facts.percent(before['accuracy'])}." if before else "",
    ]
    is_failed = run.status == "failed"
    progress = _progress(run)
    headline = f"Failed at {progress}" if is_failed else f"{run.status.capitalize()}: {progress}"
    tone = "worse" if is_failed else ""
    return Headline(
        headline,
        [sentence for sentence in sentences if sentence],
        tone,
        is_sentence=True,
        command=facts.next_step(run),
    )


def _progress(run: Reading) -> str:
    """`step 5 of 90`; before the last training begins, with the stage: `stage 1-sft, step 5 ...`"""
    begun = [stage for stage in reading.stages(run) if stage.metrics]
    part, name = (
        (begun[-1], f"stage {begun[-1].label}, ") if begun and not run.metrics else (run, "")
    )
    most = f" of {part.max_steps}" if part.max_steps else ""
    return f"{name}step {part.steps}{most}"


def _learning_sentence(run: Reading) -> str:
    """Whether the run learned, in the words of the live view; empty while that is not known."""
    if not (run.metrics and run.resolved):
        return ""
    ends = ((0, run.evaluated("before")), (run.steps, run.evaluated("after")))
    held_out = [HeldOut.of_summary(step, summary) for step, summary in ends if summary]
    return f"{health.sentence(run.metrics, Terms.of(run.resolved), held_out)}."


def _unpaid_sentence(run: Reading) -> str:
    """Which rewards, beside the decisive one, paid nothing in any step; empty without one."""
    decisive = run.recipe.get("eval", {}).get("reward")
    names = []
    for name, weight in run.recipe.get("rewards", {}).items():
        paid = [row[key] for row in run.metrics if (key := f"rewards/{name}/mean") in row]
        if weight > 0 and name != decisive and paid and not any(paid):
            names.append(name)
    return f"{', '.join(names)} paid 0 in all {run.steps} steps." if names else ""

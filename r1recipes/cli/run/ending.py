"""How `run` ends: the result, the page of the run, and what to do next with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r1recipes.cli.common import printable
from r1recipes.errors import command
from r1recipes.machine.units import aligned, duration, gib

if TYPE_CHECKING:
    from rich.console import Console

    from r1recipes.runs import Run
    from r1recipes.runs.reading import Reading

MAX_QUESTION = 50
"""Characters of a question that is shown in a command; assumed."""
ADVICE = "docs/not-learning.md"
"""The guide to a run that has learned nothing."""


def print_result(run: Run, console: Console) -> None:
    """Print the result of a run that is complete."""
    from r1recipes.report import phases
    from r1recipes.report.facts import difference_sentence
    from r1recipes.rewards.judge import cost
    from r1recipes.runs import reading

    result = reading.read(run)
    record, evaluation = result.record, result.record["evaluation"]
    before, after, change = (evaluation[key] for key in ("before", "after", "difference"))
    verdict, _ = difference_sentence(change["mean"], change["interval"])
    accuracy = f"Accuracy {before['accuracy']:.1%} -> {after['accuracy']:.1%}, "
    accuracy += f"greedy {before['greedy']:.1%} -> {after['greedy']:.1%}"
    for line in (accuracy, verdict):
        console.print(line, markup=False, highlight=False, style="bold", soft_wrap=True)
    if step := record.get("stopped_at_step"):
        line = f"Finished at step {step} of {run.plan().recipe.train.max_steps}"
        console.print(line, markup=False, highlight=False)
    for stage in record.get("stages", []):
        share, change = stage["evaluation"]["accuracy"], stage["difference"]
        verdict, _ = difference_sentence(change["mean"], change["interval"])
        line = f"Stage {stage['name']}: accuracy {share:.1%}. {verdict}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if judge := record.get("judge"):
        console.print(f"Judge: {cost.sentence(judge)}", markup=False, highlight=False)
    if memory := _memory_line(record["vram"]):
        console.print(memory, markup=False, highlight=False)
    if line := phases.sentence(phases.of(result)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_end(run: Run, console: Console, *, grading: list[str]) -> None:
    """Print how long a run took, where its page is, and the next commands; `grading`: the arguments
    of `grade` for its recipe, if they are known.

    The commands name the folder: the recipe would stand for another run once that has begun.
    """
    from r1recipes.runs import reading

    result = reading.read(run)
    _say(console, f"Done in {duration(result.duration_s)}: {run.folder}")
    print_page(run, console)
    _say(console, "Next:")
    steps = next_steps(result, str(run.folder), has_export=run.export.is_dir(), grading=grading)
    rows = [[f"  {purpose}", command(*words)] for words, purpose in steps]
    if not _is_better(result):
        rows.append(["  find the cause and the first change", ADVICE])
    for line in aligned(rows):
        _say(console, line)


def print_page(run: Run | None, console: Console) -> None:
    """Print where the page of a run is, if it has one."""
    if run and run.report.is_file():
        _say(console, f"Report: {run.report}")


def _say(console: Console, line: str) -> None:
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def next_steps(
    result: Reading, name: str, *, has_export: bool, grading: list[str]
) -> list[tuple[tuple[str, ...], str]]:
    """The next commands for a run that is complete, each with its purpose: to use what has learned,
    or to look at what has not."""
    ask = ("ask", name, _question(result)), "ask the base and the trained model"
    if not _is_better(result):
        if not grading:
            return [ask]
        return [ask, (("grade", grading[0], name, *grading[1:]), "see why answers are not right")]
    report = ("report", name), "write the page again"
    export = ("export", name, "--to", "merged_16bit"), "make weights for other programs"
    share = ("share", name), "share the recipe with its result"
    return [ask, report if has_export else export, share]


def _is_better(result: Reading) -> bool:
    """Whether the accuracy rose for sure."""
    low: float = result.evaluated("difference").get("interval", [0.0])[0]
    return low > 0


def _question(result: Reading) -> str:
    """The first of the held-out problems, or a word for one that is long."""
    question = next((str(row["question"]) for row in result.after), "")
    is_short = len(question) <= MAX_QUESTION and question.isprintable() and question.strip()
    return question if is_short else "your question"


def _memory_line(vram: dict[str, Any]) -> str | None:
    """The measured peak against the predicted one, in GiB; None where nothing was measured."""
    predicted, measured = vram["predicted_bytes"], vram["measured_bytes"]
    if measured is None:
        return None
    others = " together with other processes on the card" if vram.get("shared") else ""
    line = f"Memory: peak {gib(measured)} GiB{others}"
    if predicted is None:
        return line
    if others:
        return f"{line}, predicted {gib(predicted)} for this one"
    return f"{line}, predicted {gib(predicted)} ({predicted / measured - 1:+.1%})"

"""Chooses the completions that a run's page shows: the greedy answers to a few held-out problems
before and after training, and the samples of the first and the last training step by their prompt.

Limits: a few prompts of each step, and long texts are shortened; the files in the run folder have
everything. `samples.html` is their template.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from r1recipes.report.page import Pill
from r1recipes.runs.reading import Reading, Row

MAX_CHARACTERS = 6000
"""Characters of a prompt or a completion that are shown; the .jsonl file has the rest."""
CHANGES = (("became right", 2), ("became wrong", 1), ("stayed wrong", 1), ("stayed right", 1))
"""What training did to the greedy answer of a problem, and how many such problems are shown."""
MAX_PROBLEMS = 4
BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){3,}")
"""What is shown as `(3 empty lines)`: three and more of them say no more than their number."""
MAX_PROMPTS, MAX_COMPLETIONS = 8, 4
"""Prompts of a step that are shown, and completions of each."""


@dataclass(frozen=True)
class Side:
    """The greedy answer to a problem, before or after training."""

    title: str
    is_right: bool
    text: str


@dataclass(frozen=True)
class Problem:
    """A held-out problem with the answers before and after training, or with those before it."""

    question: str
    answer: str
    change: str
    """One of `CHANGES`; empty before the evaluation after training."""
    sides: Sequence[Side]


@dataclass(frozen=True)
class Completion:
    """A completion of a training step with its rewards."""

    title: str
    text: str
    rewards: Sequence[Pill]


@dataclass(frozen=True)
class Prompt:
    """Completions of one prompt in one step; `answer` is empty where none is known."""

    question: str
    answer: str
    completions: Sequence[Completion]


@dataclass(frozen=True)
class Column:
    """The prompts of a step."""

    title: str
    prompts: Sequence[Prompt]


@dataclass(frozen=True)
class Samples:
    """What the page shows; `columns` has the first step and, if there is another, the last."""

    problems_title: str
    problems: Sequence[Problem]
    title: str
    """Title of the columns."""
    columns: Sequence[Column]


def choose(run: Reading) -> Samples | None:
    """The samples of a run, whatever it has; None before there is one."""
    problems_title = "Held-out problems before training, greedy"
    if run.after:
        problems_title = "The same held-out problem, before and after, greedy"
        problems = [_problem(*picked) for picked in pick(run.before, run.after)]
    else:
        problems = [_unfinished(item) for item in pick_before(run.before)]
    rows = [row for row in run.completions if "step" in row]
    if not rows:
        return Samples(problems_title, problems, "", []) if problems else None
    first, last = rows[0]["step"], rows[-1]["step"]
    title = f"Training samples of step {first}"
    title += ": best, worst and the first" if first == last else f" against step {last}"
    columns = [
        _column(step, [row for row in rows if row["step"] == step], run)
        for step in dict.fromkeys((first, last))
    ]
    return Samples(problems_title, problems, title, columns)


def newest(run: Reading, num_steps: int) -> list[Column]:
    """The samples of the newest steps that have some, the newest step first."""
    by_step: dict[int, list[Row]] = {}
    for row in run.completions:
        if "step" in row:
            by_step.setdefault(row["step"], []).append(row)
    steps = sorted(by_step, reverse=True)[:num_steps]
    return [_column(step, by_step[step], run) for step in steps]


def pick(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[str, Row, Row]]:
    """A few problems as (change, before, after), the most telling changes first."""
    pairs: dict[str, list[tuple[Row, Row]]] = {change: [] for change, _ in CHANGES}
    for old, new in zip(before, after, strict=False):
        was_right, is_right = old["greedy"]["right"], new["greedy"]["right"]
        verb = "stayed" if was_right == is_right else "became"
        pairs[f"{verb} {'right' if is_right else 'wrong'}"].append((old, new))
    picked = [(change, *pair) for change, count in CHANGES for pair in pairs[change][:count]]
    return picked[:MAX_PROBLEMS]


def pick_before(before: Sequence[Row]) -> list[Row]:
    """A few problems of a run that has no evaluation after training: wrong and right in turn."""
    wrong = [item for item in before if not item["greedy"]["right"]]
    right = [item for item in before if item["greedy"]["right"]]
    num_right = min(len(right), MAX_PROBLEMS // 2)
    return [*wrong[: MAX_PROBLEMS - num_right], *right[:num_right]]


def _problem(change: str, before: Row, after: Row) -> Problem:
    sides = (_side("Before", before), _side("After", after))
    return Problem(_shortened(before["question"]), _text(before["answer"]), change, sides)


def _unfinished(item: Row) -> Problem:
    sides = [_side("Before", item)]
    return Problem(_shortened(item["question"]), _text(item["answer"]), "", sides)


def _side(when: str, item: Row) -> Side:
    rights = [sample["right"] for sample in item["samples"]]
    title = f"{when}; {sum(rights)} of {len(rights)} samples right"
    return Side(title, item["greedy"]["right"], _answer(item["greedy"]["text"]))


def _column(step: int, rows: Sequence[Row], run: Reading) -> Column:
    """The rows of one step by their prompt, in the order of the file."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["prompt"]), []).append(row)
    prompts = [
        Prompt(
            _shortened(group[0]["prompt"]),
            _text(group[0].get("answer")),
            [_completion(row, run) for row in group[:MAX_COMPLETIONS]],
        )
        for group in islice(groups.values(), MAX_PROMPTS)
    ]
    more = f", {MAX_PROMPTS} of {len(groups)} prompts" if len(groups) > MAX_PROMPTS else ""
    return Column(f"Step {step}{more}", prompts)


def _completion(row: Row, run: Reading) -> Completion:
    weights = run.recipe.get("rewards", {})
    rewards = {name: value for name, value in row["rewards"].items() if value is not None}
    total = sum(weights.get(name, 1.0) * value for name, value in rewards.items())
    return Completion(
        f"Reward {total:.2f}",
        _answer(row["completion"]),
        [Pill(f"{name} {value:g}", _tone(value)) for name, value in rewards.items()],
    )


def _tone(value: float) -> str:
    return "good" if value >= 1 else "bad" if value <= 0 else ""


def _text(answer: object) -> str:
    return str(answer) if answer else ""


def _answer(text: object) -> str:
    """A completion; what shows nothing is named."""
    shown = _shortened(text)
    if shown.strip():
        return BLANK_LINES.sub(
            lambda lines: f"\n({lines[0].count(chr(10)) - 1} empty lines)\n", shown
        )
    return f"(only white space, {len(shown)} characters)" if shown else "(empty)"


def _shortened(text: object) -> str:
    text = str(text)
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " ..."

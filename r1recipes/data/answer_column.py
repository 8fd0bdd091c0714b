"""Finds the final answer in each value of an answer column, and refuses columns that have none.

A column may hold final answers, or whole solutions that end in one: after a marker (GSM8K's "####")
or in \\boxed{}. A solution is no reference: no answer would ever match it. Limits: solutions are
known by their form, so `data.answer_kind` can overrule what is said here; and nothing is refused
where no reward compares answers with this column.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from r1recipes.config.suggest import nearest
from r1recipes.data.sources import limits
from r1recipes.errors import Problem
from r1recipes.machine.units import shortened
from r1recipes.recipe.schema import Recipe
from r1recipes.recipe.sections.data import Data
from r1recipes.rewards.functions import COMPARES_ANSWERS

MARKERS = (
    "####", "The final answer is:", "The final answer is", "the final answer is:",
    "the final answer is", "The answer is:", "The answer is", "the answer is:", "the answer is",
    "Final Answer:", "Final answer:", "final answer:", "FINAL ANSWER:", "Answer:", "ANSWER:",
)  # fmt: skip
"""What data sets write before a final answer; of those that occur alike the first is taken."""
_ANY_MARKER = re.compile("|".join(map(re.escape, MARKERS)))
NEARLY_ALL = 0.9
"""Share of the rows that a form must have to be that of the column; assumed."""
MOST = 0.5
"""Share of rows that hold whole solutions from which the column is refused; assumed."""
SOME = 0.02
"""Share of rows that hold whole solutions from which the user is warned; assumed."""
MIN_CHARS, MIN_WORDS, MIN_NUMBERS = 100, 10, 3
"""Characters, words and numbers that a whole solution has at least; assumed, GSM8K's shortest are
about as long."""
MAX_LOOKED_AT = 5_000
"""Characters of a reference in which its form is looked for; assumed."""
MIN_SENTENCE_WORDS = 5
"""Words that a sentence has at least; assumed: a name or a title with a year has fewer."""
MAX_FORM_ROWS, MAX_FORM_CHARS = 50_000, 10_000_000
"""Rows, and characters in them, by which the form of a column is known; GSM8K has 7,473 of 300.
Looking at them takes up to 3 s (measured)."""
_BOX = "\\boxed{"


@dataclass(frozen=True)
class FinalAnswers:
    """The final answer of each row, what is wrong with it ("" for nothing), and notes for people.

    `problem` is what is wrong with the column as a whole, if anything is."""

    values: list[str | list[str]]
    faults: list[str]
    notes: tuple[str, ...] = ()
    problem: Problem | None = None


def are_compared(recipe: Recipe) -> bool:
    """Whether a reward of the recipe compares answers with the references."""
    return not set(recipe.reward_names).isdisjoint(COMPARES_ANSWERS)


def final_answers(
    values: Iterable[Any], data: Data, where: str, *, compared: bool = True
) -> FinalAnswers:
    """The final answers in the values of a column, each of which is looked at once and not held.
    `where` names the data in messages.

    `compared`: some reward compares answers with them (`are_compared`).
    """
    from r1recipes.rewards import answers  # the tables of `answers` take 16 ms to import

    plain = FinalAnswers([], [])
    are_texts = bytearray()
    for value in values:
        final, fault = answers.final_reference(value, data.answer_after)
        plain.values.append(final)
        plain.faults.append(fault)
        are_texts.append(isinstance(value, str) and not fault)
    if not compared or data.answer_after or data.answer_kind == "text":
        return plain
    texts = {row: str(final) for row, final in enumerate(plain.values) if are_texts[row]}
    if not texts:
        return plain
    with_box = {row: text for row, text in texts.items() if _BOX in text}
    limits.refuse_braces(with_box.values(), data.answer, where)
    boxed = {row: answers.last_boxed(text) for row, text in with_box.items()}
    if len(boxed) >= NEARLY_ALL * len(plain.values):
        return _boxed(plain, boxed, data, where)
    broken = _broken_boxes(boxed, len(texts), where)
    texts, where = _looked_at(texts, where)
    problem = _marked(texts, data, where) or _solutions(texts, data, where)
    notes = () if problem else _sentences(texts, data, where) or _some_solutions(texts, where)
    return FinalAnswers(plain.values, plain.faults, notes + broken, problem)


def _looked_at(texts: dict[int, str], where: str) -> tuple[dict[int, str], str]:
    """The rows by which the form of a column is known, and how messages name them."""
    from r1recipes.rewards import answers

    rows = list(texts)
    chosen = answers.spread(list(map(len, texts.values())), MAX_FORM_ROWS, MAX_FORM_CHARS)
    if not chosen or len(chosen) == len(rows):
        return texts, where
    looked_at = {rows[place]: texts[rows[place]] for place in chosen}
    return looked_at, f"{where}, of which {len(chosen):,} rows were looked at,"


def _boxed(
    plain: FinalAnswers, boxed: dict[int, str | None], data: Data, where: str
) -> FinalAnswers:
    """The column whose rows end in \\boxed{}; those without a whole one are counted as faults."""
    num_rows = len(plain.values)
    values = [boxed.get(row) or final for row, final in enumerate(plain.values)]
    faults = [
        fault
        or (_box_fault(boxed[row]) if row in boxed else "has no \\boxed{}, as the others have,")
        for row, fault in enumerate(plain.faults)
    ]
    num_boxed = sum(not fault for fault in faults)
    share = f"all {num_rows:,}" if num_boxed == num_rows else f"{num_boxed:,} of {num_rows:,}"
    note = (
        f"`{data.answer}` of {where}: the reference is what the last \\boxed{{}} holds, in {share} "
        "rows"
    )
    return FinalAnswers(values, faults, (note,) if num_boxed else ())


def _box_fault(content: str | None) -> str:
    """What is wrong with a \\boxed{} of this content, None for one that is not closed."""
    if content is None:
        return "has a \\boxed{ that is not closed"
    return "" if content else "has an empty \\boxed{}"


def _broken_boxes(boxed: dict[int, str | None], num_texts: int, where: str) -> tuple[str, ...]:
    """The warning on boxes that are empty or not closed, where few rows have any."""
    broken = [row for row, content in boxed.items() if not content]
    if not broken:
        return ()
    return (
        f"warning: {len(broken):,} of {num_texts:,} references of {where} have a \\boxed{{}} that "
        f"is empty or not closed, which no answer matches; the first is row {broken[0] + 1}",
    )


def _marked(texts: dict[int, str], data: Data, where: str) -> Problem | None:
    """The problem with a column that has a final answer after a marker, which is not named."""
    with_any = [text for text in texts.values() if _ANY_MARKER.search(text)]
    counts = {marker: sum(_has(text, marker) for text in with_any) for marker in MARKERS}
    marker = max(MARKERS, key=counts.__getitem__)
    if counts[marker] < NEARLY_ALL * len(texts):
        return None
    return Problem(
        f"`{data.answer}` of {where} holds whole solutions: in {counts[marker]:,} of "
        f"{len(texts):,} rows `{marker}` stands before the final answer",
        hint=f'set `data.answer_after = "{marker}"`',
    )


def _has(text: str, marker: str) -> bool:
    """Whether something stands before the marker and something behind it."""
    before, mark, after = text.rpartition(marker)
    return bool(mark and before.strip() and after.strip())


def _solutions(texts: dict[int, str], data: Data, where: str) -> Problem | None:
    """The problem with a column most of whose rows are whole solutions without a known marker."""
    solutions = [text for text in texts.values() if is_solution(text)]
    if len(solutions) < MOST * len(texts):
        return None
    marker = _common_marker(solutions)
    if marker:
        hint = f"`{marker}` stands before the last thing in them: `data.answer_after` may name it"
    else:
        hint = "put the final answers into a column of their own, and name it in `data.answer`"
    return Problem(
        f"`{data.answer}` of {where} holds whole solutions in {len(solutions):,} of "
        f"{len(texts):,} rows, and no answer is the same as one: the first begins "
        f"`{shortened(solutions[0], 60)}`",
        hint=f'{hint}; if the texts themselves are the references, set `data.answer_kind = "text"`',
    )


def _sentences(texts: dict[int, str], data: Data, where: str) -> tuple[str, ...]:
    """The warning on a column of sentences with numbers, which may be short worked solutions."""
    from r1recipes.rewards import answers

    sentences = [text for text in texts.values() if _is_sentence(text)]
    if len(sentences) < NEARLY_ALL * len(texts):
        return ()
    kinds = answers.AnswerColumn.from_references(sentences).kinds
    num_texts = sum(kind is answers.Kind.TEXT for kind in kinds)
    if num_texts < NEARLY_ALL * len(texts):
        return ()
    label = _common_label(sentences)
    after = (
        f'set `data.answer_after = "{label}"`'
        if label
        else "name in `data.answer_after` what stands before it"
    )
    return (
        f"warning: {num_texts:,} of {len(texts):,} references of {where} are sentences with "
        f"numbers, which only the same words match: the first is `{shortened(sentences[0], 60)}`; "
        f"if each ends in a final answer, {after}; if the sentences are the references, set "
        '`data.answer_kind = "text"`',
    )


def _is_sentence(text: str) -> bool:
    """Whether a reference has words, a number, and the form of a sentence or a second number."""
    if len(text) < 3 * MIN_SENTENCE_WORDS - 1:
        return False
    text = text[:MAX_LOOKED_AT]
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    numbers = re.findall(r"\d+(?:[.,]\d+)*", text)
    has_form = len(numbers) > 1 or bool(re.search(r"[.!?](\s|$)|\n", text.strip()))
    return has_form and bool(numbers) and len(words) >= MIN_SENTENCE_WORDS and not _is_json(text)


def _common_label(texts: Sequence[str]) -> str | None:
    """The word with a colon that stands last in nearly all texts, such as `Final:`."""
    labels = Counter(m[-1] for text in texts if (m := re.findall(r"[A-Za-z]+:(?=\s*\S)", text)))
    label, count = labels.most_common(1)[0] if labels else ("", 0)
    return label if count >= NEARLY_ALL * len(texts) else None


def _some_solutions(texts: dict[int, str], where: str) -> tuple[str, ...]:
    rows = [row for row, text in texts.items() if is_solution(text)]
    if len(rows) < SOME * len(texts) or not rows:
        return ()
    return (
        f"warning: {len(rows):,} of {len(texts):,} references of {where} look like whole "
        f"solutions, which no answer matches; the first is row {rows[0] + 1}",
    )


def is_solution(text: str) -> bool:
    """Whether a reference looks like a worked solution: several lines or sentences of words, with
    several numbers in them. A JSON value is none."""
    text = text[:MAX_LOOKED_AT]
    if len(text) < MIN_CHARS or _is_json(text):
        return False
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    has_parts = "\n" in text.strip() or len(re.findall(r"[.!?]\s+\S", text)) >= 2
    numbers = re.findall(r"\d+(?:[.,]\d+)*", text)
    return has_parts and len(words) >= MIN_WORDS and len(numbers) >= MIN_NUMBERS


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _common_marker(solutions: Iterable[str]) -> str | None:
    """The words that nearly all last lines begin with, up to a number, such as `Total:`."""
    begins: Counter[str] = Counter()
    for text in solutions:
        line = text.strip().splitlines()[-1]
        begins[re.split(r"[\d$\\-]", line, maxsplit=1)[0].strip()] += 1
    marker, count = begins.most_common(1)[0]
    return marker if marker and count >= NEARLY_ALL * begins.total() else None


def column_hint(key: str, name: str, columns: list[str], used: Collection[str]) -> str:
    """The column that is meant by `data.question` or `data.answer`: one of a near name, or else the
    first or the last that is free."""
    lower = {column.lower(): column for column in reversed(columns)}
    if meant := nearest(name.lower(), lower, 0.5):
        return f'set `data.{key} = "{lower[meant]}"`'
    free = [column for column in columns if column not in used]
    if not free:
        return f"add a column with the {key}s to each row"
    likely = free[0] if key == "question" else free[-1]
    return f'set `data.{key} = "{likely}"`' + (", or to another of these" if free[1:] else "")

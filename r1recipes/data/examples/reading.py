"""Read the examples of [examples] from a file, a folder or the Hub, and check them.

Examples on held-out questions are left out and counted. Limits: one question and its answers; a
column of messages is read where it has one turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.examples import Examples as Section
from r1recipes.algorithms.examples import Learned
from r1recipes.data import sources
from r1recipes.data.splits import count_faults, question_key, read_question
from r1recipes.errors import Problem, RecipeError, listed
from r1recipes.recipe import references
from r1recipes.recipe.schema import Recipe

if TYPE_CHECKING:
    import datasets

QUESTIONS = ("question", "prompt")
"""Columns that a question is looked for in, if the recipe names none."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """The rows {"question", and the columns of the algorithm} of a source, all of them valid."""

    rows: list[Row]
    revision: str | None = None
    """The commit on the Hub."""
    notes: tuple[str, ...] = ()
    """What was left out, for people."""


def learned(recipe: Recipe) -> Learned:
    """What the algorithm of a recipe learns from; it has examples."""
    form = ALGORITHMS[recipe.algorithm].learned
    assert form is not None, "an algorithm that samples while it trains has no examples"
    return form


def load(
    recipe: Recipe, base_dir: Path, held_out: datasets.Dataset, *, offline: bool = False
) -> Examples:
    """The examples that [examples] of a recipe names, which has the section.

    Raises: RecipeError with everything that is wrong with them.
    """
    section, form = recipe.examples, learned(recipe)
    assert section is not None
    path, revision = references.local_path(section.name, base_dir), None
    if path is None or path.is_dir():
        split_key = "examples.split"
        table, revision = sources.read_repository(
            path, section, section.split, split_key=split_key, offline=offline
        )
        where = f"split `{section.split}` of `{section.name}`"
    else:
        table = sources.read_file(path, "examples.name", (*QUESTIONS, *form.columns))
        where = f"`{path}`"
    names = table.column_names
    question = question_column(section, names)
    columns = {name: table[name] for name in {question, *form.columns} if name in names}
    if problems := column_problems(names, columns, section, form, where):
        raise RecipeError(problems=problems)
    rows = read_rows(columns, question, form)
    keys = {question_key(text) for text in held_out["question"]}
    remaining = [row for row in rows if question_key(row["question"]) not in keys]
    if not remaining:
        raise RecipeError(f"every {form.noun} is on a held-out question", hint="add others")
    num_leaked = len(rows) - len(remaining)
    note = f"{form.example(num_leaked)} left out: their question is held out"
    return Examples(remaining, revision, (note,) if num_leaked else ())


def question_column(section: Section, names: Sequence[str]) -> str:
    """The column with the questions: the one that the recipe names, or the first of `QUESTIONS`."""
    if section.question:
        return section.question
    return next((name for name in QUESTIONS if name in names), QUESTIONS[0])


def column_problems(
    names: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    section: Section,
    form: Learned,
    where: str,
) -> list[Problem]:
    """What is wrong with a source of examples that has the columns `names`; `columns` are the
    values of those that are read, and `where` names it in messages."""
    question = question_column(section, names)
    problems = [
        Problem(
            f"{where} has no column `{column}`; it has {listed(list(names))}",
            hint=f'set `examples.question = "{[*names, "question"][0]}"`, or to another of these'
            if column == question
            else f"{form.noun}s need the columns {listed([question, *form.columns])}",
        )
        for column in (question, *form.columns)
        if column not in names
    ]
    for column, values in columns.items():
        if column == question:
            faults = [_read(value, "user")[1] for value in values]
        elif form.columns[column] == "flag":
            faults = ["" if type(value) is bool else "is not true or false" for value in values]
        else:
            faults = [_read(value, "assistant")[1] for value in values]
        problems += count_faults(column, faults, where)
    return problems


def read_rows(columns: Mapping[str, Sequence[Any]], question: str, form: Learned) -> list[Row]:
    """The rows of valid columns."""
    values = {"question": [_read(value, "user")[0] for value in columns[question]]}
    for name, kind in form.columns.items():
        is_text = kind == "text"
        values[name] = [_read(v, "assistant")[0] if is_text else v for v in columns[name]]
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _read(value: Any, role: str) -> tuple[str, str]:
    """The text of a question or of a completion, and its fault, "" if it has none. Messages may
    have a system message and the question before a completion, as in many sets of preferences."""
    if not isinstance(value, list):
        return read_question(value)
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in value]
    turns = [role for role in roles if role != "system"]
    if turns not in ([role], ["user", role] if role == "assistant" else []):
        return "", f"is not one message of the {role}"
    return read_question(value[-1].get("content"))

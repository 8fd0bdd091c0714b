"""Worked problems for the cold start: from a file, or made for built-in problems.

Held-out questions are left out and counted. Limits: one completion for each question of a file.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.data import generators, sources
from r1recipes.data.splits import (
    BUILTIN_SIZE,
    builtin_problems,
    count_faults,
    messages,
    question_key,
    read_question,
)
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe

if TYPE_CHECKING:
    import datasets


def make(
    recipe: Recipe, base_dir: Path, count: int, *, held_out: datasets.Dataset | None = None
) -> list[dict[str, Any]]:
    """`count` rows {"prompt", "completion"} (messages) for the cold start, in a seeded order.

    Fewer demonstrations are repeated, each time in another order; a built-in problem is worked anew
    each time. Questions of `held_out` are left out. Raises: RecipeError.
    """
    start, rng = recipe.cold_start, random.Random(f"demonstrations {recipe.seed}")
    assert start is not None
    rows, _ = _demonstrated(recipe, base_dir, held_out)
    made: list[dict[str, Any]] = []
    while len(made) < count:
        for row in rng.sample(rows, min(len(rows), count - len(made))):
            kind = None if start.data else generators.KINDS[recipe.data.name]
            text = kind.demonstrate(row, rng, start.wrong) if kind else row["completion"]
            completion = [{"role": "assistant", "content": text}]
            made.append({"prompt": messages(row["question"], recipe), "completion": completion})
    return made


def num_held_out(recipe: Recipe, base_dir: Path, held_out: datasets.Dataset) -> int:
    """Demonstrations that `make` leaves out, because their question is held out.

    Raises: RecipeError, as `make` does.
    """
    return _demonstrated(recipe, base_dir, held_out)[1] if recipe.cold_start else 0


def _demonstrated(
    recipe: Recipe, base_dir: Path, held_out: datasets.Dataset | None
) -> tuple[list[dict[str, Any]], int]:
    """The rows to demonstrate, and the number of those left out. Raises: RecipeError."""
    assert recipe.cold_start is not None
    name = recipe.cold_start.data
    if name is None:
        rows = builtin_problems(recipe.data, "train", recipe.data.size or BUILTIN_SIZE, recipe.seed)
    else:
        rows = _demonstration_file(name, base_dir)
    questions = [] if held_out is None else held_out["question"]
    keys = {question_key(question) for question in questions}
    remaining = [row for row in rows if question_key(row["question"]) not in keys]
    if not remaining:
        raise RecipeError("every demonstration is on a held-out question", hint="add others")
    return remaining, len(rows) - len(remaining)


def _demonstration_file(name: str, base_dir: Path) -> list[dict[str, Any]]:
    key, columns = "cold_start.data", ("question", "completion")
    path = base_dir / Path(name).expanduser()
    rows = sources.read_file(path, key, columns)
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        message = f"`{path}` has no column `{missing[0]}`; it has {', '.join(rows.column_names)}"
        raise RecipeError(message, hint=f"`{key}` needs the columns question and completion")
    problems = []
    for column in columns:
        faults = [read_question(text)[1] for text in rows[column]]
        problems += count_faults(column, faults, f"`{path}`")
    if problems:
        raise RecipeError(problems=problems)
    return list(rows.select_columns(list(columns)))

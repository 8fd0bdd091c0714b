"""Worked problems for the cold start: from a file, or made for built-in problems.

Demonstrations on held-out questions, and those that are longer than a sequence of the training, are
left out and counted. Limits: one completion for each question of a file.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
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
from r1recipes.errors import Problem, RecipeError
from r1recipes.machine import files
from r1recipes.recipe.schema import Recipe

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

NEARLY_NONE = 0.1
"""Share of the demonstrations that must fit into max_seq_length; assumed."""
COLUMNS = ("question", "completion")
"""The columns of a file of demonstrations."""


class Lengths:
    """Tells which demonstrations fit into a sequence of the training, and counts them.

    SFT would cut the others without a word, so that the model never learns how one ends. The
    length is that of TRL's SFTTrainer: the chat template over prompt and completion.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_length: int):
        self._tokenizer = tokenizer
        self._limit = max_seq_length
        self._num_rows = self._num_too_long = self._longest = 0

    @property
    def notes(self) -> list[str]:
        """The line on the demonstrations that do not fit, if there are any."""
        return [f"{self._fact} and are left out"] if self._num_too_long else []

    @property
    def _fact(self) -> str:
        return (
            f"{self._num_too_long:,} of {self._num_rows:,} demonstrations are longer than "
            f"max_seq_length {self._limit} (the longest has {self._longest} tokens)"
        )

    def of(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """The tokens of each row {"prompt", "completion"} (messages)."""
        batch = self._tokenizer.apply_chat_template(
            conversation=[[*row["prompt"], *row["completion"]] for row in rows],
            tokenize=True,
            return_dict=True,
        )
        assert isinstance(batch, Mapping)  # by return_dict
        return [len(ids) for ids in batch["input_ids"]]

    def fitting(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows {"prompt", "completion"} (messages) that fit, in their order.

        Raises: RecipeError if nearly none of the rows so far fits.
        """
        lengths = self.of(rows)
        fitting = [row for row, n in zip(rows, lengths, strict=True) if n <= self._limit]
        self._num_rows += len(rows)
        self._num_too_long += len(rows) - len(fitting)
        self._longest = max(self._longest, *lengths)
        if self._num_rows - self._num_too_long < NEARLY_NONE * self._num_rows:
            raise RecipeError(
                f"{self._fact}: a cold start would cut them before their end",
                hint=f"set `max_seq_length = {self._longest}` in the preset, or shorten the "
                "demonstrations",
            )
        return fitting


def make(
    recipe: Recipe,
    base_dir: Path,
    count: int,
    *,
    held_out: datasets.Dataset | None = None,
    lengths: Lengths | None = None,
) -> list[dict[str, Any]]:
    """`count` rows {"prompt", "completion"} (messages) for the cold start, in a seeded order.

    Fewer demonstrations are repeated, each time in another order; a built-in problem is worked anew
    each time. Questions of `held_out` are left out, and what does not fit by `lengths`.
    Raises: RecipeError.
    """
    rng = random.Random(f"demonstrations {recipe.seed}")
    assert recipe.cold_start is not None
    rows, _ = _demonstrated(recipe, base_dir, held_out)
    if recipe.cold_start.data:  # each is the same whenever it is shown
        shown = [_worked(row, recipe, rng) for row in rows]
        shown = lengths.fitting(shown) if lengths else shown
    made: list[dict[str, Any]] = []
    while len(made) < count:
        missing = count - len(made)
        if recipe.cold_start.data:
            made += rng.sample(shown, min(len(shown), missing))
        else:
            chosen = rng.sample(rows, min(len(rows), missing))
            worked = [_worked(row, recipe, rng) for row in chosen]
            made += lengths.fitting(worked) if lengths else worked
    return made


def check(
    recipe: Recipe, base_dir: Path, held_out: datasets.Dataset, lengths: Lengths
) -> list[str]:
    """Look at each demonstration once, before a run is made. Returns lines on those left out.

    Raises: RecipeError, as `make` does.
    """
    if not recipe.cold_start:
        return []
    rng = random.Random(f"demonstrations {recipe.seed}")
    rows, num_left_out = _demonstrated(recipe, base_dir, held_out)
    lengths.fitting([_worked(row, recipe, rng) for row in rows])
    is_held_out = f"{num_left_out} demonstrations left out: their question is held out"
    return [is_held_out] * bool(num_left_out) + lengths.notes


def _worked(row: dict[str, Any], recipe: Recipe, rng: random.Random) -> dict[str, Any]:
    """The demonstration of a row, as messages; a built-in problem is worked by means of `rng`."""
    start = recipe.cold_start
    assert start is not None
    kind = None if start.data else generators.KINDS[recipe.data.name]
    text = kind.demonstrate(row, rng, start.wrong) if kind else row["completion"]
    completion = [{"role": "assistant", "content": text}]
    return {"prompt": messages(row["question"], recipe), "completion": completion}


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
    path = base_dir / files.named(name)
    rows = sources.read_file(path, "cold_start.data", COLUMNS)
    columns = {column: rows[column] for column in rows.column_names if column in COLUMNS}
    if problems := file_problems(rows.column_names, columns, f"`{path}`"):
        raise RecipeError(problems=problems)
    return list(rows.select_columns(list(COLUMNS)))


def file_problems(
    names: Sequence[str], columns: Mapping[str, Sequence[Any]], where: str
) -> list[Problem]:
    """What is wrong with a file of demonstrations, which has the columns `names`.

    `columns` are the values of those in `COLUMNS`; `where` names the file in messages.
    """
    problems = [
        Problem(
            f"{where} has no column `{column}`; it has {', '.join(names) or 'none'}",
            hint="`cold_start.data` needs the columns question and completion",
        )
        for column in COLUMNS
        if column not in names
    ]
    for column, values in columns.items():
        faults = [read_question(text)[1] for text in values]
        problems += count_faults(column, faults, where)
    return problems

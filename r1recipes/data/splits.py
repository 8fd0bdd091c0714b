"""Turn the data of a recipe into prompts and answers: choose rows, hold some out, refuse bad ones.

Limits: one question and one final answer a row. Chosen rows are in memory; nothing is written. The
choice of the held-out problems does not depend on the recipe's seed, so that runs can be compared.
"""

from __future__ import annotations

import logging
import random
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.data import answer_column, arrow_rows, generators, gym, sources
from r1recipes.data.arrow_rows import Rows
from r1recipes.errors import Problem, RecipeError, listed
from r1recipes.recipe import references
from r1recipes.recipe.schema import Recipe
from r1recipes.recipe.sections.data import Data, Problems
from r1recipes.rewards.reward import RESERVED_COLUMNS

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

BUILTIN_SIZE = 2000
"""Training rows that are made of built-in data if the recipe names no size; assumed."""
HELD_OUT_SEED = 0
TEMPLATE_NAMES = ("messages", "tools", "documents")
"""Variables of nearly every chat template. Question and answer may be in columns of these names,
but no such column may go to the trainer (`chat_template.refuse_template_columns`)."""
_NO_SPACE = re.compile(r" (?:(?!\w)|(?<!\w ))")
"""Spaces that do not stand between two letters or digits. The space is first, so that it alone is
looked for: 40 times as fast in prose (measured)."""


@dataclass(frozen=True)
class Splits:
    """Rows with `prompt` (messages), `answer`, `question` and further columns.

    `answer` is the final answer as text, or a list of texts in a column of lists: any is accepted.
    `revision` is the commit on the Hub. `num_leaked` training rows were left out because their
    question is also held out.
    """

    train: datasets.Dataset
    held_out: datasets.Dataset
    revision: str | None = None
    num_leaked: int = 0
    notes: tuple[str, ...] = ()
    """What was found out about the columns, for people."""


def load(recipe: Recipe, base_dir: Path, *, offline: bool = False) -> Splits:
    """The training and held-out rows of a recipe. Local names are relative to `base_dir`.

    Raises: RecipeError with everything that is wrong with the first split that is wrong.
    """
    import pyarrow
    from pyarrow import compute

    data, revision = recipe.data, None
    compared = answer_column.are_compared(recipe)
    if data.name.startswith("builtin:"):
        train = _builtin(recipe, "train", data.size or BUILTIN_SIZE, recipe.seed)
        held_out = _builtin(recipe, "test", data.eval_size, HELD_OUT_SEED)
    elif references.is_gym(data.name):
        size = data.size or BUILTIN_SIZE
        parts = [(f"test {HELD_OUT_SEED}", data.eval_size), (f"train {recipe.seed}", size)]
        held_out, train = map(_as_rows, gym.make(data, parts))
    else:
        train, revision = _read(data, base_dir, data.split, "data.split", offline, compared)
        held_out = train
        if data.eval_split:
            held_out, _ = _read(
                data, base_dir, data.eval_split, "data.eval_split", offline, compared
            )
    key = _made_key if data.name.startswith(references.MADE_HERE) else question_key
    digests = arrow_rows.digests(held_out.questions, key)
    tested = _choose_held_out(digests, data)
    tested_digests = {digests[index] for index in tested}
    if held_out is not train:
        digests = arrow_rows.digests(train.questions, key)
    trained = [index for index, digest in enumerate(digests) if digest not in tested_digests]
    num_leaked = len(train.questions) - len(trained) - (len(tested) if held_out is train else 0)
    if num_leaked:
        logger.info("%d training rows left out: their question is held out", num_leaked)
    if not trained:
        raise RecipeError(problems=[none_to_train(len(tested), data)])
    if data.size and data.size < len(trained):
        random.Random(recipe.seed).shuffle(trained)
        trained = sorted(trained[: data.size])
    num_chars = compute.utf8_length(train.questions).take(pyarrow.array(trained))
    sources.limits.refuse_long_prompts(
        recipe.prompt.system, len(trained), compute.sum(num_chars).as_py()
    )
    return Splits(
        _build(train, trained, recipe),
        _build(held_out, tested, recipe),
        revision,
        num_leaked,
        tuple(dict.fromkeys(train.notes + held_out.notes)),
    )


def _builtin(recipe: Recipe, split: str, size: int, seed: int) -> Rows:
    return _as_rows(builtin_problems(recipe.data, split, size, seed))


def _as_rows(rows: list[dict[str, Any]]) -> Rows:
    import datasets
    import pyarrow

    source = datasets.Dataset.from_list(rows)
    questions = pyarrow.chunked_array([[row["question"] for row in rows]], pyarrow.string())
    return Rows(source, questions, [row["answer"] for row in rows])


def builtin_problems(data: Data, split: str, size: int, seed: int) -> list[generators.Row]:
    level = data.problems if isinstance(data.problems, Problems) else Problems()
    kind = generators.KINDS[data.name]
    settings = level.model_dump(include=set(kind.settings))
    try:
        return kind.make(split, size, seed=seed, **settings)
    except ValueError as error:
        key = "data.size" if split == "train" else "data.eval_size"
        raise RecipeError(
            f"`{data.name}`: {error}", hint=f"set `{key}` or a difficulty of [data.problems]"
        ) from error


def _read(
    data: Data, base_dir: Path, split: str, key: str, offline: bool, compared: bool
) -> tuple[Rows, str | None]:
    path, revision = references.local_path(data.name, base_dir), None
    if path is None or path.is_dir():
        source, revision = sources.read_repository(
            path, data, split, split_key=key, offline=offline
        )
        where = f"split `{split}` of `{data.name}`"
    else:
        path = local_file(data, base_dir, path, key)
        source = sources.read_file(
            path, key if key == "data.eval_split" else "data.name", (data.question, data.answer)
        )
        where = f"`{path}`"
    check_columns(source.column_names, data, where)
    return _valid_rows(source, data, where, compared), revision


def local_file(data: Data, base_dir: Path, path: Path, key: str) -> Path:
    """The file of a split: `data.name` is the training split, `data.eval_split` another file.

    Raises: RecipeError for keys that do not go with a file.
    """
    if key == "data.eval_split":
        other = references.local_path(data.eval_split or "", base_dir)
        if other is None:
            raise RecipeError(
                f"`data.eval_split` is `{data.eval_split}`, but a file has no splits",
                hint='name another file, such as `data.eval_split = "test.jsonl"`, or remove it: '
                "`data.eval_size` rows are then held out",
            )
        return other
    problems = []
    if data.split != "train":
        message = f"`data.split` is `{data.split}`, but a file has no splits"
        problems.append(Problem(message, hint="remove `data.split`"))
    for name in ("config", "revision"):
        if getattr(data, name) is not None:
            message = f"`data.{name}` is for the Hub, but `data.name` is the file `{path}`"
            problems.append(Problem(message, hint=f"remove `data.{name}`"))
    if problems:
        raise RecipeError(problems=problems)
    return path


def check_columns(columns: list[str], data: Data, where: str) -> None:
    """Raises: RecipeError for columns that are missing, or whose names are taken."""
    problems, used = [], (data.question, data.answer)
    for key in ("question", "answer"):
        name = getattr(data, key)
        if name not in columns:
            message = f"{where} has no column `{name}`; it has {listed(columns)}"
            problems.append(
                Problem(message, hint=answer_column.column_hint(key, name, columns, used))
            )
        elif key in columns and key not in used:
            message = f"{where} has a column `{key}`, but `data.{key}` is `{name}`"
            hint = f"remove `data.{key}`, or {rename_hint(key)}"
            problems.append(Problem(message, hint=hint))
    for name in columns:
        if name not in used and name in RESERVED_COLUMNS:
            message = f"{where} has a column `{name}`, a name that the trainer uses for itself"
            problems.append(Problem(message, hint=rename_hint(name)))
    if problems:
        raise RecipeError(problems=problems)


def rename_hint(column: str) -> str:
    """How to rename a column; a data set on the Hub needs a local copy for that."""
    copy = f'.rename_column("{column}", "source_{column}").to_json("copy.jsonl")'
    return (
        'rename it, in the file or by `datasets.load_dataset("...", split="train")'
        f'{copy}` and `data.name = "copy.jsonl"`'
    )


def _valid_rows(source: datasets.Dataset, data: Data, where: str, compared: bool) -> Rows:
    """Raises: RecipeError that counts, for each kind of fault, the rows that have it."""
    import pyarrow

    texts, faults = [], []
    for batch in arrow_rows.batches(source, data.question):
        questions = [read_question(value) for value in batch]
        texts.append(pyarrow.array([text for text, _ in questions], pyarrow.string()))
        faults += [fault for _, fault in questions]
    values = chain.from_iterable(arrow_rows.batches(source, data.answer))
    finals = answer_column.final_answers(values, data, where, compared=compared)
    problems = count_faults(data.question, faults, where)
    problems += count_faults(data.answer, finals.faults, where)
    problems += [finals.problem] if finals.problem else []
    if problems:
        raise RecipeError(problems=problems)
    answers = _of_one_kind(finals.values)
    return Rows(source, pyarrow.chunked_array(texts), answers, finals.notes)


def count_faults(column: str, faults: list[str], where: str) -> list[Problem]:
    """One problem for each kind of fault, with the number of rows and the first of them."""
    rows: dict[str, list[int]] = {}
    for number, fault in enumerate(faults, 1):
        if fault:
            rows.setdefault(fault, []).append(number)
    return [
        Problem(
            f"`{column}` {fault} in {len(numbers)} of {len(faults)} rows of {where}; the first is "
            f"row {numbers[0]}",
            # If all rows are wrong, then nearly always the key is.
            hint="fill in or remove these rows"
            if len(numbers) < len(faults)
            else "does the recipe name the right column and marker?",
        )
        for fault, numbers in rows.items()
    ]


def read_question(value: Any) -> tuple[str, str]:
    """The question and its fault, "" if it has none."""
    if value is None:
        return "", "is null"
    if not isinstance(value, str):
        return "", f"is a {type(value).__name__}, not a text"
    return (value, "") if value.strip() else ("", "is empty")


def _choose_held_out(keys: list[bytes], data: Data) -> list[int]:
    """Indices of `eval_size` rows, no question twice; a larger choice contains a smaller one."""
    split = f"split `{data.eval_split or data.split}` of `{data.name}`"
    if problem := too_few_questions(len(set(keys)), data, split, are_trained=not data.eval_split):
        raise RecipeError(problems=[problem])
    order = list(range(len(keys)))
    random.Random(HELD_OUT_SEED).shuffle(order)
    chosen: dict[bytes, int] = {}
    for index in order:
        if len(chosen) == data.eval_size:
            break
        chosen.setdefault(keys[index], index)
    return list(chosen.values())


def too_few_questions(
    num_different: int, data: Data, where: str, *, are_trained: bool
) -> Problem | None:
    """The problem with data that have fewer different questions than `data.eval_size`.

    `are_trained`: what is not held out of them is trained on.
    """
    if num_different >= data.eval_size:
        return None
    count = f"{num_different} different question" + "s" * (num_different != 1)
    hint = f"set `data.eval_size = {num_different}`"
    if are_trained and num_different > 1:
        hint = f"set `data.eval_size = {max(1, num_different // 5)}`; the rest is trained on"
    elif are_trained:
        hint = "add rows with other questions: none would be left to train on"
    return Problem(f"`data.eval_size` is {data.eval_size}, but {where} has {count}", hint=hint)


def none_to_train(num_held_out: int, data: Data) -> Problem:
    """The problem with data whose questions are all held out."""
    return Problem(
        f"no training rows are left beside {num_held_out} held-out ones of `{data.name}`",
        hint="add rows with other questions, lower `data.eval_size`, or hold out other rows with "
        "`data.eval_split`"
        if num_held_out > 1
        else "add rows with other questions",
    )


def _build(rows: Rows, indices: list[int], recipe: Recipe) -> datasets.Dataset:
    """The rows at `indices`, with `prompt`, `answer`, `question` and the columns of the source."""
    # Question and answer stay under the user's names as well, as they are in the source.
    taken = {"prompt", "answer", "question", *RESERVED_COLUMNS, *TEMPLATE_NAMES}
    drop = {recipe.data.question, recipe.data.answer} & taken
    return arrow_rows.build(rows, indices, recipe.prompt.system, drop)


def _of_one_kind(answers: list[str | list[str]]) -> list[str] | list[list[str]]:
    """Texts, or lists of accepted texts if one of them is a list: Arrow has no columns of both."""
    if any(isinstance(answer, list) for answer in answers):
        return [answer if isinstance(answer, list) else [answer] for answer in answers]
    return [str(answer) for answer in answers]


def messages(question: str, recipe: Recipe) -> list[dict[str, str]]:
    """The prompt of a question as chat messages."""
    system = [{"role": "system", "content": recipe.prompt.system}] if recipe.prompt.system else []
    return [*system, {"role": "user", "content": question}]


def question_key(question: str) -> str:
    """The text of a question without differences in white space, which do not count.

    A space between two letters or digits stays: `12 3` and `1 23` are two questions.
    """
    return _NO_SPACE.sub("", _made_key(question))


def _made_key(question: str) -> str:
    """As `question_key`, for problems that a program made, which writes each in one way: spaces
    may be all that two of them differ in, as in letters drawn with characters (`figlet_font`)."""
    return " ".join(question.split())

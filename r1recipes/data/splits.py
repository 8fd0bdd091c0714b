"""Turn the data of a recipe into prompts and answers: choose rows, hold some out, refuse bad ones.

Limits: one question and one final answer a row. Chosen rows are in memory; nothing is written. The
choice of the held-out problems does not depend on the recipe's seed, so that runs can be compared.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.config.suggest import nearest
from r1recipes.data import generators, gym, sources
from r1recipes.errors import Problem, RecipeError, listed
from r1recipes.recipe import references
from r1recipes.recipe.schema import Data, Problems, Recipe
from r1recipes.rewards import answers
from r1recipes.rewards.reward import RESERVED_COLUMNS

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

BUILTIN_SIZE = 2000
"""Training rows that are made of built-in data if the recipe names no size; assumed."""
HELD_OUT_SEED = 0


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


@dataclass(frozen=True)
class _Rows:
    """The rows of a source, with one valid question and one final answer for each."""

    source: datasets.Dataset
    questions: list[str]
    answers: Sequence[str | list[str]]


def load(recipe: Recipe, base_dir: Path, *, offline: bool = False) -> Splits:
    """The training and held-out rows of a recipe. Local names are relative to `base_dir`.

    Raises: RecipeError with everything that is wrong with the first split that is wrong.
    """
    data, revision = recipe.data, None
    if data.name.startswith("builtin:"):
        train = _builtin(recipe, "train", data.size or BUILTIN_SIZE, recipe.seed)
        held_out = _builtin(recipe, "test", data.eval_size, HELD_OUT_SEED)
    elif references.is_gym(data.name):
        size = data.size or BUILTIN_SIZE
        parts = [(f"test {HELD_OUT_SEED}", data.eval_size), (f"train {recipe.seed}", size)]
        held_out, train = map(_as_rows, gym.make(data, parts))
    else:
        train, revision = _read(data, base_dir, data.split, "data.split", offline)
        held_out = train
        if data.eval_split:
            held_out, _ = _read(data, base_dir, data.eval_split, "data.eval_split", offline)
    tested = _choose_held_out(held_out.questions, data)
    keys = {question_key(held_out.questions[index]) for index in tested}
    trained = [i for i, text in enumerate(train.questions) if question_key(text) not in keys]
    num_leaked = len(train.questions) - len(trained) - (len(tested) if held_out is train else 0)
    if num_leaked:
        logger.info("%d training rows left out: their question is held out", num_leaked)
    if not trained:
        raise RecipeError(
            f"no training rows are left beside {len(tested)} held-out ones of `{data.name}`",
            hint="lower `data.eval_size` or hold out other rows with `data.eval_split`",
        )
    if data.size and data.size < len(trained):
        random.Random(recipe.seed).shuffle(trained)
        trained = sorted(trained[: data.size])
    rows = _build(train, trained, recipe), _build(held_out, tested, recipe)
    return Splits(*rows, revision, num_leaked)


def demonstrations(
    recipe: Recipe, base_dir: Path, count: int, *, held_out: datasets.Dataset | None = None
) -> list[dict[str, Any]]:
    """`count` rows {"prompt", "completion"} (messages) for the cold start, in a seeded order.

    If there are fewer demonstrations they are repeated, each time in another order; a built-in
    problem is worked anew each time. Questions of `held_out` are left out. Raises: RecipeError.
    """
    start, rng = recipe.cold_start, random.Random(f"demonstrations {recipe.seed}")
    assert start is not None
    if start.data is None:
        rows = _problems(recipe.data, "train", recipe.data.size or BUILTIN_SIZE, recipe.seed)
    else:
        rows = _demonstration_file(start.data, base_dir)
    questions = [] if held_out is None else held_out["question"]
    keys = {question_key(question) for question in questions}
    rows = [row for row in rows if question_key(row["question"]) not in keys]
    if not rows:
        raise RecipeError("every demonstration is on a held-out question", hint="add others")
    made: list[dict[str, Any]] = []
    while len(made) < count:
        for row in rng.sample(rows, min(len(rows), count - len(made))):
            work = None if start.data else generators.demonstration(row, rng, start.wrong)
            text = work or row["completion"]
            completion = [{"role": "assistant", "content": text}]
            made.append({"prompt": messages(row["question"], recipe), "completion": completion})
    return made


def _builtin(recipe: Recipe, split: str, size: int, seed: int) -> _Rows:
    return _as_rows(_problems(recipe.data, split, size, seed))


def _as_rows(rows: list[dict[str, Any]]) -> _Rows:
    import datasets

    source = datasets.Dataset.from_list(rows)
    return _Rows(source, [row["question"] for row in rows], [row["answer"] for row in rows])


def _problems(data: Data, split: str, size: int, seed: int) -> list[generators.Row]:
    level = data.problems if isinstance(data.problems, Problems) else Problems()
    try:
        if data.name == "builtin:arithmetic":
            return generators.arithmetic(
                split,
                size,
                digits=level.digits,
                terms=level.terms,
                operators=level.operators,
                seed=seed,
            )
        return generators.countdown(
            split, size, numbers=level.numbers, largest=level.largest, seed=seed
        )
    except ValueError as error:
        key = "data.size" if split == "train" else "data.eval_size"
        raise RecipeError(
            f"`{data.name}`: {error}", hint=f"set `{key}` or a difficulty of [data.problems]"
        ) from error


def _read(
    data: Data, base_dir: Path, split: str, key: str, offline: bool
) -> tuple[_Rows, str | None]:
    path, revision = references.local_path(data.name, base_dir), None
    if path is None or path.is_dir():
        source, revision = sources.read_repository(
            path, data, split, split_key=key, offline=offline
        )
        where = f"split `{split}` of `{data.name}`"
    else:
        path = _local_file(data, base_dir, path, key)
        source = sources.read_file(
            path, key if key == "data.eval_split" else "data.name", (data.question, data.answer)
        )
        where = f"`{path}`"
    _check_columns(source.column_names, data, where)
    return _valid_rows(source, data, where), revision


def _local_file(data: Data, base_dir: Path, path: Path, key: str) -> Path:
    """The file of a split: `data.name` is the training split, `data.eval_split` another file."""
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


def _check_columns(columns: list[str], data: Data, where: str) -> None:
    problems, used = [], (data.question, data.answer)
    for key in ("question", "answer"):
        name = getattr(data, key)
        if name not in columns:
            lower = {column.lower(): column for column in reversed(columns)}
            meant = nearest(name.lower(), lower, 0.5)
            hint = f'set `data.{key} = "{lower[meant]}"`' if meant else f"set `data.{key}` to one"
            message = f"{where} has no column `{name}`; it has {listed(columns)}"
            problems.append(Problem(message, hint=hint))
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


def _valid_rows(source: datasets.Dataset, data: Data, where: str) -> _Rows:
    """The rows of a source. Raises: RecipeError with the number of rows that have each fault."""
    questions = [_question(value) for value in source[data.question]]
    finals = [answers.final_reference(value, data.answer_after) for value in source[data.answer]]
    problems = _count(data.question, [fault for _, fault in questions], where)
    problems += _count(data.answer, [fault for _, fault in finals], where)
    if problems:
        raise RecipeError(problems=problems)
    return _Rows(source, [text for text, _ in questions], [final for final, _ in finals])


def _count(column: str, faults: list[str], where: str) -> list[Problem]:
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


def _question(value: Any) -> tuple[str, str]:
    """The question and its fault, "" if it has none."""
    if value is None:
        return "", "is null"
    if not isinstance(value, str):
        return "", f"is a {type(value).__name__}, not a text"
    return (value, "") if value.strip() else ("", "is empty")


def _choose_held_out(questions: list[str], data: Data) -> list[int]:
    """Indices of `eval_size` rows, no question twice; a larger choice contains a smaller one."""
    order = list(range(len(questions)))
    random.Random(HELD_OUT_SEED).shuffle(order)
    chosen: dict[str, int] = {}
    for index in order:
        if len(chosen) == data.eval_size:
            break
        chosen.setdefault(question_key(questions[index]), index)
    if len(chosen) < data.eval_size:
        split = data.eval_split or data.split
        raise RecipeError(
            f"`data.eval_size` is {data.eval_size}, but split `{split}` of `{data.name}` has "
            f"{len(chosen)} different questions",
            hint=f"set `data.eval_size = {len(chosen)}`"
            if data.eval_split
            else f"set `data.eval_size = {max(1, len(chosen) // 5)}`; the rest is trained on",
        )
    return list(chosen.values())


def _build(rows: _Rows, indices: list[int], recipe: Recipe) -> datasets.Dataset:
    """The rows at `indices`, with `prompt`, `answer`, `question` and the further columns."""
    import datasets

    source = rows.source
    drop = {recipe.data.question, recipe.data.answer}
    others = [name for name in source.column_names if name not in drop]
    questions = [rows.questions[index] for index in indices]
    made = datasets.Dataset.from_dict(
        {
            "prompt": [messages(question, recipe) for question in questions],
            "answer": [rows.answers[index] for index in indices],
            "question": questions,
        }
    )
    if not others:
        return made
    # Arrow tables: `Dataset.select` and `map` would leave an index or a copy in the cache.
    chosen = source.select_columns(others).with_format("arrow")[indices]
    table = made.data.table.replace_schema_metadata(None)
    for name in others:
        table = table.append_column(name, chosen[name])
    features = datasets.Features(made.features | {name: source.features[name] for name in others})
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def messages(question: str, recipe: Recipe) -> list[dict[str, str]]:
    """The prompt of a question as chat messages."""
    system = [{"role": "system", "content": recipe.prompt.system}] if recipe.prompt.system else []
    return [*system, {"role": "user", "content": question}]


def question_key(question: str) -> str:
    """The text of a question without differences in white space, which do not count."""
    return " ".join(question.split())


def _demonstration_file(name: str, base_dir: Path) -> list[dict[str, Any]]:
    key, columns = "cold_start.data", ("question", "completion")
    path = base_dir / Path(name).expanduser()
    rows = sources.read_file(path, key, columns)
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        message = f"`{path}` has no column `{missing[0]}`; it has {listed(rows.column_names)}"
        raise RecipeError(message, hint=f"`{key}` needs the columns question and completion")
    problems = []
    for column in columns:
        problems += _count(column, [_question(text)[1] for text in rows[column]], f"`{path}`")
    if problems:
        raise RecipeError(problems=problems)
    return list(rows.select_columns(list(columns)))

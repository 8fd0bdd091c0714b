"""Reads completions that somebody wrote, or that a run did, as rows that rewards can be called on.

A line of a .jsonl file has `completion` and columns of the data; or it is one of a run's
completions.jsonl or evaluation-*.jsonl, or of an evaluation that was made later. Columns that a
line does not have come from the row of the data with its question. Limits: a file is read whole; a
question that occurs twice in the data stands for its first row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.config.suggest import nearest
from r1recipes.data import answer_column, sources, splits
from r1recipes.data.sources import json_lines, limits
from r1recipes.data.splits import Splits, question_key
from r1recipes.errors import Problem, RecipeError, unreadable
from r1recipes.recipe.schema import Recipe
from r1recipes.rewards.grading import Completion
from r1recipes.rewards.user_code import completion_text
from r1recipes.runs.record import names

if TYPE_CHECKING:
    import datasets

OWN_KEYS = ("completion", "rewards", "step", "prompt", "samples", "greedy", "cut", "num_tokens")
"""Keys of a line that are no columns of the data."""
OTHER_FILES = (".csv", ".parquet", ".json")
FORM = '{"completion": "...", "question": "...", "answer": "..."}'


def source(name: str, runs_dir: Path) -> Path:
    """The file that `name` means: a .jsonl file, or that of a run, which is its evaluation after
    training, else the one before, else completions of its steps. Raises: RecipeError."""
    path = Path(name)
    if path.is_file() and path.suffix.lower() in OTHER_FILES:
        hint = f"write a .jsonl file, in which a line is such as {FORM}"
        raise RecipeError.at(name, f"is a {path.suffix} file, not one of completions", hint)
    if path.is_file() and path.suffix != ".toml":
        return path
    if path.suffix == ".jsonl":
        near = nearest(path.name, [file.name for file in path.parent.glob("*.jsonl")], 0.5)
        hint = f"did you mean `{path.parent / near}`?" if near else "name a file or a run"
        raise RecipeError.at(name, "does not exist", hint)
    if path.is_dir() and not (path / "record.json").is_file():
        sources.check_file(path, "completions")
    run = names.find(runs_dir, name)
    for file in (run.evaluation("after"), run.evaluation("before"), run.completions):
        if file.is_file():
            return file
    raise RecipeError(f"{run.folder} has no completions yet", hint=run.to_go_on())


def read(path: Path, recipe: Recipe, rows: Splits) -> list[Completion]:
    """The completions of a file, with the columns that rewards get.

    Raises: RecipeError with the number of each line that is not one.
    """
    joiner = _Joiner(recipe, rows)
    completions: list[Completion] = []
    problems: list[Problem] = []
    try:
        limits.refuse_lines(path)
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        parsed = json_lines.json_object(line, f"{path}:{number}", first=number == 1)
        try:
            if isinstance(parsed, Problem):
                raise RecipeError(problems=[parsed])
            completions += joiner.completions(parsed, f"{path}:{number}", str(number))
        except RecipeError as error:
            problems += error.problems
    json_lines.refuse_problems(problems, path, len(problems))
    if not completions:
        raise RecipeError.at(str(path), "has no completions", f"a line is such as {FORM}")
    return completions


class _Joiner:
    """Makes completions of the lines of a file, with the help of the data of a recipe."""

    def __init__(self, recipe: Recipe, rows: Splits):
        self._recipe = recipe
        self._places: dict[str, tuple[datasets.Dataset, int]] = {}
        for part in (rows.held_out, rows.train):
            for index, question in enumerate(part["question"]):
                self._places.setdefault(question_key(question), (part, index))

    def completions(self, line: dict[str, Any], where: str, shown: str) -> Iterator[Completion]:
        """The completions of a line: one, or all samples of an evaluation. Raises: RecipeError."""
        if isinstance(line.get("samples"), list):
            columns, prompt = self._columns(line, where)
            for name, sample in _samples(line):
                if not isinstance(sample, dict) or not isinstance(sample.get("text"), str):
                    raise RecipeError.at(where, f"{name} has no `text`", "is it an evaluation?")
                cut = sample.get("cut") is True
                place = f"{shown}:{name.removeprefix('sample ')}"
                yield Completion(sample["text"], prompt, columns, place, cut)
            return
        if "completion" not in line:
            message = f"has no `completion`; it has {', '.join(line) or 'nothing'}"
            raise RecipeError.at(where, message, f"a line is such as {FORM}")
        text = _text(line["completion"])
        if text is None:
            message = f"`completion` is a {type(line['completion']).__name__}, not a text"
            raise RecipeError.at(where, message, "write the text of it, or a list of messages")
        columns, prompt = self._columns(line, where)
        yield Completion(text, prompt, columns, shown, line.get("cut") is True)

    def _columns(self, line: dict[str, Any], where: str) -> tuple[dict[str, Any], Any]:
        """The columns of a line and the prompt of its question."""
        data = self._recipe.data
        question = _first(line, data.question, "question", "prompt")
        if isinstance(question, list):
            question = completion_text(question)
        question = question if isinstance(question, str) else ""
        columns: dict[str, Any] = {}
        if place := self._places.get(question_key(question)):
            part, index = place
            columns = dict(part[index])
        prompt = columns.pop("prompt", None) or splits.messages(question, self._recipe)
        own = {key: value for key, value in line.items() if key not in OWN_KEYS}
        columns = columns | own | {"question": question}
        raw = _first(line, data.answer, "answer")
        if raw is not None:
            columns["answer"] = self._answer(raw, where)
        elif "answer" not in columns:
            message = "has no `answer`, and its question is not among those of the data"
            raise RecipeError.at(where, message, f"a line is such as {FORM}")
        return columns, prompt

    def _answer(self, raw: Any, where: str) -> str | list[str]:
        """The final answer. Where the data have a marker and this has none, it is final already,
        as it is in the files of a run."""
        data = self._recipe.data
        texts = raw if isinstance(raw, list) else [raw]
        if data.answer_after and not any(data.answer_after in str(text) for text in texts):
            data = data.model_copy(update={"answer_after": None})
        compared = answer_column.are_compared(self._recipe)
        finals = answer_column.final_answers([raw], data, where, compared=compared)
        if finals.problem:
            raise RecipeError(problems=[finals.problem])
        if finals.faults[0]:
            raise RecipeError.at(where, f"`answer` {finals.faults[0]}", f"a line is such as {FORM}")
        return finals.values[0]


def _samples(line: dict[str, Any]) -> list[tuple[str, Any]]:
    """The answers of one line of an evaluation, each with its name."""
    named = [(f"sample {number}", sample) for number, sample in enumerate(line["samples"], 1)]
    return [*named, ("greedy", line["greedy"])] if "greedy" in line else named


def _first(line: dict[str, Any], *names: str) -> Any:
    """The value under the first of these names that is there and not null."""
    return next((line[name] for name in names if line.get(name) is not None), None)


def _text(completion: Any) -> str | None:
    """The text of a completion, also of messages; None where it has none."""
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        return completion_text(completion)
    return completion if isinstance(completion, str) else None

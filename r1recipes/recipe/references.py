"""The files and Hub ids that a recipe names, and which of them a recipe from elsewhere may name.

A recipe from elsewhere reads the files that came with it and the Hub, nothing else of this machine,
and sends nothing anywhere, except to a judge that the user allows. Limits: names are judged, before
anything is opened; a value that a flag of the user sets is the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from r1recipes.config.render import Loc, dotted
from r1recipes.errors import Problem, RecipeError
from r1recipes.machine import files
from r1recipes.rewards.user_code import is_user_code

FILE_SUFFIXES = (".jsonl", ".csv", ".parquet")
# A name with such an ending is meant as a file: the Hub's answer on it would be misleading.
OTHER_SUFFIXES = (".json", ".tsv", ".txt", ".arrow", ".xlsx", ".gz", ".zip", ".zst", ".toml", ".py")
MADE_HERE = ("builtin:", "gym:")
"""What the names of models and data begin with that are neither files nor on the Hub."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
SENDING = ("track", "export")
"""Sections that would send something to somebody, or write outside of the run folder."""
# Two parts, so that it is neither a module of `datasets` such as "csv", which reads the current
# folder, nor a bucket; the Hub itself allows neither `..` nor `--`.
_REPOSITORY = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+){0,3}", re.ASCII)


_FOUR_BIT = re.compile(r"(-unsloth)?-bnb-4bit$", re.IGNORECASE)
"""How the names of repositories end that have weights in 4 bits; `-unsloth`: in its dynamic form.
"""


class Reference(NamedTuple):
    """A value of a recipe that may name something on the disk."""

    loc: Loc
    name: str
    may_be_hub: bool = False
    """Whether it can also be the id of a repository on the Hub."""


class Refusal(NamedTuple):
    """A value that a recipe from elsewhere may not have."""

    loc: Loc
    message: str
    hint: str


def is_4bit_name(name: str) -> bool:
    """Whether a model's name says that its weights are in 4 bits."""
    return bool(_FOUR_BIT.search(name))


def is_dynamic_4bit_name(name: str) -> bool:
    """Whether a model's name says that they are in Unsloth's dynamic form of 4 bits."""
    match = _FOUR_BIT.search(name)
    return bool(match and match[1])


def without_4bit(name: str) -> str:
    """The name of the same model in 16 bits."""
    return _FOUR_BIT.sub("", name)


def is_gym(name: str) -> bool:
    """Whether data are made by reasoning-gym."""
    return name.startswith("gym:")


def references_in(data: dict[str, Any]) -> Iterator[Reference]:
    """Every value of plain recipe data, valid or not, that may name a file or a folder."""
    model, rows = _table(data, "model"), _table(data, "data")
    for path, table in _repositories(data):
        if not _text(table, "name").startswith(MADE_HERE) and _text(table, "name"):
            yield Reference((*path, "name"), table["name"], may_be_hub=True)
    template = _text(model, "chat_template")
    if template and "{{" not in template and "{%" not in template:
        yield Reference(("model", "chat_template"), template)
    if _text(rows, "eval_split") and is_file_name(_text(rows, "name")):
        yield Reference(("data", "eval_split"), rows["eval_split"])
    if _text(_table(data, "cold_start"), "data"):
        yield Reference(("cold_start", "data"), data["cold_start"]["data"])
    for path, part in _trainings(data):
        for name in _table(part, "rewards"):
            if is_user_code(name):
                yield Reference((*path, "rewards", name), name.rpartition(":")[0])
    decisive = _text(_table(data, "eval"), "reward")
    if is_user_code(decisive):
        yield Reference(("eval", "reward"), decisive.rpartition(":")[0])
    judge = _table(data, "judge")
    if _text(judge, "model") and not _text(judge, "url"):
        yield Reference(("judge", "model"), judge["model"])


def _trainings(data: dict[str, Any]) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """Each part of a recipe that may have [examples] and [rewards]: the recipe, then its stages."""
    yield (), data
    stages = data.get("stage")
    for number, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, dict):
            yield ("stage", number), stage


def _repositories(data: dict[str, Any]) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """Each section that names a repository on the Hub, or what stands for one here."""
    yield ("model",), _table(data, "model")
    yield ("data",), _table(data, "data")
    for path, part in _trainings(data):
        yield (*path, "examples"), _table(part, "examples")


def with_names(data: dict[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """Valid recipe data in which `rename` has given another name to whatever is named on the disk;
    a function of a user's own code stays what it is."""
    renamed = deepcopy(data)
    for reference in references_in(data):
        *above, key = reference.loc
        table: Any = renamed
        for part in above:
            table = table[part]
        new = rename(reference.name)
        if above[-1] == "rewards":
            weights = {_code(new, n) if n == key else n: weight for n, weight in table.items()}
            table.clear()
            table.update(weights)
        else:
            table[key] = _code(new, table[key]) if is_user_code(table[key]) else new
    return renamed


def _code(file: str, name: str) -> str:
    """The same function of a user's own code in a file of another name."""
    return f"{file}:{name.rpartition(':')[2]}"


def file_names(data: dict[str, Any]) -> list[str]:
    """Names that can only be those of files, each once, in the order in which they occur."""
    names = [
        reference.name
        for reference in references_in(data)
        if not reference.may_be_hub or is_file_name(reference.name)
    ]
    return list(dict.fromkeys(names))


def is_file_name(name: str) -> bool:
    """Whether a data set's name can only be that of a file."""
    suffix = Path(name).suffix.lower()
    return suffix in FILE_SUFFIXES + OTHER_SUFFIXES or not HUB_ID.fullmatch(name)


def local_files(data: dict[str, Any], base_dir: Path) -> dict[str, Path]:
    """Name in the recipe -> file, for each file that it names and that exists."""
    names = [reference.name for reference in references_in(data)]
    paths = {name: base_dir / files.named(name) for name in names}
    return {name: path for name, path in paths.items() if path.is_file()}


def refusals(
    data: dict[str, Any], files: Collection[str], by_flag: Collection[Loc]
) -> list[Refusal]:
    """The values that a recipe from elsewhere has and may not have.

    `files` are the names of the files that came with it, `by_flag` the keys that flags of the user
    have set.
    """
    refused = [
        Refusal(
            (section,),
            f"a recipe from elsewhere may not ask for [{section}]",
            f"`--set '{section}={{}}'` leaves the section out; a .toml file of yours may have it",
        )
        for section in SENDING
        if not set(_active_keys((section,), data.get(section))) <= set(by_flag)
    ]
    for reference in references_in(data):
        came_along = reference.name in files and reference.loc != ("model", "name")
        if reference.loc in by_flag or came_along:
            continue
        name = reference.name
        if not reference.may_be_hub or not _REPOSITORY.fullmatch(name) or is_file_name(name):
            key = dotted(reference.loc)
            message = f"`{key}` names `{name}`, which did not come with this recipe"
            refused.append(Refusal(reference.loc, message, _OWN_FILES))
        elif Path(name).exists():
            refused.append(_taken(reference))
    for path, table in _repositories(data):
        revision, loc = _text(table, "revision"), (*path, "revision")
        if revision and not _REVISION.fullmatch(revision) and loc not in by_flag:
            message = f"`{dotted(loc)}` is not a commit, a tag or a branch: `{revision}`"
            refused.append(Refusal(loc, message, "a commit is 40 hex digits"))
    return refused


def refuse_taken(data: dict[str, Any], base_dir: Path) -> None:
    """Raises: RecipeError for a Hub id that the libraries would look for in the current folder."""
    refused = [
        _taken(reference)
        for reference in references_in(data)
        if reference.may_be_hub
        and not Path(reference.name).is_absolute()
        and not (base_dir / reference.name).exists()
        and Path(reference.name).exists()
    ]
    if refused:
        raise RecipeError(problems=[Problem(r.message, hint=r.hint) for r in refused])


def _active_keys(loc: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    """The keys below a section that turn something on: `wandb = {}` does, but an empty list, an
    empty section and `tensorboard = false` do not."""
    if isinstance(value, dict) and (value or len(loc) == 1):
        for key, inner in value.items():
            yield from _active_keys((*loc, key), inner)
    elif value not in (None, False, []):
        yield loc


def _taken(reference: Reference) -> Refusal:
    key = dotted(reference.loc)
    message = f"`{key}` is on the Hub, but a folder `{reference.name}` is here too"
    return Refusal(reference.loc, message, "run it from another folder")


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    """The section at a key; empty where something else stands there."""
    table = data.get(key)
    return table if isinstance(table, dict) else {}


def _text(table: dict[str, Any], key: str) -> str:
    """The text at a key; empty where something else stands there."""
    text = table.get(key)
    return text if isinstance(text, str) else ""


_OWN_FILES = (
    "a recipe from elsewhere reads the Hub (user/name) and the files that came with it; "
    "`share` takes them along"
)


def local_path(name: str, base_dir: Path) -> Path | None:
    """The local file or folder that `name` means, or None where it can only be a Hub id.

    A path that exists wins over a Hub id of the same name.
    """
    path = base_dir / files.named(name)
    return path if is_file_name(name) or path.exists() else None

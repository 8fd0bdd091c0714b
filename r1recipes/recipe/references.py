"""The files that a recipe names beside itself, and what a recipe from elsewhere may name at all.

A recipe from elsewhere reads the files that came with it and the Hub, nothing else of this machine,
and sends nothing anywhere. Limits: judged by names, before anything is opened; what a flag of the
user says is the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from r1recipes.errors import Problem, RecipeError
from r1recipes.rewards.user_code import is_user_code

FILE_SUFFIXES = (".jsonl", ".csv", ".parquet")
# Names that end so are meant as files: asking the Hub for them would give a misleading answer.
OTHER_SUFFIXES = (".json", ".tsv", ".txt", ".arrow", ".xlsx", ".gz", ".zip", ".zst", ".toml", ".py")
MADE_HERE = ("builtin:", "gym:")
"""What the names of models and data begin with that are neither files nor on the Hub."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
SENDING = ("track", "export")
"""Sections that would send something to somebody, or write elsewhere."""
# Two parts, so that it is neither a module of `datasets` such as "csv", which reads the current
# folder, nor a bucket; the Hub itself allows neither `..` nor `--`.
_REPOSITORY = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[\w.-]+(/[\w.-]+){0,3}", re.ASCII)


class Named(NamedTuple):
    """A value of a recipe that may name something on the disk."""

    loc: tuple[str, ...]
    name: str
    may_be_hub: bool = False
    """Whether it can also be the id of a repository on the Hub."""


class Refusal(NamedTuple):
    """A value that a recipe from elsewhere may not have."""

    loc: tuple[str, ...]
    message: str
    hint: str


def is_gym(name: str) -> bool:
    """Whether data are made by reasoning-gym."""
    return name.startswith("gym:")


def named(data: dict[str, Any]) -> Iterator[Named]:
    """Every value of plain recipe data, valid or not, that may name a file or a folder."""
    model, rows = _table(data, "model"), _table(data, "data")
    for section, table in (("model", model), ("data", rows)):
        if not _text(table, "name").startswith(MADE_HERE) and _text(table, "name"):
            yield Named((section, "name"), table["name"], may_be_hub=True)
    template = _text(model, "chat_template")
    if template and "{{" not in template and "{%" not in template:
        yield Named(("model", "chat_template"), template)
    if _text(rows, "eval_split") and is_file_name(_text(rows, "name")):
        yield Named(("data", "eval_split"), rows["eval_split"])
    if _text(_table(data, "cold_start"), "data"):
        yield Named(("cold_start", "data"), data["cold_start"]["data"])
    for name in _table(data, "rewards"):
        if is_user_code(name):
            yield Named(("rewards", name), name.rpartition(":")[0])
    judge = _text(_table(data, "eval"), "reward")
    if is_user_code(judge):
        yield Named(("eval", "reward"), judge.rpartition(":")[0])


def names_inside(data: dict[str, Any]) -> list[str]:
    """Names that can only be those of files, in the order in which they occur."""
    found = [item for item in named(data) if not item.may_be_hub or is_file_name(item.name)]
    return list(dict.fromkeys(item.name for item in found))


def is_file_name(name: str) -> bool:
    """Whether a data set's name can only be that of a file."""
    suffix = Path(name).suffix.lower()
    return suffix in FILE_SUFFIXES + OTHER_SUFFIXES or not HUB_ID.fullmatch(name)


def local_files(data: dict[str, Any], base_dir: Path) -> dict[str, Path]:
    """Name in the recipe -> file, of the files that it names and that are there."""
    found = {item.name: base_dir / Path(item.name).expanduser() for item in named(data)}
    return {name: path for name, path in found.items() if path.is_file()}


def refusals(
    data: dict[str, Any], files: Collection[str], by_flag: Collection[tuple[str, ...]]
) -> list[Refusal]:
    """What a recipe from elsewhere, that came with these files, may not have.

    `by_flag` are the keys that the user's own flags have set.
    """
    found = [
        Refusal(
            (section,),
            f"a recipe from elsewhere may not ask for [{section}]",
            f"`--set '{section}={{}}'` leaves the section out; a .toml file of yours may have it",
        )
        for section in SENDING
        if not set(_asked((section,), data.get(section))) <= set(by_flag)
    ]
    for item in named(data):
        came_along = item.name in files and item.loc != ("model", "name")
        if item.loc in by_flag or came_along:
            continue
        key = ".".join(item.loc[:2]) if item.loc[0] != "rewards" else f"rewards.{item.loc[1]}"
        if not item.may_be_hub or not _REPOSITORY.fullmatch(item.name) or is_file_name(item.name):
            message = f"`{key}` names `{item.name}`, which did not come with this recipe"
            found.append(Refusal(item.loc, message, _OWN_FILES))
        elif Path(item.name).exists():
            found.append(_taken(item))
    for section in ("model", "data"):
        revision = _text(_table(data, section), "revision")
        if revision and not _REVISION.fullmatch(revision) and (section, "revision") not in by_flag:
            message = f"`{section}.revision` is no commit, tag or branch: `{revision}`"
            found.append(Refusal((section, "revision"), message, "a commit is 40 hex digits"))
    return found


def refuse_taken(data: dict[str, Any], base_dir: Path) -> None:
    """Raises: RecipeError for a Hub id that the libraries would look for in the current folder."""
    found = [
        _taken(item)
        for item in named(data)
        if item.may_be_hub
        and not Path(item.name).is_absolute()
        and not (base_dir / item.name).exists()
        and Path(item.name).exists()
    ]
    if found:
        raise RecipeError(problems=[Problem(r.message, hint=r.hint) for r in found])


def _asked(loc: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    """The keys below a section that ask for something; `wandb = {}` does, `tensorboard = false`
    an empty list and an empty section do not."""
    if isinstance(value, dict) and (value or len(loc) == 1):
        for key, inner in value.items():
            yield from _asked((*loc, key), inner)
    elif value not in (None, False, []):
        yield loc


def _taken(item: Named) -> Refusal:
    message = f"`{'.'.join(item.loc)}` is on the Hub, but here is also a folder `{item.name}`"
    return Refusal(item.loc, message, "run it from another folder")


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _text(table: dict[str, Any], key: str) -> str:
    found = table.get(key)
    return found if isinstance(found, str) else ""


_OWN_FILES = (
    "a recipe from elsewhere reads the Hub (user/name) and the files that came with it; "
    "`r1recipes share` takes them along"
)


def local_path(name: str, base_dir: Path) -> Path | None:
    """The local file or folder that `name` means, or None where it can only be a Hub id.

    A path that exists wins over a Hub id of the same name.
    """
    path = base_dir / Path(name).expanduser()
    is_file_name = path.suffix.lower() in FILE_SUFFIXES + OTHER_SUFFIXES
    return path if is_file_name or not HUB_ID.fullmatch(name) or path.exists() else None

"""Find a recipe by its name, read it, apply overrides, validate it, and compute its fingerprint.

A recipe is one self-contained file. Precedence: default < file < `--set key=value`. Nothing
heavy is imported here: `check`, `show` and `list` answer at once and never import torch.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1recipes import machine
from r1recipes.algorithms.base import OTHER_NAMES
from r1recipes.config import explain
from r1recipes.config.render import Loc, OriginOf
from r1recipes.config.section import without_later_defaults
from r1recipes.config.suggest import nearest
from r1recipes.config.toml import parse
from r1recipes.errors import Problem, RecipeError, command, listed, unreadable
from r1recipes.recipe import fetch, references
from r1recipes.recipe.fetch import Source
from r1recipes.recipe.overrides import merge, named_as_typed
from r1recipes.recipe.schema import Recipe, worded_for
from r1recipes.recipe.sections.foreign_keys import EXAMPLE
from r1recipes.rewards.judge.section import WHERE_NOT_COMPUTED

MAX_BYTES = 1_000_000
STUDY_SECTIONS = ("study", "search", "matrix")
"""Sections that a study file has and a recipe has not."""


class IsStudy(RecipeError):
    """The file is a study and not a recipe."""


@dataclass(frozen=True)
class Loaded:
    """A valid recipe and where it came from."""

    recipe: Recipe
    path: Path
    text: str
    data: dict[str, Any]
    """The data of the file with the overrides merged in, without defaults."""
    overrides: dict[Loc, str] = field(default_factory=dict)
    """Path of a key -> the flag that set it."""
    source: Source | None = None
    """Where a recipe from elsewhere came from. It runs no code unless that is allowed, and reads
    no files but those that came with it."""

    @property
    def name(self) -> str:
        """The name of its runs."""
        return self.source.name if self.source else self.path.stem

    def places(self) -> explain.Where:
        """A function that says where a key (path, True) or its value (path, False) stands."""
        shown = self.path if self.source is None else self.source.reference
        return _finder(shown, self.text, self.overrides)

    @property
    def shown(self) -> str:
        """The file as people know it, or where the recipe came from."""
        return self.source.shown if self.source else str(self.path)

    def where(self, loc: Loc) -> str:
        """The flag that set a key, or `file:line:column` of its value."""
        return self.places()(loc, False) or self.shown


def shipped_folder() -> Path:
    """The folder of the recipes that come with r1recipes."""
    return machine.shipped_folder("recipes")


def shipped() -> list[Path]:
    """The recipes that come with r1recipes, by name."""
    return sorted(shipped_folder().glob("*.toml"))


def find(name: str) -> Path:
    """The file that `name` means: a path, or a shipped recipe by its name.

    Raises: RecipeError with the nearest names.
    """
    path = Path(name)
    names = {file.stem: file for file in shipped()}
    try:
        exists = path.exists() or path.is_symlink()
        if exists and not (name in names and path.is_dir()):
            return path
    except OSError as error:  # such as a name of more than 255 characters
        hint = f"`{command('list')}` shows the recipes that come with r1recipes"
        message = f"`{name[:60]}...` is not a file name: {error.strerror}"
        raise RecipeError(message, hint=hint) from error
    if name in names:
        return names[name]
    raise missing(name, ".toml", names, "recipe")


def missing(name: str, suffix: str, shipped: Mapping[str, Path], noun: str) -> RecipeError:
    """The error for a name that is neither a file nor one of the shipped files of a kind, with the
    nearest: of the files beside it where it names a file, or else of the shipped ones."""
    path = Path(name)
    is_file = path.suffix != "" or len(path.parts) > 1
    folder = path.parent
    if is_file and not folder.is_dir():
        message = f"there is no file `{name}`: there is no folder `{folder}`"
    else:
        message = f"there is no {'file' if is_file else noun} `{name}`"
    beside = {file.stem: file for file in folder.glob(f"*{suffix}")} if is_file else {}
    if meant := nearest(path.stem, beside, 0.6):
        return RecipeError(message, hint=f"did you mean `{beside[meant]}`?")
    if meant := nearest(path.stem, shipped, 0.5):
        also = (
            f"? `{command('list')}` shows all"
            if noun == "recipe"
            else ", which comes with r1recipes?"
        )
        return RecipeError(message, hint=f"did you mean `{meant}`{also}")
    if noun == "recipe":
        hint = f"`{command('list')}` shows the recipes that come with r1recipes"
        if path.suffix == suffix and folder.is_dir():
            hint = f"`{new_recipe(path)}` writes one; {hint}"
        return RecipeError(message, hint=hint)
    return RecipeError(message, hint=f"those that come with r1recipes: {listed(shipped)}")


def load(name: str | Path, overrides: list[str] | None = None) -> Loaded:
    """Read and validate a recipe, with `key=value` overrides.

    A .toml file on this machine is the user's own. A bundle, a folder, a URL and hub:user/name are
    from elsewhere: they are fetched, and refused if they have what is not allowed to them.
    Raises: RecipeError with all problems of the file and of the overrides.
    """
    path, source = locate(str(name))
    return load_text(read_text(path), path, overrides, source)


def load_text(
    text: str, path: Path, overrides: list[str] | None = None, source: Source | None = None
) -> Loaded:
    """Validate the text of a recipe file, which may be on another machine, with overrides.

    Raises: RecipeError with all problems of the text and of the overrides.
    """
    # A message names what the user knows, not a file of the cache.
    shown = path if source is None else source.reference
    file_data = parse(text, shown, EXAMPLE)
    _refuse_study(file_data, shown)
    data, origins, problems = merge(file_data, overrides or [])
    try:
        recipe = validate(data, shown, text, origins)
    except RecipeError as error:
        blamed = _blame_flags(error.problems, file_data, origins) if origins else error.problems
        raise RecipeError(problems=problems + named_as_typed(blamed, origins)) from error
    if source:
        where = _finder(shown, text, origins)
        refusals = references.refusals(data, source.files(), origins)
        problems += [Problem(r.message, where(r.loc, True), r.hint) for r in refusals]
    if problems:
        raise RecipeError(problems=problems)
    return Loaded(recipe, path, text, data, origins, source)


def locate(name: str) -> tuple[Path, Source | None]:
    """The file that `name` means, and where it came from if it is from elsewhere.

    Raises: RecipeError when there is none, or it cannot be fetched.
    """
    if not fetch.is_remote(name):
        path = find(name)
        if not fetch.is_bundle(path):
            return path, None
        name = str(path)
    source = fetch.get(name)
    return source.folder / "recipe.toml", source


def _refuse_study(data: dict[str, Any], shown: Path | str) -> None:
    """Raises: IsStudy for the data of a study file."""
    for section in STUDY_SECTIONS:
        if section in data:
            hint = f"`{command('sweep', shown)}` runs it"
            if isinstance(data.get("recipe"), str):
                hint += f"; its recipe is `{data['recipe']}`"
            message = f"has a [{section}] section: it is a study, not a recipe"
            raise IsStudy(problems=[Problem(message, str(shown), hint)])


def _blame_flags(
    problems: list[Problem], file_data: dict[str, Any], origins: dict[Loc, str]
) -> list[Problem]:
    """The problems with flags as their places, if the file is valid without the flags."""
    try:
        Recipe.model_validate(file_data)
    except ValidationError:
        return problems
    blamed = []
    for problem in problems:
        if (problem.where or "").startswith("--set "):
            blamed.append(problem)
            continue
        named = [flag for loc, flag in origins.items() if f"`{loc[-1]}`" in problem.message]
        flags = " ".join(dict.fromkeys(named or origins.values()))
        hint = problem.hint or ""
        if hint.startswith("remove") and not named and ("algorithm",) in origins:
            hint = _new_for_algorithm(file_data, origins[("algorithm",)])  # no flag removes a key
        blamed.append(Problem(problem.message, flags, hint or None))
    return list(dict.fromkeys(blamed))


def _new_for_algorithm(file_data: dict[str, Any], flag: str) -> str:
    """The command that writes a recipe for the file's model and the algorithm of a flag."""
    algorithm, model = flag.partition("=")[2].strip(" '\""), file_data["model"]["name"]
    written = command("new", "mine.toml", "--model", model, "--algorithm", algorithm)
    return f"`{written}` writes a recipe for it"


def new_recipe(path: str | Path) -> str:
    """The command that writes a recipe there."""
    return command("new", path, "--model", "unsloth/Qwen2.5-1.5B-Instruct")


def read_text(path: Path) -> str:
    """The text of a recipe file. Raises: RecipeError if it is not a text of at most MAX_BYTES."""
    where = str(path)
    try:
        if not path.is_file():
            raise RecipeError.at(where, "is not a regular file", "name a .toml file")
        if path.suffix.lower() in references.FILE_SUFFIXES:
            hint = f'name it in a recipe: `[data]` with `name = "{path}"`'
            raise RecipeError.at(where, "is a data file, not a recipe", hint)
        size = path.stat().st_size
        if size > MAX_BYTES:
            message = f"has {size / 1e6:.1f} MB; a recipe has at most {MAX_BYTES / 1e6:.0f} MB"
            raise RecipeError.at(where, message, "is it the right file?")
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        start = content.rfind(b"\n", 0, error.start) + 1
        column = len(content[start : error.start].decode(errors="replace")) + 1
        message = f"is not UTF-8 text (byte 0x{content[error.start]:02x})"
        raise RecipeError.at(
            f"{path}:{line}:{column}", message, "save the file as UTF-8"
        ) from error
    if not text.strip():
        hint = f"`rm {shlex.quote(where)} && {new_recipe(path)}` writes one"
        raise RecipeError.at(where, "is empty", hint)
    return text


def validate(
    data: dict[str, Any], path: Path | str, text: str, overrides: dict[Loc, str] | None = None
) -> Recipe:
    """Data to a Recipe. Raises: RecipeError with every problem and its place."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        where = _finder(path, text, overrides or {})
        problems = explain.explain(error, worded_for(data), where)
        problems = list(dict.fromkeys(_without_preset_name(problem) for problem in problems))
        raise RecipeError(problems=problems) from error


def _without_preset_name(problem: Problem) -> Problem:
    """Leave out the preset's name: `--set preset.KEY=...` is wrong in every preset alike."""
    if not re.match(r"--set preset\.([a-z_0-9]+)=", problem.where or ""):
        return problem
    message, hint = (
        re.sub(r"`preset\.\w+\.(\w+)`", r"`preset.\1`", text)
        for text in (problem.message, problem.hint or "")
    )
    return Problem(message, problem.where, hint or None)


def _finder(path: Path | str, text: str, overrides: dict[Loc, str]) -> explain.Where:
    """A function that finds the place of a key: the flag that set it or a key in it, or its place
    in the file."""
    from r1recipes.config.places import Positions

    positions = Positions(text)

    def where(loc: Loc, at_key: bool) -> str:
        for length in range(len(loc), 0, -1):
            if loc[:length] in overrides:
                return overrides[loc[:length]]
            if positions.exact(loc[:length]):
                break
        if not positions.exact(loc):
            for target, flag in overrides.items():
                if target[: len(loc)] == loc:
                    return flag
        place = positions.find(loc)
        if place is None:
            return f"{path}:1:1"
        line, column = place.key if at_key else place.value
        return f"{path}:{line}:{column}"

    return where


def fingerprint(recipe: Recipe) -> str:
    """The sha256 (hex) of the canonical JSON of a recipe, all defaults included.

    Description, trackers and exports are left out: they change nothing that is computed. So are
    the address of a judge and how fast it is asked, and a key that was added to the format later
    (`section.ADDED_LATER`) while it has its default: such a recipe does what it did before the key
    existed, and keeps its fingerprint.
    """
    dumped = recipe.model_dump(mode="json", exclude={"description", "track", "export"})
    if recipe.judge:
        for key in WHERE_NOT_COMPUTED:
            del dumped["judge"][key]
    canonical = without_later_defaults(recipe, dumped)
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def origin_of(loaded: Loaded) -> OriginOf:
    """A function that gives the origin of the value at a path: a flag, a default, or the file."""

    def origin(path: Loc) -> str | None:
        if other := OTHER_NAMES.get(str(path[-1])):  # the file may have the older name
            older = (*path[:-1], other)
            return of_key(path) if of_key(path) != "default" else of_key(older)
        return of_key(path)

    def of_key(path: Loc) -> str | None:
        if path in loaded.overrides:
            return "--set"
        current: Any = loaded.data
        for part in path:
            has_part = isinstance(current, dict) and part in current
            if not has_part and not (isinstance(current, list) and isinstance(part, int)):
                return "default"
            current = current[part]
        return None

    return origin

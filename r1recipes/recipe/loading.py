"""Find a recipe, read it with positions, override, validate, fingerprint, show and write it.

A recipe is one self-contained file. Precedence: default < file < `--set key=value`. Nothing
heavy is imported here: `check`, `show` and `list` answer at once and never import torch.
"""

import difflib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1recipes.config import explain
from r1recipes.config.render import Loc
from r1recipes.config.toml import parse
from r1recipes.errors import Problem, RecipeError
from r1recipes.recipe import fetch, references
from r1recipes.recipe.fetch import Source
from r1recipes.recipe.overrides import apply, merge
from r1recipes.recipe.schema import Recipe, of_algorithm

__all__ = ["apply", "parse"]  # the parts of `load` that are written elsewhere

MAX_BYTES = 1_000_000
STUDY_SECTIONS = ("study", "search", "matrix")


class IsStudy(RecipeError):
    """The file is a study, which `study` reads."""


@dataclass(frozen=True)
class Loaded:
    """A valid recipe and where it came from."""

    recipe: Recipe
    path: Path
    text: str
    given: dict[str, Any]
    overrides: dict[Loc, str] = field(default_factory=dict)
    source: Source | None = None
    """Of a recipe from elsewhere: it runs no code that is not allowed and reads no other file."""

    @property
    def name(self) -> str:
        return self.source.name if self.source else self.path.stem

    def places(self) -> Callable[[Loc, bool], str]:
        """A function that says where a key (path, True) or its value (path, False) stands."""
        shown = self.path if self.source is None else self.source.reference
        return _finder(shown, self.text, self.overrides)

    @property
    def shown(self) -> str:
        """The file for people, or where it came from."""
        return self.source.shown if self.source else str(self.path)


def shipped_folder() -> Path:
    """Folder of the recipes that come with r1recipes."""
    package = Path(__file__).parents[1]
    packaged = package / "_data" / "recipes"
    return packaged if packaged.is_dir() else package.parent / "recipes"


def shipped() -> list[Path]:
    """The recipes that come with r1recipes, by name."""
    return sorted(shipped_folder().glob("*.toml"))


def find(name: str) -> Path:
    """The file that `name` means: a path, or the name of a shipped recipe.

    Raises: RecipeError with the nearest names.
    """
    path = Path(name)
    names = {file.stem: file for file in shipped()}
    try:
        exists = path.exists() or path.is_symlink()
        if exists and not (name in names and path.is_dir()):
            return path
    except OSError as error:  # such as a name of more than 255 characters
        raise RecipeError(f"`{name[:60]}...` is not a file name: {error.strerror}") from error
    if name in names:
        return names[name]
    close = difflib.get_close_matches(path.stem, names, 1, 0.5)
    if close:
        hint = f"did you mean `{close[0]}`? `r1recipes list` shows all"
    else:
        hint = "`r1recipes list` shows the recipes that come with r1recipes"
    raise RecipeError(f"there is no recipe `{name}`", hint=hint)


def load(name: str | Path, overrides: list[str] | None = None) -> Loaded:
    """Read and validate a recipe, with `key=value` overrides.

    A .toml file on this machine is the user's own. A bundle, a folder, a URL and hub:user/name are
    from elsewhere: they are fetched, and what they may not have is refused.
    Raises: RecipeError with all problems of the file and of the overrides.
    """
    path, source = locate(str(name))
    return load_text(read_text(path), path, overrides, source)


def load_text(
    text: str, path: Path, overrides: list[str] | None = None, source: Source | None = None
) -> Loaded:
    """As `load`, from the text of a file that may be on another machine.

    Raises: RecipeError with all problems of the text and of the overrides.
    """
    # A message names what the user knows, not a file of the cache.
    shown = path if source is None else source.reference
    given = parse(text, shown)
    study = [key for key in STUDY_SECTIONS if key in given]
    if study:
        raise IsStudy(
            problems=[
                Problem(
                    f"has a [{study[0]}] section: it is a study, not a recipe",
                    str(shown),
                    _study_hint(given),
                )
            ]
        )
    data, origins, problems = merge(given, overrides or [])
    try:
        recipe = validate(data, shown, text, origins)
    except RecipeError as error:
        found = _blame_flags(error.problems, given, origins) if origins else error.problems
        raise RecipeError(problems=problems + found) from error
    if source:
        where = _finder(shown, text, origins)
        refused = references.refusals(data, source.files(), origins)
        problems += [Problem(r.message, where(r.loc, True), r.hint) for r in refused]
    if problems:
        raise RecipeError(problems=problems)
    return Loaded(recipe, path, text, data, origins, source)


def locate(name: str) -> tuple[Path, Source | None]:
    """The file that `name` means, and where it came from if it is from elsewhere.

    Raises: RecipeError when there is none, or it cannot be had.
    """
    if not fetch.is_remote(name):
        path = find(name)
        if not fetch.is_bundle(path):
            return path, None
        name = str(path)
    source = fetch.get(name)
    return source.folder / "recipe.toml", source


def _blame_flags(
    problems: list[Problem], given: dict[str, Any], origins: dict[Loc, str]
) -> list[Problem]:
    """A file that is valid by itself is not to blame: name the flags that a problem is about."""
    try:
        Recipe.model_validate(given)
    except ValidationError:
        return problems
    blamed = []
    for problem in problems:
        if (problem.where or "").startswith("--set "):
            blamed.append(problem)
            continue
        named = [flag for loc, flag in origins.items() if f"`{loc[-1]}`" in problem.message]
        flags = " ".join(dict.fromkeys(named or origins.values()))
        blamed.append(Problem(problem.message, flags, problem.hint))
    return list(dict.fromkeys(blamed))


def _study_hint(given: dict[str, Any]) -> str:
    named = given.get("recipe")
    if isinstance(named, str):
        return f"its recipe is `{named}`; `r1recipes sweep` runs the study"
    return "`r1recipes sweep` runs it"


def read_text(path: Path) -> str:
    """The text of a recipe file. Raises: RecipeError if it is not a readable text of sane size."""
    try:
        if not path.is_file():
            raise RecipeError(problems=[Problem("is not a regular file", str(path))])
        size = path.stat().st_size
        if size > MAX_BYTES:
            message = f"has {size / 1e6:.1f} MB; a recipe has at most {MAX_BYTES / 1e6:.0f} MB"
            raise RecipeError(problems=[Problem(message, str(path), "is it the right file?")])
        raw = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise RecipeError(problems=[Problem(message, str(path))]) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        start = raw.rfind(b"\n", 0, error.start) + 1
        column = len(raw[start : error.start].decode(errors="replace")) + 1
        raise RecipeError(
            problems=[
                Problem(
                    f"is not UTF-8 text (byte 0x{raw[error.start]:02x})",
                    f"{path}:{line}:{column}",
                    "save the file as UTF-8",
                )
            ]
        ) from error
    if not text.strip():
        raise RecipeError(
            problems=[Problem("is empty", str(path), f"`r1recipes new {path.name}` writes one")]
        )
    return text


def validate(
    data: dict[str, Any], path: Path | str, text: str, overrides: dict[Loc, str] | None = None
) -> Recipe:
    """Data to a Recipe. Raises: RecipeError with every problem and its place."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        where = _finder(path, text, overrides or {})
        raise RecipeError(
            problems=explain.explain(
                error.errors(include_url=False), of_algorithm(data.get("algorithm")), where
            )
        ) from error


def _finder(path: Path | str, text: str, overrides: dict[Loc, str]) -> Callable[[Loc, bool], str]:
    """Where a key came from: the flag that set it or something in it, or its place in the file."""
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
    """sha256 (hex) of the canonical JSON of the resolved recipe, all defaults included.

    Description, trackers and exports are left out: they change nothing that is computed.
    """
    canonical = recipe.model_dump(mode="json", exclude={"description", "track", "export"})
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def origin_of(loaded: Loaded):
    """A function that says where the value at a path came from: None stands for the file."""

    def origin(path: Loc) -> str | None:
        if path in loaded.overrides:
            return "--set"
        current: Any = loaded.given
        for part in path:
            if not isinstance(current, dict) or part not in current:
                return "default"
            current = current[part]
        return None

    return origin


# What people know from other tools, and what it is called or replaced by here.

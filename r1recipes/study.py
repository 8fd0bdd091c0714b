"""Read a study file, check it against its recipes, and expand it into cells.

A cell is one recipe with fixed overrides; its trials differ in the searched keys only. A study
without a matrix has one cell, a matrix without a search has cells of one trial. What a worker needs
of a cell is one `Cell`, which travels through the database, so a worker reads no study file.
"""

import difflib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from r1recipes import explain, hints, overrides, plan, recipe
from r1recipes.errors import Problem, RecipeError
from r1recipes.hints import Loc, show
from r1recipes.machine import Gpu
from r1recipes.plan import Plan
from r1recipes.positions import Positions
from r1recipes.recipe import Loaded, toml_value
from r1recipes.schema import Recipe
from r1recipes.study_schema import Range, Study, StudyFile

MAX_CELLS = 10_000


class Cell(BaseModel):
    """One recipe with fixed overrides, and what is searched on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    name: str
    """Empty where the study has one cell only."""
    index: int
    axes: dict[str, Any]
    """Key of [matrix] -> its value in this cell."""
    recipe_path: str
    recipe_text: str
    overrides: list[str]
    preset: str | None
    search: dict[str, Range]
    settings: Study
    num_trials: int

    @property
    def full_name(self) -> str:
        return f"{self.study}/{self.name}" if self.name else self.study

    def load(self, params: dict[str, Any] | None = None) -> Loaded:
        """The recipe of a trial. Raises: RecipeError when the values do not go together."""
        flags = self.overrides + assignments(params or {})
        return recipe.load_text(self.recipe_text, Path(self.recipe_path), flags)

    def own_values(self) -> dict[str, Any]:
        """The recipe's own values of the searched keys, where they are within their ranges."""
        data = self.load().recipe.model_dump(mode="json")
        found = {key: _look_up(data, key) for key in self.search}
        return {key: value for key, value in found.items() if _within(value, self.search[key])}


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study file and its cells."""

    name: str
    path: Path
    text: str
    file: StudyFile
    cells: list[Cell]


def resolve(
    cell: Cell, loaded: Loaded, cores: int, gpu: Gpu | None, *, offline: bool, refuse: bool = True
) -> Plan:
    """The plan of a trial on this machine; `gpu` as it is before a trial loads anything.

    Raises: PlanError; where it is memory that is short, only with `refuse`.
    """
    return plan.make(
        loaded.recipe,
        base_dir=loaded.path.parent,
        gpu=gpu,
        num_cores=cores,
        preset_name=cell.preset,
        offline=offline,
        refuse=refuse,
    )


def assignments(params: dict[str, Any]) -> list[str]:
    """Values of keys as `--set` takes them."""
    return [f"{key}={toml_value(value)}" for key, value in params.items()]


def is_whole(key: str) -> bool:
    """Whether a recipe key takes whole numbers."""
    path = overrides.path_of(key) or ()
    if len(path) == 2 and path[0] == "preset":
        path = ("preset", "cpu", path[1])
    field = hints.field_at(path, Recipe)
    return field is not None and field.annotation in (int, int | None)


def load(name: str | Path, flags: list[str] | None = None, study_name: str | None = None):
    """Read and check a study file; `flags` are `--set` overrides of every trial's recipe.

    Raises: RecipeError with all problems of the file.
    """
    path = find(str(name))
    text = recipe.read_text(path)
    given = recipe.parse(text, path)
    if "model" in given and not given.keys() & set(recipe.STUDY_SECTIONS):
        problem = Problem("is a recipe, not a study", str(path), f"`r1recipes run {path}`")
        raise RecipeError(problems=[problem])
    checker = _Checker(path, text, flags or [])
    try:
        file = StudyFile.model_validate(given)
    except ValidationError as error:
        found = explain.explain(error.errors(include_url=False), StudyFile, checker.where)
        raise RecipeError(problems=found) from error
    cells = checker.cells(file, study_name or path.stem)
    return LoadedStudy(study_name or path.stem, path, text, file, cells)


def with_trials(loaded: LoadedStudy, n_trials: int) -> LoadedStudy:
    """The study with another number of trials. Raises: RecipeError when it has no search."""
    if not loaded.file.search or n_trials < 1:
        message = f"--n-trials {n_trials} does not go with this study"
        raise RecipeError(message, hint="a matrix without [search] has one trial in each cell")
    cells = [cell.model_copy(update={"num_trials": n_trials}) for cell in loaded.cells]
    return replace(loaded, cells=cells)


def shipped() -> list[Path]:
    """The studies that come with r1recipes, by name."""
    return sorted((recipe.shipped_folder().parent / "sweeps").glob("*.toml"))


def find(name: str) -> Path:
    """The file that `name` means: a path, or the name of a shipped study. Raises: RecipeError."""
    path = Path(name)
    names = {file.stem: file for file in shipped()}
    if path.is_file():
        return path
    if name in names:
        return names[name]
    close = difflib.get_close_matches(path.stem, names, 1, 0.5)
    known = f"did you mean `{names[close[0]]}`?" if close else "shipped: " + ", ".join(names)
    raise RecipeError(f"there is no study `{name}`", hint=known)


class _Checker:
    """Checks what a study file says about recipes, and finds the places of what is wrong."""

    def __init__(self, path: Path, text: str, flags: list[str]):
        self.path, self.text, self.flags = path, text, flags
        self.problems: list[Problem] = []

    @cached_property
    def positions(self) -> Positions:
        return Positions(self.text)

    def where(self, loc: Loc, at_key: bool) -> str:
        place = self.positions.find(loc)
        line, column = (place.key if at_key else place.value) if place else (1, 1)
        return f"{self.path}:{line}:{column}"

    def cells(self, file: StudyFile, study: str) -> list[Cell]:
        """The cells of a valid file. Raises: RecipeError with every value that is not valid."""
        axes = {"recipe": [file.recipe]} if file.recipe else {}
        axes |= file.matrix
        if math.prod(map(len, axes.values())) > MAX_CELLS:
            self._add(("matrix",), f"the matrix has more than {MAX_CELLS} cells", "remove values")
        texts = {name: self._recipe(name, loc) for name, loc in self._recipes(file)}
        self._raise()
        fixed = [*assignments(file.set), *self.flags]
        for path, text in texts.values():
            self._check(path, text, file, fixed)
        self._raise()
        return list(self._expand(file, study, axes, texts, fixed))

    def _recipes(self, file: StudyFile) -> Iterator[tuple[str, Loc]]:
        if file.recipe:
            yield file.recipe, ("recipe",)
        for number, name in enumerate(file.matrix.get("recipe", [])):
            yield name, ("matrix", "recipe", number)

    def _recipe(self, name: Any, loc: Loc) -> tuple[Path, str]:
        """Path and text of a recipe that is valid, with the flags."""
        if not isinstance(name, str):
            self._add(
                loc, f"a recipe is a file, not {show(name)}", 'such as "../recipes/tiny.toml"'
            )
            return Path(), ""
        beside = self.path.parent / name
        try:
            loaded = recipe.load(beside if beside.is_file() else name, self.flags)
            if loaded.source is None:
                return loaded.path.absolute(), loaded.text
            hint = f"`r1recipes copy {name} mine.toml`, and name that file"
            self._add(loc, f"`{name}` is from elsewhere", hint)
            return Path(), ""
        except RecipeError as error:
            for problem in error.problems:
                is_missing = problem.message.startswith("there is no recipe")
                where = self.where(loc, False) if is_missing else problem.where
                self.problems.append(Problem(problem.message, where, problem.hint))
            return Path(), ""

    def _check(self, path: Path, text: str, file: StudyFile, fixed: list[str]) -> None:
        """Every value of [set], [search] and [matrix] must be valid in the recipe."""
        for key, value in file.set.items():
            self._try(path, text, list(self.flags), key, value, ("set", key))
        if self.problems:
            return
        for key, searched in file.search.items():
            for end, value in searched.ends():
                self._try(path, text, fixed, key, value, ("search", key, *end))
        for key, values in file.matrix.items():
            for number, value in enumerate(values if key != "recipe" else ()):
                self._try(path, text, fixed, key, value, ("matrix", key, number))

    def _try(self, path: Path, text: str, flags: list[str], key: str, value: Any, loc: Loc) -> None:
        if overrides.path_of(key) is None:
            self._add(loc, f"{show(key)} is not a dotted key", 'such as `"train.beta"`', True)
            return
        if loc[-1] in ("low", "high") and is_whole(key) and value == int(value):
            value = int(value)  # a range is read as two floats
        try:
            recipe.load_text(text, path, [*flags, *assignments({key: value})])
        except RecipeError as error:
            for problem in error.problems:
                at_key = problem.message.startswith("unknown")
                self._add(loc[:2] if at_key else loc, problem.message, problem.hint, at_key)

    def _expand(
        self, file: StudyFile, study: str, axes: dict, texts: dict, fixed: list[str]
    ) -> Iterator[Cell]:
        settings = file.study or Study()
        for index, values in enumerate(itertools.product(*axes.values())):
            chosen = dict(zip(axes, values, strict=True))
            path, text = texts[chosen["recipe"]]
            varied = {key: chosen[key] for key in file.matrix}
            flags = fixed + assignments({k: v for k, v in varied.items() if k != "recipe"})
            cell = Cell(
                study=study,
                name=cell_name(varied),
                index=index,
                axes=varied,
                recipe_path=str(path),
                recipe_text=text,
                overrides=flags,
                preset=file.preset,
                search=file.search,
                settings=settings,
                num_trials=settings.n_trials if file.search else 1,
            )
            try:
                cell.load()
            except RecipeError as error:
                for problem in error.problems:
                    message = f"cell {cell.name}: {problem.message}"
                    self._add(("matrix",), message, problem.hint)
                self._raise()
            yield cell

    def _add(self, loc: Loc, message: str, hint: str | None, at_key: bool = False) -> None:
        problem = Problem(message, self.where(loc, at_key), hint)
        if problem not in self.problems:
            self.problems.append(problem)

    def _raise(self) -> None:
        if self.problems:
            raise RecipeError(problems=self.problems)


def cell_name(axes: dict[str, Any]) -> str:
    """`qwen2.5-7b,beta=0.1,seed=2`: short, readable, and fit for a file name."""
    parts = []
    for key, value in axes.items():
        text = Path(value).stem if key == "recipe" else f"{key.split('.')[-1]}={value}"
        parts.append("".join(c if c.isalnum() or c in "=.-+_" else "_" for c in text))
    return ",".join(parts)


def differences(old: Cell, new: Cell) -> list[str]:
    """What another search space or recipe has, one line each. Other numbers of trials, samplers and
    pruners go on with the same study."""
    lines = []
    for key in sorted(old.search.keys() | new.search.keys()):
        before, after = (_range_words(cell.search.get(key)) for cell in (old, new))
        if before != after:
            lines.append(f"[search] `{key}`: {before} -> {after}")
    if old.settings.metrics != new.settings.metrics:
        metrics = (", ".join(c.settings.metrics) for c in (old, new))
        lines.append("metric: " + " -> ".join(metrics))
    if old.settings.directions != new.settings.directions:
        lines.append(f"direction: {old.settings.directions} -> {new.settings.directions}")
    before, after = (_leaves(cell.load().recipe.model_dump(mode="json")) for cell in (old, new))
    searched = {leaf for key in new.search for leaf in (key, key.split(".")[-1])}
    for key in sorted(before.keys() | after.keys()):
        is_searched = key in searched or (
            key.startswith("preset.") and key.split(".")[-1] in searched
        )
        if before.get(key) != after.get(key) and key != "description" and not is_searched:
            lines.append(f"recipe `{key}`: {show(before.get(key))} -> {show(after.get(key))}")
    if old.preset != new.preset:
        lines.append(f"preset: {old.preset} -> {new.preset}")
    return lines


def _range_words(given: Range | None) -> str:
    return "absent" if given is None else str(given.model_dump(exclude_defaults=True))


def _leaves(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _look_up(data: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; `preset.KEY` is that of the only preset that has one."""
    path = overrides.path_of(key) or ()
    if len(path) == 2 and path[0] == "preset" and path[1] not in data["preset"]:
        values = [preset.get(path[1]) for preset in data["preset"].values()]
        return values[0] if all(value == values[0] for value in values) else None
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _within(value: Any, given: Range) -> bool:
    if given.choices is not None:
        return value in given.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    steps = (value - given.low) / given.step if given.step else 0.0
    return given.low <= value <= given.high and abs(steps - round(steps)) < 1e-9

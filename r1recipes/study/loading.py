"""Read a study file, check it against its recipes, and expand it into cells.

A cell is one recipe with fixed overrides; its trials differ in the searched keys only. A study
without a matrix has one cell, a matrix without a search has cells of one trial.
"""

import difflib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1recipes import recipe
from r1recipes.config import explain
from r1recipes.config.places import Positions
from r1recipes.config.render import Loc, show
from r1recipes.errors import Problem, RecipeError
from r1recipes.recipe import loading, overrides
from r1recipes.study.cell import Cell, assignments, cell_name, is_whole
from r1recipes.study.schema import Study, StudyFile

MAX_CELLS = 10_000
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Keys of [train] that the sampled evaluation has too."""


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study file and its cells."""

    name: str
    path: Path
    text: str
    file: StudyFile
    cells: list[Cell]


def load(name: str | Path, flags: list[str] | None = None, study_name: str | None = None):
    """Read and check a study file; `flags` are `--set` overrides of every trial's recipe.

    Raises: RecipeError with all problems of the file.
    """
    path = find(str(name))
    text = loading.read_text(path)
    given = loading.parse(text, path)
    if "model" in given and not given.keys() & set(loading.STUDY_SECTIONS):
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
    if n_trials < 1:
        raise RecipeError(f"--n-trials {n_trials}: a study has at least one trial")
    if not loaded.file.search:
        message = f"--n-trials {n_trials} does not go with this study"
        raise RecipeError(message, hint="a matrix without [search] has one trial in each cell")
    cells = [cell.model_copy(update={"num_trials": n_trials}) for cell in loaded.cells]
    return replace(loaded, cells=cells)


def shipped() -> list[Path]:
    """The studies that come with r1recipes, by name."""
    return sorted((loading.shipped_folder().parent / "sweeps").glob("*.toml"))


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
        self._keys(file)
        if math.prod(map(len, axes.values())) > MAX_CELLS:
            self._add(("matrix",), f"the matrix has more than {MAX_CELLS} cells", "remove values")
        texts = {name: self._recipe(name, loc) for name, loc in self._recipes(file)}
        self._raise()
        fixed = [*assignments(file.set), *self.flags]
        for path, text in texts.values():
            self._check(path, text, file, fixed)
        self._raise()
        return list(self._expand(file, study, axes, texts, fixed))

    def _keys(self, file: StudyFile) -> None:
        """No key may be given twice, or move what is measured."""
        sections = ("set", "search", "matrix")
        given = [(section, key) for section in sections for key in getattr(file, section)]
        for place, (section, key) in enumerate(given):
            for earlier, other in given[:place]:
                if key != other and _is_same(key, other):
                    message = f"`{key}` and `{other}` of [{earlier}] are one key"
                    self._add((section, key), message, "keep one", True)
            for flag in self.flags if section != "set" else ():
                if _is_same(key, flag.partition("=")[0].strip()):
                    message = f"`{key}` is varied here, and `--set` gives it one value"
                    self._add((section, key), message, f"remove `--set {flag}`, or this line", True)
        for key in file.search:
            if found := _moves_the_metric(key, (file.study or Study()).metrics):
                self._add(("search", key), *found, True)
        for key, values in file.matrix.items():
            for place, value in enumerate(values):
                if repr(value) in map(repr, values[:place]):
                    self._add(("matrix", key, place), f"{show(value)} is given twice", "remove one")

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
            if is_whole(key) and searched.step is not None and searched.step % 1:
                message = f"`{key}` takes whole numbers, and so must its `step`"
                self._add(("search", key, "step"), message, "such as `step = 1`")
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
            loading.load_text(text, path, [*flags, *assignments({key: value})])
        except RecipeError as error:
            for problem in error.problems:
                at_key = problem.message.startswith("unknown")
                self._add(loc[:2] if at_key else loc, problem.message, problem.hint, at_key)

    def _expand(
        self, file: StudyFile, study: str, axes: dict, texts: dict, fixed: list[str]
    ) -> Iterator[Cell]:
        settings, names = file.study or Study(), set()
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
            if cell.name in names:
                hint = "recipes of a matrix need files of different names"
                self._add(("matrix",), f"two cells are called `{cell.name}`", hint)
                self._raise()
            names.add(cell.name)
            yield cell

    def _add(self, loc: Loc, message: str, hint: str | None, at_key: bool = False) -> None:
        problem = Problem(message, self.where(loc, at_key), hint)
        if problem not in self.problems:
            self.problems.append(problem)

    def _raise(self) -> None:
        if self.problems:
            raise RecipeError(problems=self.problems)


def _is_same(key: str, other: str) -> bool:
    """Whether two keys name one value: `preset.lora_rank` is that of every preset."""
    one, two = (overrides.path_of(k) or (k,) for k in (key, other))
    if one[0] == two[0] == "preset" and len(one) != len(two):
        return one[-1] == two[-1]
    return one == two


def _moves_the_metric(key: str, metrics: list[str]) -> tuple[str, str] | None:
    """(message, hint) when trials with other values of a key cannot be compared."""
    section, *rest = overrides.path_of(key) or (key,)
    sampled = [metric for metric in metrics if metric != "eval/greedy"]
    if section == "seed":
        return "a search over seeds finds luck", "put `seed` into [matrix]: it has an interval"
    if section == "eval" or section == "data" and rest not in (["size"], ["overlong"]):
        return f"`{key}` changes what is measured", "put it into [set]"
    if section == "train" and sampled and set(rest) & set(SAMPLING):
        message = f"`{sampled[0]}` is sampled with `{key}`, so it moves without learning"
        return message, 'search for `metric = "eval/greedy"`, or put it into [set]'
    return None

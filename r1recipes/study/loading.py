"""Read a study file, check it against its recipes, and expand it into cells.

A cell is one recipe with fixed overrides; its trials differ in the searched keys only. A study
without a matrix has one cell, a matrix without a search has cells of one trial.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from r1recipes import machine, recipe
from r1recipes.config import explain
from r1recipes.config.places import Positions
from r1recipes.config.render import Loc, show
from r1recipes.config.toml import parse
from r1recipes.errors import Problem, RecipeError, command
from r1recipes.recipe import loading, overrides
from r1recipes.study.cell import Cell, assignments, cell_name, is_whole
from r1recipes.study.schema import Study, StudyFile

MAX_CELLS = 10_000
MAX_PROBLEMS = 10
"""Problems with the values of a study that are shown; the others are counted."""
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Keys of [train] that the sampled evaluation has too."""
EXAMPLE = "the shipped study `tiny` is a valid one"
T = TypeVar("T")


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study file and its cells."""

    name: str
    path: Path
    text: str
    file: StudyFile
    cells: list[Cell]


def load(
    name: str | Path, flags: list[str] | None = None, study_name: str | None = None
) -> LoadedStudy:
    """Read and check a study file; `flags` are `--set` overrides of every trial's recipe.

    Raises: RecipeError with all problems of the file.
    """
    path = find(str(name))
    text = loading.read_text(path)
    data = parse(text, path, EXAMPLE)
    if "model" in data and not data.keys() & set(loading.STUDY_SECTIONS):
        raise RecipeError.at(str(path), "is a recipe, not a study", f"`{command('run', path)}`")
    checker = _Checker(path, text, flags or [])
    try:
        file = StudyFile.model_validate(data)
    except ValidationError as error:
        problems = explain.explain(error, StudyFile, checker.where)
        raise RecipeError(problems=problems) from error
    cells = checker.cells(file, study_name or path.stem)
    return LoadedStudy(study_name or path.stem, path, text, file, cells)


def with_trials(loaded: LoadedStudy, n_trials: int) -> LoadedStudy:
    """The study with another number of trials. Raises: RecipeError when it has no search."""
    if n_trials < 1:
        message = f"--n-trials {n_trials}: a study has at least one trial"
        raise RecipeError(message, hint="such as `--n-trials 20`")
    if not loaded.file.search:
        message = f"--n-trials {n_trials} does not go with this study"
        raise RecipeError(message, hint="a matrix without [search] has one trial in each cell")
    cells = [cell.model_copy(update={"num_trials": n_trials}) for cell in loaded.cells]
    return replace(loaded, cells=cells)


def shipped() -> list[Path]:
    """The studies that come with r1recipes, by name."""
    return sorted(machine.shipped_folder("sweeps").glob("*.toml"))


def find(name: str) -> Path:
    """The file that `name` means: a path, or a shipped study by its name. Raises: RecipeError."""
    path = Path(name)
    names = {file.stem: file for file in shipped()}
    if path.is_file():
        return path
    if name in names:
        return names[name]
    raise loading.missing(name, ".toml", names, "study")


def what_is(path: str) -> str:
    """The command that shows what a path of a study, a run or a study's file stands for."""
    if not Path(path).exists():
        return f"`{command('study', Path(path).stem)}`"
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if (folder / "record.json").is_file():
        return f"this is a run, which `{command('report', folder)}` shows"
    if (folder / "study.db").is_file() or not any(folder.glob("*/record.json")):
        return f"`{command('study', folder.name if folder.name else Path(path).stem)}`"
    newest = sorted(folder.glob("*/record.json"))[-1].parent
    return f"`{folder}` has runs and no study; `{command('report', newest)}` shows the last"


class _Checker:
    """Checks the keys and values of a study file in its recipes, and finds the places of mistakes.

    After MAX_PROBLEMS values that are not valid the others are not checked, since each check
    validates a whole recipe.
    """

    def __init__(self, path: Path, text: str, flags: list[str]):
        self.path, self.text, self.flags = path, text, flags
        self.problems: list[Problem] = []
        self.num_unchecked = 0

    @cached_property
    def positions(self) -> Positions:
        return Positions(self.text)

    def where(self, loc: Loc, at_key: bool) -> str:
        """`file:line:column` of a key of the study file, or of its value."""
        place = self.positions.find(loc)
        line, column = (place.key if at_key else place.value) if place else (1, 1)
        return f"{self.path}:{line}:{column}"

    def cells(self, file: StudyFile, study: str) -> list[Cell]:
        """The cells of a valid file. Raises: RecipeError with every value that is not valid."""
        axes: dict[str, list[Any]] = {"recipe": [file.recipe]} if file.recipe else {}
        axes |= file.matrix
        self._check_keys(file)
        if math.prod(map(len, axes.values())) > MAX_CELLS:
            self._add(("matrix",), f"the matrix has more than {MAX_CELLS} cells", "remove values")
        recipes = {name: self._load_recipe(name, loc) for name, loc in _recipe_names(file)}
        self._raise_problems()
        fixed = [*assignments(file.set), *self.flags]
        for path, text in recipes.values():
            self._check_values(path, text, file, fixed)
        self._raise_problems()
        return list(self._expand(file, study, axes, recipes, fixed))

    def _check_keys(self, file: StudyFile) -> None:
        """Add a problem for each key that is given twice, or that moves what is measured."""
        flags: _RecipeKeys[str] = _RecipeKeys()
        for flag in self.flags:
            flags.add(flag.partition("=")[0].strip(), flag)
        earlier: _RecipeKeys[tuple[str, str]] = _RecipeKeys()
        for section in ("set", "search", "matrix"):
            for key in getattr(file, section):
                other = earlier.find(key)
                if other and other[1] != key:
                    message = f"`{key}` and `{other[1]}` of [{other[0]}] are one key"
                    self._add((section, key), message, "keep one", True)
                earlier.add(key, (section, key))
                if section != "set" and (same := flags.find(key)):
                    message = f"`{key}` is varied here, and `--set` gives it one value"
                    self._add((section, key), message, f"remove `--set {same}`, or this line", True)
        for key in file.search:
            if problem := _moves_the_metric(key, (file.study or Study()).metrics):
                self._add(("search", key), *problem, True)
        for key, values in file.matrix.items():
            seen: set[str] = set()
            for place, value in enumerate(values):
                if repr(value) in seen:
                    self._add(("matrix", key, place), f"{show(value)} is given twice", "remove one")
                seen.add(repr(value))

    def _load_recipe(self, name: Any, loc: Loc) -> tuple[Path, str]:
        """Path and text of a recipe that is valid with the flags; a problem is added otherwise."""
        if not isinstance(name, str):
            message = f"a recipe is a file, not {show(name)}"
            self._add(loc, message, 'such as "../recipes/tiny.toml"')
            return Path(), ""
        beside = self.path.parent / name
        try:
            loaded = recipe.load(beside if beside.is_file() else name, self.flags)
            if loaded.source is None:
                return loaded.path.absolute(), loaded.text
            hint = f"`{command('copy', name, 'mine.toml')}`, and name that file"
            self._add(loc, f"`{name}` is from elsewhere", hint)
        except RecipeError as error:
            for problem in error.problems:
                is_missing = problem.message.startswith(("there is no recipe", "there is no file"))
                where = self.where(loc, False) if is_missing else problem.where
                self.problems.append(Problem(problem.message, where, problem.hint))
        return Path(), ""

    def _check_values(self, path: Path, text: str, file: StudyFile, fixed: list[str]) -> None:
        """Add a problem for each value of [set], [search] and [matrix] that the recipe refuses."""
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
        """Add the problems that a recipe has with this value of a key."""
        if len(self.problems) >= MAX_PROBLEMS:
            self.num_unchecked += 1
            return
        if overrides.path_of(key) is None:
            self._add(loc, f"{show(key)} is not a dotted key", 'such as `"train.beta"`', True)
            return
        if loc[-1] in ("low", "high") and is_whole(key) and value == int(value):
            value = int(value)  # a range is read as two floats
        try:
            loading.load_text(text, path, [*flags, *assignments({key: value})])
        except RecipeError as error:
            for problem in error.problems:
                at_key = problem.message.startswith(("unknown", "stage "))
                self._add(loc[:2] if at_key else loc, problem.message, problem.hint, at_key)

    def _expand(
        self,
        file: StudyFile,
        study: str,
        axes: dict[str, list[Any]],
        recipes: dict[str, tuple[Path, str]],
        fixed: list[str],
    ) -> Iterator[Cell]:
        """The cells, each with a valid recipe. Raises: RecipeError."""
        settings, names = file.study or Study(), set()
        for index, values in enumerate(itertools.product(*axes.values())):
            chosen = dict(zip(axes, values, strict=True))
            path, text = recipes[chosen["recipe"]]
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
            self._check_cell(cell)
            if cell.name in names:
                hint = "recipes of a matrix need files of different names"
                self._add(("matrix",), f"two cells are called `{cell.name}`", hint)
                self._raise_problems()
            names.add(cell.name)
            yield cell

    def _check_cell(self, cell: Cell) -> None:
        """Raises: RecipeError when the values of a cell do not go together."""
        try:
            cell.load()
        except RecipeError as error:
            for problem in error.problems:
                message = f"cell {cell.name}: {problem.message}"
                self._add(("matrix",), message, problem.hint)
            self._raise_problems()

    def _add(self, loc: Loc, message: str, hint: str | None, at_key: bool = False) -> None:
        problem = Problem(message, self.where(loc, at_key), hint)
        if problem not in self.problems[-MAX_PROBLEMS:]:  # one of each recipe, say
            self.problems.append(problem)

    def _raise_problems(self) -> None:
        """Raises: RecipeError with the problems so far, if there are any."""
        if not self.problems:
            return
        first, others = self.problems[:MAX_PROBLEMS], self.problems[MAX_PROBLEMS:]
        hint = "correct the others first; the next check shows more"
        if others:
            first.append(Problem(f"and {len(others):,} more problems", others[0].where, hint))
        if self.num_unchecked:
            message = f"{self.num_unchecked:,} more values were not checked"
            first.append(Problem(message, str(self.path), hint))
        raise RecipeError(problems=first)


def _recipe_names(file: StudyFile) -> Iterator[tuple[Any, Loc]]:
    """Each recipe of a file as it is written there, and its place."""
    if file.recipe:
        yield file.recipe, ("recipe",)
    for number, name in enumerate(file.matrix.get("recipe", [])):
        yield name, ("matrix", "recipe", number)


class _RecipeKeys(Generic[T]):
    """Keys of a recipe with a value each. A key is the same in each way to write it, and
    `preset.KEY` is the same as `preset.NAME.KEY`, since it is meant for every preset."""

    def __init__(self) -> None:
        self._by_path: dict[Loc, T] = {}
        self._in_every_preset: dict[str | int, T] = {}
        self._in_one_preset: dict[str | int, T] = {}

    def add(self, key: str, value: T) -> None:
        path = overrides.path_of(key) or (key,)
        self._by_path.setdefault(path, value)
        if path[0] == "preset":
            presets = self._in_every_preset if len(path) == 2 else self._in_one_preset
            presets.setdefault(path[-1], value)

    def find(self, key: str) -> T | None:
        """The value of the first key that is the same as this one."""
        path = overrides.path_of(key) or (key,)
        if path in self._by_path or path[0] != "preset":
            return self._by_path.get(path)
        presets = self._in_one_preset if len(path) == 2 else self._in_every_preset
        return presets.get(path[-1])


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

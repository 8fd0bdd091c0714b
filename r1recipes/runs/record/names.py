"""Which run a name stands for: its folder, its recipe, or a piece of its id.

A recipe's name is its newest run, whatever became of it; trials of a study are not runs of a
recipe. Limits: only runs below the folder of runs have such names; others need their folder.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from r1recipes import recipe
from r1recipes.config import suggest
from r1recipes.errors import RecipeError, command, listed
from r1recipes.runs.record import Run, all_runs, last_runs

MIN_PIECE = 4
"""Characters of the shortest piece of a run's id that stands for it; assumed, as in git."""


class Ambiguous(RecipeError):
    """A piece of an id is in the names of several runs."""


@dataclass(frozen=True)
class Named:
    """A run, and why it is the one that a name stands for."""

    run: Run
    recipe: str | None = None
    """The recipe that was named, of which this is the newest run."""
    reason: str | None = None
    """`the newest of 3 runs of tiny`; None where the name is that of the folder."""


def find(runs_dir: Path, name: str) -> Run:
    """The run that a name stands for; see `look_up`. Raises: RecipeError when there is none."""
    return look_up(runs_dir, name).run


def look_up(runs_dir: Path, name: str) -> Named:
    """The run with this folder or name in `runs_dir`; the newest run of this recipe; or the only
    run with this piece in its id. Raises: RecipeError that lists the runs that come close.
    """
    for folder in (Path(name), runs_dir / name):
        if (folder / "record.json").is_file():
            return Named(Run(folder))
    title, runs = _recipe_name(name), all_runs(runs_dir)
    if parent := _folder_of_runs(runs_dir, name):
        return _newest_in(parent, title)
    if of_recipe := recipes_of(runs).get(title):
        return _newest(of_recipe, title)
    matching = [run for run in runs if len(name) >= MIN_PIECE and name in _id(run, runs_dir, name)]
    if len(matching) == 1:
        return Named(matching[0], reason=f"the only run with `{name}` in its name")
    if matching:
        newest_first = listed(str(run.folder) for run in reversed(matching))
        message = f"`{name}` is in the names of {len(matching)} runs"
        raise Ambiguous(message, hint=f"name more of one, the newest first: {newest_first}")
    raise _unknown(runs_dir, name, title, runs)


def _newest_in(folder: Path, title: str) -> Named:
    """The newest run in a folder of runs. Raises: RecipeError where they are trials of a study, or
    runs of several recipes."""
    inside = all_runs(folder)
    by_name = recipes_of(inside)
    if title in by_name or len(by_name) == 1:
        title = title if title in by_name else next(iter(by_name))
        return _newest(by_name[title], title)
    hint = f"name one of them, such as `{inside[-1].folder}`"
    if by_name:
        hint = f"name one of its recipes, for the newest run: {listed(by_name)}"
    elif (folder / "study.db").exists():
        hint += f"; `{command('study', title)}` shows this study"
    raise RecipeError(f"`{folder}` holds runs and is none itself", hint=hint)


def _newest(of_recipe: Sequence[Run], title: str) -> Named:
    count = len(of_recipe)
    reason = f"the newest of {count} runs of {title}" if count > 1 else f"the only run of {title}"
    return Named(of_recipe[-1], title, reason)


def recipes_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The name of each recipe that was run -> its runs, in their order; without trials."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        with suppress(RecipeError):  # a damaged folder does not hide the others
            record = run.read()
            if "study" not in record and record.get("recipe"):
                by_name.setdefault(record["recipe"], []).append(run)
    return by_name


def _recipe_name(name: str) -> str:
    """`tiny` of `tiny`, `runs/tiny`, `runs/tiny/` and `recipes/tiny.toml`."""
    last = Path(name).name
    return last.removesuffix(".toml")


def _folder_of_runs(runs_dir: Path, name: str) -> Path | None:
    """The folder with this name, if it holds runs."""
    folders = [Path(name), runs_dir / name]
    return next((each for each in folders if name and all_runs(each)), None)


def _id(run: Run, runs_dir: Path, name: str) -> str:
    """What a piece is looked for in: the folder's own name, or with its recipe where the piece has
    a slash."""
    return str(run.folder.relative_to(runs_dir)) if "/" in name else run.folder.name


def _unknown(runs_dir: Path, name: str, title: str, runs: Sequence[Run]) -> RecipeError:
    is_file = Path(name).suffix == ".toml"
    if is_file or title in [path.stem for path in recipe.shipped()]:
        hint = f"`{command('run', name if is_file else title)}` makes one"
        return RecipeError(f"there is no run of `{title}` in `{runs_dir}`", hint=hint)
    by_name = recipes_of(runs)
    hint = last_runs(runs_dir)
    if meant := suggest.nearest(name, by_name, 0.5):
        hint = f"did you mean `{meant}`? Its newest run is {by_name[meant][-1].folder}"
    return RecipeError(f"there is no run folder `{name}`", hint=hint)

"""What a user can do with a run that is not complete, in words: wait, resume it, or begin anew.

Limits: a failure is judged by its kind and its recorded hint; records of older versions have none.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1recipes.errors import RecipeError, command, program
from r1recipes.runs import lock

REPEATS = ("input", "nan", "oom", "reward")
"""Kinds of failures that come from the recipe, so that a resumed run would fail in the same way."""


def wait() -> str:
    """What to do about a run that is running."""
    return f"wait until it ends; `{command('list', 'runs')}` shows its progress"


def resume(folder: Path) -> str:
    """The way on for a run that was stopped or killed, or failed for the machine's sake."""
    return f"`{command('run', '--resume', folder)}` goes on"


def of_failed(
    folder: Path, record: Mapping[str, Any], recipe_file: Path, overrides: Sequence[str]
) -> str:
    """The way on for a failed run: to resume it where that can help, or else a new run with what
    the failure's hint says. `recipe_file` and `overrides` are those of the run."""
    error = record.get("error") or {}
    if error.get("kind") not in REPEATS:
        return resume(folder)
    hint = error.get("hint") or "change what it failed for"
    if "--resume" in hint:
        return str(hint)
    if "`--force`" in hint:
        forced = command("run", "--resume", folder, "--force")
        return f"it fails again unless forced: `{forced}` trains anyway"
    flags = [text.removeprefix("--set ") for text in re.findall(r"`(--set [^`]+)`", hint)]
    anew = lock.command(str(recipe_file), record.get("preset"), [*overrides, *flags])
    anew = program() + anew.removeprefix("r1recipes")
    if flags:
        return f"with the same settings it fails again; `{anew}` starts a new run with others"
    return f"with the same settings it fails again: {hint}; then `{anew}` starts a new run"


def recipe_file(base_dir: Path, name: str, copy: Path) -> Path:
    """The file of a recipe in its folder, as seen from here; `copy` where it is gone."""
    file, here = base_dir / f"{name}.toml", Path.cwd()
    if not file.is_file():
        return copy
    return file.relative_to(here) if file.is_relative_to(here) else file


def no_unfinished(
    runs_dir: Path, recipe_name: str | None, running: Sequence[Path], last_runs: str, trials: bool
) -> RecipeError:
    """The error where no run can be resumed; `running` are those at which a process works."""
    of_recipe = f" of `{recipe_name}`" if recipe_name else ""
    if running:
        message = f"the unfinished run{of_recipe} is running: {running[-1]}"
        return RecipeError(message, hint=wait())
    hint = last_runs
    if trials:
        hint = "a study goes on with the command that began it, `sweep`, or with `worker NAME`"
    return RecipeError(f"there is no unfinished run{of_recipe} in `{runs_dir}`", hint=hint)

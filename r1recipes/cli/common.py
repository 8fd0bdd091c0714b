"""What several commands share: options, runs by name, and files written on request."""

import argparse
from pathlib import Path
from typing import Any

from r1recipes.errors import R1RecipesError, RecipeError


def overridable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, such as train.max_steps=50; may be given several times",
    )


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist. Raises: RecipeError."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"`{path}` exists", hint="take another name") from error
    except OSError as error:
        raise unwritable(path, error) from error


def write_over(path: Path, text: str) -> None:
    """Write a file that is made, not edited, by the user. Raises: RunError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> R1RecipesError:
    """What an OSError of a write to `path` means to the user."""
    return R1RecipesError(f"`{path}` cannot be written: {error.strerror}")


def known_runs(names: list[str]) -> list[Any]:
    """The runs that are named, each once, or all of them, the oldest first. Raises: RecipeError."""
    from r1recipes import record, settings

    runs_dir = settings.load().runs_dir
    if not names:
        return record.runs(runs_dir)
    found = [record.find(runs_dir, name) for name in names]
    return list({run.folder.resolve(): run for run in found}.values())

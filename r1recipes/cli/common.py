"""What several commands share: options, and files written on request."""

import argparse
import os
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


def whole_number(text: str) -> int:
    """An option's value from 1 on. Raises: ArgumentTypeError."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"`{text}` is no whole number from 1 to 1000000")
    return int(text)


def offline_settings(offline: bool) -> Any:
    """Settings of this machine; with no request to the Hub if a flag or the environment says so.

    To be called before any library that reads HF_HUB_OFFLINE is imported.
    """
    from r1recipes import settings

    found = settings.load()
    if offline or found.offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        os.environ["HF_HUB_OFFLINE"] = "1"
        return found.model_copy(update={"offline": True})
    return found


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist. Raises: RecipeError."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"`{path}` exists", hint="take another name") from error
    except OSError as error:
        raise _unwritable(path, error) from error


def write_over(path: Path, text: str) -> None:
    """Write a file that is made, not edited, by the user. Raises: RunError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> R1RecipesError:
    return R1RecipesError(f"`{path}` cannot be written: {error.strerror}")

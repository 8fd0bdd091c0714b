"""What several commands share: options, others' texts, runs by name, files on request."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from r1recipes.errors import RecipeError, unwritable


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
    from r1recipes.machine import hub, settings

    found = settings.load()
    if offline or found.offline or hub.is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"
        return found.model_copy(update={"offline": True})
    return found


MAX_SHOWN_LINES = 400


def printable(text: str) -> str:
    """A text of somebody else that can do nothing to a terminal: no escapes, no hidden turns."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else f"\\U{ord(char):08x}"  # as in TOML
        for char in text
    )


def show_code(recipe: Any, base_dir: Path, *, whole: bool) -> None:
    """Say which code --allow-code lets run, with its hash; `whole`, also the code itself.

    Raises: RecipeError when a file or a function is not there.
    """
    from r1recipes.rewards import user_code

    codes = [user_code.look_up(name, base_dir) for name in _code(recipe)]
    for code in {code.path: code for code in codes}.values():
        lines = code.source.decode(errors="replace").splitlines()
        about = f"{len(lines)} lines, sha256 {code.sha256}"
        print(f"--allow-code lets this run: {printable(code.path)} ({about})", file=sys.stderr)
        if whole and len(lines) <= MAX_SHOWN_LINES:
            for line in lines:
                print(f"  | {printable(line)}", file=sys.stderr)
        elif whole:
            print("  too long to show here: read it there", file=sys.stderr)


def refuse_code(recipe: Any, base_dir: Path) -> None:
    """Say at once, and not after the data are loaded, that code was not allowed.

    Raises: RecipeError if the recipe has any.
    """
    from r1recipes import rewards

    rewards.load(_code(recipe)[:1], base_dir=base_dir, allow_code=False)


def _code(recipe: Any) -> list[str]:
    from r1recipes.rewards import user_code

    return [n for n in [*recipe.rewards, recipe.eval.reward] if user_code.is_user_code(n)]


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist. Raises: RecipeError."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"`{path}` exists", hint="take another name") from error
    except OSError as error:
        raise unwritable(path, error) from error


def check_place(path: Path) -> None:
    """Whether a file could be written there later. Raises: RecipeError."""
    try:
        with open(path, "a") if path.exists() else tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def write_over(path: Path, text: str) -> None:
    """Write a file that is made, not edited, by the user. Raises: RecipeError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def known_runs(names: list[str]) -> list[Any]:
    """The runs that are named, each once, or all of them, the oldest first. Raises: RecipeError."""
    from r1recipes import runs
    from r1recipes.machine import settings
    from r1recipes.runs import record

    runs_dir = settings.load().runs_dir
    if not names:
        return record.all_runs(runs_dir)
    found = [runs.find(runs_dir, name) for name in names]
    return list({run.folder.resolve(): run for run in found}.values())

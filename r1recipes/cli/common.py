"""What several commands share: options, settings, foreign text, user code, output files, runs."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from r1recipes.errors import (
    PlanError,
    Problem,
    RecipeError,
    shorten,
    unreadable,
    unwritable,
    visible,
)
from r1recipes.machine import RUNS_DIR, files

if TYPE_CHECKING:
    from rich.console import Console

    from r1recipes.cli.line.parser import Parser
    from r1recipes.machine.settings import Settings
    from r1recipes.planning.architectures import Origin
    from r1recipes.recipe import Loaded, Recipe
    from r1recipes.runs import Run
    from r1recipes.study.cell import Cell

    Commands = argparse._SubParsersAction[Parser]
    """What a module adds its commands to."""

LOCAL_SECTIONS = tuple("model data rewards examples stage cold_start eval judge".split())
"""Sections of a recipe that may name things of this machine."""
RUN_HELP = "a run: its folder, a piece of its id, or its recipe for the newest one"
MAX_SHOWN_LINES = 400
"""Lines of user code that are printed in full before it may run; assumed."""


def overridable(command: argparse.ArgumentParser) -> None:
    """Add `--set` to a command."""
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the recipe, such as train.max_steps=50; can be repeated",
    )


def judged(command: argparse.ArgumentParser) -> None:
    """Add `--allow-judge` to a command."""
    command.add_argument(
        "--allow-judge",
        action="store_true",
        help="send questions and completions to the judge of the recipe, where it is not on this "
        "machine",
    )


def whole_number(text: str) -> int:
    """The value of an option that is a positive integer. Raises: ArgumentTypeError."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 1 to 1000000")
    return int(text)


def offline_settings(offline: bool) -> Settings:
    """The settings of this machine, which forbid requests to the Hub if a flag or variable does.

    Call it before importing any library that reads HF_HUB_OFFLINE.
    """
    from r1recipes.machine import hub, settings

    loaded = settings.load()
    if offline or loaded.offline or hub.is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"
        return loaded.model_copy(update={"offline": True})
    return loaded


def screen() -> Console:
    """A console on the real stdout, also while libraries' own output is sent to a log."""
    from rich.console import Console

    from r1recipes.machine.terminal import Screen

    return Console(file=cast(IO[str], Screen()))  # a text stream with all that a console uses


def printable(text: str) -> str:
    """Foreign text for the terminal; its line breaks stay."""
    return visible(text, lines=True)


def located(problem: Problem) -> str:
    """The message, after its place if it has one; a long place is cut."""
    return f"{shorten(problem.where)}: {problem.message}" if problem.where else problem.message


def show_code(recipe: Recipe, base_dir: Path, *, whole: bool) -> None:
    """Print which code --allow-code lets run, with its hash, and with `whole` the code itself.

    Raises: RecipeError when a file or a function does not exist.
    """
    from r1recipes.rewards import user_code

    codes = [user_code.look_up(name, base_dir) for name in recipe.code_names]
    for code in {code.path: code for code in codes}.values():
        lines = code.source.decode(errors="replace").splitlines()
        about = f"{len(lines)} lines, sha256 {code.sha256}"
        print(f"--allow-code lets this run: {printable(code.path)} ({about})", file=sys.stderr)
        if whole and len(lines) <= MAX_SHOWN_LINES:
            for line in lines:
                print(f"  | {printable(line)}", file=sys.stderr)
        elif whole:
            print("  too long to show here: open the file to read it", file=sys.stderr)


def distinct_recipes(cells: Iterable[Cell]) -> list[Loaded]:
    """The recipes of a study, once for each choice of what is on this machine."""
    distinct: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        flags = [flag for flag in cell.overrides if flag.strip().startswith(LOCAL_SECTIONS)]
        distinct.setdefault((cell.recipe_path, *flags), cell)
    return [cell.load() for cell in distinct.values()]


def find_origin(loaded: Loaded, runs_dir: Path) -> Origin | None:
    """The run or adapter that a recipe names as its model. Raises: RecipeError.

    `runs.origin` is imported only where the name is one of this machine: it takes 20 ms.
    """
    from r1recipes.machine import hub

    name = loaded.recipe.model.name
    folders = (loaded.path.parent, Path(), runs_dir)
    on_disk = any((folder / files.named(name)).exists() for folder in folders)
    if not (on_disk or hub.has_adapter(name)):
        return None
    from r1recipes.runs import origin

    return origin.of_recipe(loaded, runs_dir)


def look_here(loaded: Loaded) -> None:
    """Refuse what a recipe names on this machine and cannot be used, before anything is loaded;
    print what is doubtful. Raises: RecipeError; PlanError (`refuse_folder`)."""
    from r1recipes.data import local

    refuse_folder(loaded)
    findings = local.look(loaded)
    for warning in findings.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if findings.problems:
        raise RecipeError(problems=findings.problems)


def refuse_folder(loaded: Loaded) -> None:
    """Refuse a local folder whose config.json is of a model that nothing here trains, before its
    other files are looked at: nobody should download weights for it. Raises: PlanError."""
    from r1recipes.planning import architectures

    if not (loaded.path.parent / loaded.recipe.model.name / "config.json").is_file():
        return
    try:
        refuse_model(loaded)
    except architectures.Refused:
        raise
    except PlanError:
        return  # a damaged config.json, which is told with what else the folder lacks


def refuse_model(loaded: Loaded, origin: Origin | None = None) -> str | None:
    """Refuse a model that nothing here trains, in the words of `plan`; a line where that cannot be
    told. Raises: PlanError."""
    from r1recipes.machine import hub
    from r1recipes.planning.fit import refusals

    recipe = loaded.recipe
    based = recipe.model_copy(update={"model": origin.base_model}) if origin else recipe
    return refusals.check_model(based, loaded.path.parent, offline=hub.is_offline())


def refuse_code(recipe: Recipe, base_dir: Path) -> None:
    """Refuse user code now, and not after the data are loaded. Raises: RecipeError."""
    from r1recipes import rewards

    rewards.load(recipe.code_names[:1], base_dir=base_dir, allow_code=False)


def refuse_judge(
    recipe: Recipe, *, allowed: bool, settings: Settings, is_foreign: bool = False
) -> None:
    """Say what --allow-judge lets be sent, or refuse a judge that needs it. Raises: RecipeError."""
    from r1recipes.rewards.judge import consent

    if recipe.judge is None or "judge" not in recipe.reward_names:
        return
    consent.refuse_unallowed(
        recipe.judge, allowed=allowed, offline=settings.offline, is_foreign=is_foreign
    )
    if allowed and recipe.judge.url:
        print(printable(consent.sentence(recipe.judge)), file=sys.stderr)


def check_allowed(
    recipe: Recipe,
    base_dir: Path,
    args: argparse.Namespace,
    settings: Settings,
    *,
    is_foreign: bool,
) -> None:
    """Show which code and judge the flags of a command allow, or refuse them. Raises: RecipeError.

    `is_foreign`: the recipe is from elsewhere, so its code is shown whole.
    """
    if args.allow_code:
        show_code(recipe, base_dir, whole=is_foreign)
    else:
        refuse_code(recipe, base_dir)
    refuse_judge(recipe, allowed=args.allow_judge, settings=settings, is_foreign=is_foreign)


def exists(path: Path) -> RecipeError:
    """The error for a file that must not exist yet."""
    return RecipeError(f"`{path}` exists", hint="choose another name")


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet, whole or not at all. Raises: RecipeError, RunError."""
    try:
        files.save_text(path, text, taken="refuse")
    except FileExistsError as error:
        raise exists(path) from error
    except OSError as error:
        raise unwritable(path, error) from error


def check_place(path: Path) -> None:
    """Check that a file can be written there later. Raises: RecipeError."""
    try:
        with open(path, "a") if path.exists() else tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def write_over(path: Path, text: str) -> None:
    """Write a generated page, JSON or CSV, which may replace an older one of its kind: that stays
    where the disk is full. Raises: RecipeError, RunError.
    """
    try:
        is_kin = not path.is_file() or _kind(path.read_bytes()) == _kind(text.encode())
    except OSError as error:
        raise unreadable(path, error) from error
    if not is_kin:
        message = "exists, and is not a file that this command has written"
        raise RecipeError.at(str(path), message, "name another file, or remove this one")
    try:
        files.save_text(path, text, taken="replace")
    except OSError as error:
        raise unwritable(path, error) from error


def _kind(content: bytes) -> str:
    """What a generated file is, by how it begins; a table of text where it is neither of both."""
    if content[:14].lower() == b"<!doctype html":
        return "page"
    if content[:1] in (b"{", b"["):
        return "JSON"
    return "table" if b"," in content.partition(b"\n")[0] else "text"


def runs_folder() -> Path:
    """The folder of the runs. Settings are read only where one can name another: their import takes
    longer than many a command."""
    if Path(".env").exists() or any(key.upper() == "R1RECIPES_RUNS_DIR" for key in os.environ):
        from r1recipes.machine import settings

        return settings.load().runs_dir
    return RUNS_DIR


def find_runs(arguments: list[str]) -> list[Run]:
    """The runs with these names, each once; without names all runs, the oldest first.

    Raises: RecipeError when there is no such run.
    """
    from r1recipes import runs
    from r1recipes.machine import settings

    runs_dir = settings.load().runs_dir
    if not arguments:
        return runs.all_runs(runs_dir)
    named = [named_run(runs_dir, argument) for argument in arguments]
    return list({run.folder.resolve(): run for run in named}.values())


def named_run(runs_dir: Path, argument: str) -> Run:
    """The run that an argument names. Where it is not the run's folder, a line on stderr says which
    run that is. Raises: RecipeError when there is none."""
    from r1recipes.runs.record import names

    named = names.look_up(runs_dir, argument)
    if named.reason:
        print(printable(f"{argument}: {named.run.folder}, {named.reason}"), file=sys.stderr)
    return named.run

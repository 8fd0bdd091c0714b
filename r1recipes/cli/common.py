"""What several commands share: options, settings, foreign text, user code, output files, runs,
GPUs to plan for."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from r1recipes.errors import Problem, RecipeError, program, shorten, unwritable, visible
from r1recipes.machine import RUNS_DIR, files
from r1recipes.machine.units import GIB

if TYPE_CHECKING:
    from rich.console import Console

    from r1recipes.cli.line.parser import Parser
    from r1recipes.machine.gpu import Gpu
    from r1recipes.machine.settings import Settings
    from r1recipes.planning.architectures import Origin
    from r1recipes.recipe import Loaded, Recipe
    from r1recipes.runs import Run
    from r1recipes.study.cell import Cell

    Commands = argparse._SubParsersAction[Parser]
    """What a module adds its commands to."""

LOCAL_SECTIONS = tuple("model data rewards examples stage cold_start eval judge".split())
"""Sections of a recipe that may name things of this machine."""
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
    print what is doubtful. Raises: RecipeError."""
    from r1recipes.data import local

    findings = local.look(loaded)
    for warning in findings.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if findings.problems:
        raise RecipeError(problems=findings.problems)


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


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet, whole or not at all. Raises: RecipeError, RunError."""
    try:
        files.save_text(path, text, taken="refuse")
    except FileExistsError as error:
        raise RecipeError(f"`{path}` exists", hint="choose another name") from error
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
    """Write a generated file, which may replace an older one: that stays where the disk is full.

    Raises: RecipeError, RunError.
    """
    try:
        files.save_text(path, text, taken="replace")
    except OSError as error:
        raise unwritable(path, error) from error


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


def no_memory(recipe: Recipe, preset_name: str) -> RecipeError:
    return RecipeError(
        f"preset `{preset_name}` runs on a CPU: there is no GPU memory to plan",
        hint=f"`--preset {_smallest(recipe)}`",
    )


def _smallest(recipe: Recipe) -> str:
    """The preset for the smallest GPU; of a recipe for the CPU its own."""
    from r1recipes.algorithms.base import preset_bytes

    return min((name for name in recipe.preset if name != "cpu"), key=preset_bytes, default="cpu")


def card_of(args: argparse.Namespace, recipe: Recipe) -> Gpu:
    """The GPU that the flags name, this machine's, or else the smallest of the preset's class.

    Raises: RecipeError, PlanError when there is none.
    """
    from r1recipes.algorithms.base import preset_bytes
    from r1recipes.machine import gpu
    from r1recipes.planning import fit

    if list(recipe.preset) == ["cpu"]:
        raise RecipeError(
            "this recipe is for the CPU: it has no preset for a GPU",
            hint=f"`{program()} plan phi4 --gpu t4` plans one that has",
        )
    if args.vram is not None:
        size = gib_of(args.vram)
        return _imagined(f"a card of {size:g} GiB", round(size * GIB), 8.0)
    if args.gpu is not None:
        return named_card(args.gpu)
    if at_hand := gpu.current():
        return at_hand
    if args.preset is None:
        raise RecipeError(
            "this machine has no NVIDIA GPU to plan for",
            hint="name a GPU, such as `--gpu t4` or `--vram 16`, or a preset, such as "
            f"`--preset {_smallest(recipe)}`",
        )
    if args.preset == "cpu" or args.preset not in recipe.preset:
        raise no_memory(recipe, fit.choose_preset(recipe, None, args.preset))
    from r1recipes.planning import proofs  # few calls come to this line

    size = proofs.class_bytes(args.preset) or preset_bytes(args.preset)
    return _imagined(f"the smallest card of {args.preset}", size, 8.0)


def named_card(name: str) -> Gpu:
    """A GPU of the catalogue. Raises: RecipeError with the reason, or GPUs of a similar name."""
    from r1recipes.machine import cards

    card = cards.find_gpu(name)
    if card is None:
        fault = cards.fault(name)
        raise RecipeError(fault.message, hint=fault.hint)
    return _imagined(card.name, card.usable_bytes, card.compute_capability)


def gib_of(text: str) -> float:
    """Memory in GiB, as `--vram` takes it. Raises: RecipeError, also for a card's name."""
    from r1recipes.machine import cards

    if cards.names_a_card(text):
        raise RecipeError(
            f"`--vram {text}` is the name of a card, not GiB of memory", hint=f"`--gpu {text}`"
        )
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    size = float(number[1]) if number else 0.0
    check_vram(size, text)
    return size


def check_vram(size: float, text: str) -> None:
    """Raises: RecipeError for GiB that no GPU has; `text` is what the user wrote."""
    if not 0.5 <= size <= 4096:
        raise RecipeError(
            f"`--vram {text}` is not the memory of a GPU, from 0.5 to 4096 GiB",
            hint="such as `--vram 16`",
        )


def _imagined(name: str, size: int, capability: float) -> Gpu:
    """A GPU that is not in this machine, with all its memory free."""
    from r1recipes.machine.gpu import Gpu

    return Gpu(0, name, size, size, capability, "")

"""`sweep` and `study`: search a recipe or run a matrix, and show the results."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.common import (
    distinct_recipes,
    find_origin,
    judged,
    look_here,
    overridable,
    printable,
    refuse_code,
    refuse_judge,
    refuse_model,
    write_over,
)
from r1recipes.errors import PlanError, RecipeError, RunError, Stopped, command, listed

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.settings import Settings
    from r1recipes.study.cell import Cell
    from r1recipes.study.driver import Supervisor
    from r1recipes.study.ray_workers import RayWorkers
    from r1recipes.study.trials import Trials

NAME = re.compile(r"[^\W_][\w .+=,-]{0,59}")
"""The name of a study. It is also the name of its folder, which may have at most 255 bytes, and in
the database it is followed by a slash and the name of a cell."""


def add(commands: Commands) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="search for the best values of a recipe's keys, or run a matrix",
    )
    sweep.add_argument("study", help="a study file, or the name of a shipped one")
    sweep.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of trials at a time (default: one for each GPU, or one)",
    )
    sweep.add_argument("--name", help="name of the study (default: the name of the file)")
    sweep.add_argument(
        "--n-trials", type=int, metavar="N", help="number of trials, overriding the file's"
    )
    sweep.add_argument(
        "--launcher",
        choices=("local", "ray"),
        default="local",
        help="start the workers on this machine or with Ray (default: %(default)s)",
    )
    add_storage(sweep)
    add_permissions(sweep)
    overridable(sweep)
    sweep.add_argument(
        "--dashboard",
        action="store_true",
        help="only print the command that starts Optuna's dashboard",
    )
    sweep.set_defaults(command=sweep_command)

    study = commands.add_parser("study", help="show a study, and write its report and best recipe")
    study.add_argument("study", help="the study's name")
    other = study.add_mutually_exclusive_group()
    other.add_argument("--compare", metavar="STUDY", help="compare with another study instead")
    other.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write all trials to a .csv or .json file instead",
    )
    other.add_argument(
        "--dashboard",
        action="store_true",
        help="only print the command that starts Optuna's dashboard",
    )
    add_storage(study)
    study.set_defaults(command=study_command)


def add_storage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--storage",
        metavar="URL",
        help="URL of the database (default: an SQLite file in the study's folder)",
    )


def add_permissions(command: argparse.ArgumentParser) -> None:
    command.add_argument("--offline", action="store_true", help="make no request to the Hub")
    command.add_argument(
        "--allow-code", action="store_true", help="run rewards from the recipe's own .py files"
    )
    judged(command)
    command.add_argument(
        "--force", action="store_true", help="train even if the probe sees nothing to learn from"
    )


def sweep_command(args: argparse.Namespace) -> int:
    from r1recipes.study import driver, loading

    if args.workers is not None and args.workers < 0:
        raise RecipeError(
            f"--workers {args.workers} is not a number of workers",
            hint="such as `--workers 1`; 0 only makes the study",
        )
    loaded = loading.load(args.study, args.overrides, args.name)
    if args.n_trials is not None:
        loaded = loading.with_trials(loaded, args.n_trials)
    settings, folder, url = place(args, loaded.name, is_new=True)
    if args.dashboard:
        return _dashboard(url)
    with driver.owned(folder):
        if args.workers != 0:
            check(args, loaded.cells, settings, here=args.launcher == "local")
        cells = driver.create_cells(loaded, folder, url)
        if args.workers == 0:
            print(f"study {loaded.name} is made; `{command('worker', loaded.name)}` adds a worker")
            return 0
        _drive(args, cells, folder, url, settings)
    return _print_result(cells, folder)


def check(args: argparse.Namespace, cells: list[Cell], settings: Settings, *, here: bool) -> None:
    """Refuse now what would fail in every trial, with `here` also what this machine cannot run.

    Raises: RecipeError, PlanError.
    """
    from r1recipes.study import driver
    from r1recipes.training import trackers

    offline = args.offline or settings.offline
    settings = settings.model_copy(update={"offline": offline})
    for cell in {cell.recipe_path: cell for cell in cells}.values():
        loaded = cell.load()
        if not args.allow_code:
            refuse_code(loaded.recipe, loaded.path.parent)
        refuse_judge(loaded.recipe, allowed=args.allow_judge, settings=settings)
        trackers.check(loaded.recipe.track, offline=offline)
    if here:
        driver.check_machine(cells, offline=offline)
        for loaded in distinct_recipes(cells):
            look_here(loaded)
    for loaded in distinct_recipes(cells):
        if line := refuse_model(loaded, find_origin(loaded, settings.runs_dir)):
            print(printable(f"note: {line}"), file=sys.stderr)


def _drive(
    args: argparse.Namespace, cells: list[Trials], folder: Path, url: str, settings: Settings
) -> None:
    """Start the workers, show the leaderboard, and wait until all trials are done."""
    from rich.console import Console

    from r1recipes.study import driver
    from r1recipes.study.leaderboard import progress
    from r1recipes.study.leaderboard.live import Board

    console = Console()
    with Board(console, cells) as board:
        if args.launcher == "ray":
            from r1recipes.study import ray_workers

            launched: RayWorkers | Supervisor = ray_workers.RayWorkers(
                cells[0].cell.study, url, args.workers or 1, flags(args), board.say
            )
        else:
            launched = make_supervisor(args, cells[0].cell.study, folder, url, settings, board.say)
        num_trials, number = sum(cell.cell.num_trials for cell in cells), launched.num_workers
        board.say(f"{num_trials} trials with {number} worker{'s' * (number != 1)}, in {folder}")
        try:
            driver.drive(cells, launched, board.look)
        except KeyboardInterrupt:
            raise Stopped(
                f"stopped after {progress(cells)}; no trial is lost",
                hint="the same command goes on with the others",
            ) from None


def make_supervisor(
    args: argparse.Namespace,
    name: str,
    folder: Path,
    url: str,
    settings: Settings,
    say: Callable[[str], None],
) -> Supervisor:
    """What starts the workers on this machine. Raises: PlanError when there are too few GPUs."""
    from r1recipes.machine import gpu
    from r1recipes.study import driver

    cards = gpu.visible()
    if "CUDA_VISIBLE_DEVICES" not in os.environ:  # which has an order of its own
        cards = sorted(cards, key=lambda card: -card.free_bytes)
    num_workers = getattr(args, "workers", 1)
    num_workers = max(1, len(cards)) if num_workers is None else num_workers
    if cards and num_workers > len(cards):
        raise PlanError(
            f"{num_workers} workers need {num_workers} GPUs, and there are {len(cards)}",
            hint=f"`--workers {len(cards)}`",
        )
    environment = {
        "R1RECIPES_STORAGE": url,  # not an argument, which every user of the machine can read
        "R1RECIPES_RUNS_DIR": str(settings.runs_dir.absolute()),
    }
    return driver.Supervisor(
        command=[sys.executable, "-m", "r1recipes", "worker", name, *flags(args)],
        num_workers=num_workers,
        log_dir=folder,
        environment=environment,
        gpus=[card.index for card in cards] if len(cards) > 1 else [],
        say=say,
    )


def flags(args: argparse.Namespace) -> list[str]:
    names = ("offline", "allow_code", "allow_judge", "force")
    return ["--" + name.replace("_", "-") for name in names if getattr(args, name)]


def study_command(args: argparse.Namespace) -> int:
    from r1recipes.study import database, results, trials

    _, folder, url = place(args, args.study)
    if args.dashboard:
        return _dashboard(url)
    cells = trials.load_cells(database.open_storage(url), args.study)
    if args.export:
        write_over(args.export, results.export(cells, args.export.suffix))
        return 0
    if args.compare:
        from r1recipes.report import study

        _, _, other_url = place(args, args.compare)
        others = trials.load_cells(database.open_storage(other_url), args.compare)
        print(study.comparison(cells, others), end="")
        return 0
    return _print_result(cells, folder)


def place(args: argparse.Namespace, name: str, is_new: bool = False) -> tuple[Settings, Path, str]:
    """Settings, the study's folder, and the URL of its database. Raises: RecipeError."""
    from r1recipes.machine import settings
    from r1recipes.study import database, loading

    own = settings.load()
    if not NAME.fullmatch(name):
        form = "letters, digits, spaces and . _ - + = , after a letter or a digit, at most 60"
        shown = f"a study is called by its name: {loading.what_is(name)}"
        hint = f"`--name NAME`: {form}" if is_new else shown
        raise RecipeError(f"a study cannot be called `{name}`", hint=hint)
    folder = own.runs_dir / name
    url = args.storage or own.storage
    file = folder.absolute() / "study.db"
    if url is None and "?" in str(file):  # in a database's URL it begins the options
        hint = "name another folder with R1RECIPES_RUNS_DIR"
        raise RecipeError(f"no study can be kept under `{own.runs_dir}`: it has a `?`", hint=hint)
    if url is None and not is_new and not file.exists():
        names = sorted(path.parent.name for path in own.runs_dir.glob("*/study.db"))
        hint = f"`{command('sweep', 'tiny')}` makes one"
        if names:
            hint = f"`{command('study', names[-1])}` shows one; there are: {listed(names)}"
        raise RecipeError(f"there is no study `{name}` in `{own.runs_dir}`", hint=hint)
    if url and not is_new and (missing := database.missing_file(url)):
        raise RecipeError(
            f"there is no database `{missing}`",
            hint=f"`{command('sweep', 'tiny', '--storage', url)}` makes one",
        )
    return own, folder, url or f"sqlite:///{file}"


def _dashboard(url: str) -> int:
    from r1recipes.study import database

    parsed = database.parse_url(url)
    psycopg = "" if parsed.get_backend_name() == "sqlite" else " 'psycopg[binary]'"
    shown = parsed.render_as_string().replace(":***@", "@")
    print(f"pip install optuna-dashboard{psycopg} && optuna-dashboard {shlex.quote(shown)}")
    if parsed.password:
        print("the password is left out: set PGPASSWORD", file=sys.stderr)
    return 0


def _print_result(cells: list[Trials], folder: Path) -> int:
    """Print the table, write the report and the best recipe. Returns the exit code.

    Raises: RunError when no trial is complete.
    """
    from rich.console import Console

    from r1recipes.machine import files
    from r1recipes.report import study
    from r1recipes.study import leaderboard, results

    console = Console(width=None if sys.stdout.isatty() else 160)
    is_open = any(not cell.is_done() for cell in cells)
    best_of_cells = [(cell, trial) for cell in cells if (trial := leaderboard.best(cell))]
    board = (
        results.matrix_table(cells)
        if cells[0].cell.axes
        else leaderboard.board(cells[0], leaderboard.TOP, console.width)
    )
    page, recipe_text, sentences = study.html(cells, folder), "", list[str]()
    if best_of_cells:  # all that may refuse the study comes before its table
        cell, trial = results.best_of(best_of_cells)
        recipe_text = results.best_recipe(cell, trial, folder.absolute())
        sentences = leaderboard.summary(cells, cell, trial)
    if is_open:
        console.print(leaderboard.progress(cells), highlight=False)
    console.print(board)
    files.check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "report.html", page)
    if not best_of_cells:
        console.print(f"report       {folder / 'report.html'}", markup=False, highlight=False)
        hint = "`sweep` with `--n-trials N` adds trials, with `--name NAME` it begins another study"
        going_on = f"`{command('worker', cells[0].cell.study)}` goes on with it"
        message = ["no trial is complete, so there is no best recipe", *leaderboard.failures(cells)]
        raise RunError("; ".join(message), hint=going_on if is_open else hint)
    files.write_text(folder / "best.toml", recipe_text)
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False)
    best = command("run", folder / "best.toml")
    console.print(f"best recipe  {best}", markup=False, highlight=False)
    console.print(f"report       {folder / 'report.html'}", markup=False, highlight=False)
    return 0

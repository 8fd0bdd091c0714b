"""`sweep`, `worker`, `study`: search a recipe, run a matrix, look at what came out."""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from r1recipes.cli.common import overridable, refuse_code, write_over
from r1recipes.errors import PlanError, RecipeError, RunError, Stopped

NAME = re.compile(r"[^\W_][\w .+=,-]{0,59}")
"""Of a study: of a folder, at most 255 bytes, and of its cells in the database up to a slash."""


def add(commands: argparse._SubParsersAction) -> None:
    sweep = commands.add_parser("sweep", help="search a recipe's values, or run a matrix")
    sweep.add_argument("study", help="a study file, or the name of one that comes with r1recipes")
    sweep.add_argument("--workers", type=int, metavar="N", help="default: one for each GPU, or one")
    sweep.add_argument("--name", help="of the study; default: the file's")
    sweep.add_argument("--n-trials", type=int, metavar="N", help="in place of the file's")
    sweep.add_argument(
        "--launcher", choices=("local", "ray"), default="local", help="what starts the workers"
    )
    _storage(sweep)
    _allowed(sweep)
    overridable(sweep)
    sweep.add_argument("--dashboard", action="store_true", help="print its command, start nothing")
    sweep.set_defaults(command=sweep_command)

    worker = commands.add_parser("worker", help="add a worker to a study, from any machine")
    worker.add_argument("study", help="the study's name")
    _storage(worker)
    _allowed(worker)
    worker.add_argument("--child", help=argparse.SUPPRESS)
    worker.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    worker.set_defaults(command=worker_command)

    study = commands.add_parser("study", help="table, report and best recipe of a study")
    study.add_argument("study", help="the study's name")
    other = study.add_mutually_exclusive_group()
    other.add_argument("--compare", metavar="STUDY", help="with another study")
    other.add_argument("--export", type=Path, metavar="FILE", help="all trials as .csv or .json")
    other.add_argument("--dashboard", action="store_true", help="print the command that starts it")
    _storage(study)
    study.set_defaults(command=study_command)


def _storage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--storage", metavar="URL", help="database; default: an SQLite file beside the trials"
    )


def _allowed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--offline", action="store_true", help="make no request to the Hub")
    command.add_argument("--allow-code", action="store_true", help="run the recipe's own rewards")
    command.add_argument("--force", action="store_true", help="train even without hope")


def sweep_command(args: argparse.Namespace) -> int:
    from r1recipes.study import driver as study_driver
    from r1recipes.study import loading

    if args.workers is not None and args.workers < 0:
        raise RecipeError(f"{args.workers} workers?", hint="`--workers 1`; 0 only makes the study")
    loaded = loading.load(args.study, args.overrides, args.name)
    if args.n_trials is not None:
        loaded = loading.with_trials(loaded, args.n_trials)
    settings, folder, url = _place(args, loaded.name, is_new=True)
    if args.dashboard:
        return _dashboard(url)
    with study_driver.owned(folder):
        if args.workers != 0:
            _check(args, loaded.cells, settings, here=args.launcher == "local")
        cells = study_driver.create_cells(loaded, folder, url)
        if args.workers == 0:
            joins = f"python -m r1recipes worker {shlex.quote(loaded.name)}"
            print(f"study {loaded.name} is made; `{joins}` joins")
            return 0
        _drive(args, cells, folder, url, settings)
    return _say_result(cells, folder)


def _check(args: Any, cells: Any, settings: Any, *, here: bool) -> None:
    """What would fail in every trial is said before the first; `here`, of this machine too.

    Raises: RecipeError, PlanError.
    """
    from r1recipes.study import driver as study_driver
    from r1recipes.training import trackers

    offline = args.offline or settings.offline
    for cell in {cell.recipe_path: cell for cell in cells}.values():
        loaded = cell.load()
        if not args.allow_code:
            refuse_code(loaded.recipe, loaded.path.parent)
        trackers.check(loaded.recipe.track, offline=offline)
    if here:
        study_driver.check_machine(cells, offline=offline)


def _drive(args: Any, cells: Any, folder: Path, url: str, settings: Any) -> None:
    from rich.console import Console

    from r1recipes.study import driver as study_driver
    from r1recipes.study.leaderboard import Board, progress

    console = Console()
    with Board(console, cells) as board:
        if args.launcher == "ray":
            from r1recipes.study import ray_workers

            launched = ray_workers.RayWorkers(
                cells[0].cell.study, url, args.workers or 1, _flags(args), board.say
            )
        else:
            launched = _supervisor(args, cells[0].cell.study, folder, url, settings, board.say)
        total, number = sum(cell.cell.num_trials for cell in cells), launched.num_workers
        board.say(f"{total} trials with {number} worker{'s' * (number != 1)}, in {folder}")
        try:
            study_driver.drive(cells, launched, board.look)
        except KeyboardInterrupt:
            raise Stopped(
                f"stopped after {progress(cells)}; none is lost",
                hint="the same command goes on with the rest",
            ) from None


def _supervisor(args: Any, name: str, folder: Path, url: str, settings: Any, say: Any) -> Any:
    from r1recipes.machine import gpu
    from r1recipes.study import driver as study_driver

    cards = gpu.gpus()
    if "CUDA_VISIBLE_DEVICES" not in os.environ:  # which has an order of its own
        cards = sorted(cards, key=lambda card: -card.free_bytes)
    wanted = getattr(args, "workers", 1)
    wanted = max(1, len(cards)) if wanted is None else wanted
    if cards and wanted > len(cards):
        raise PlanError(
            f"{wanted} workers need {wanted} GPUs, and there are {len(cards)}",
            hint=f"`--workers {len(cards)}`",
        )
    environment = {
        "R1RECIPES_STORAGE": url,  # not an argument, which everybody on the machine can read
        "R1RECIPES_RUNS_DIR": str(settings.runs_dir.absolute()),
    }
    return study_driver.Supervisor(
        command=[sys.executable, "-m", "r1recipes", "worker", name, *_flags(args)],
        num_workers=wanted,
        log_dir=folder,
        environment=environment,
        gpus=[card.index for card in cards] if len(cards) > 1 else [],
        say=say,
    )


def _flags(args: Any) -> list[str]:
    names = ("offline", "allow_code", "force")
    return ["--" + name.replace("_", "-") for name in names if getattr(args, name)]


def worker_command(args: argparse.Namespace) -> int:
    settings, folder, url = _place(args, args.study)
    if args.child:
        return _be_worker(args, settings, url)
    from rich.console import Console

    from r1recipes.machine import files
    from r1recipes.study import database, trials
    from r1recipes.study import driver as study_driver
    from r1recipes.study.leaderboard import Board

    files.check_writable(folder)
    cells = trials.load_cells(database.open_storage(url), args.study)
    _check(args, [found.cell for found in cells], settings, here=True)
    folder.mkdir(parents=True, exist_ok=True)
    with Board(Console(), cells) as board:
        supervisor = _supervisor(args, args.study, folder, url, settings, board.say)
        supervisor.log_name = f"worker-{os.getpid()}"
        board.say(f"a worker of study {args.study}; its log is in {folder}")
        study_driver.drive(cells, supervisor, board.look)
        board.say("nothing is left to do")
    return 0


def _be_worker(args: argparse.Namespace, settings: Any, url: str) -> int:
    from r1recipes.machine import gpu, hub
    from r1recipes.machine.processes import die_with
    from r1recipes.study import driver as study_driver

    if args.parent:
        die_with(args.parent)
    if args.offline or hub.is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"  # before any library that reads it is imported
        settings = settings.model_copy(update={"offline": True})
    share = gpu.cores() // int(args.child.split("/")[1])
    from r1recipes.study import database, trials, worker
    from r1recipes.training.stages import Options

    cells = trials.load_cells(database.open_storage(url), args.study)
    # An engine that just ended may not have given all memory back, so that is not judged by.
    study_driver.check_machine([c.cell for c in cells], offline=settings.offline, refuse=False)
    options = Options(allow_code=args.allow_code, force=args.force)
    return worker.main(cells, worker.Place(settings, max(1, share), options))


def study_command(args: argparse.Namespace) -> int:
    from r1recipes.study import database, results, trials

    _, folder, url = _place(args, args.study)
    if args.dashboard:
        return _dashboard(url)
    cells = trials.load_cells(database.open_storage(url), args.study)
    if args.export:
        write_over(args.export, results.export(cells, args.export.suffix))
        return 0
    if args.compare:
        from r1recipes.report import study

        _, _, other_url = _place(args, args.compare)
        others = trials.load_cells(database.open_storage(other_url), args.compare)
        print(study.comparison(cells, others), end="")
        return 0
    return _say_result(cells, folder)


def _place(args: argparse.Namespace, name: str, is_new: bool = False) -> tuple[Any, Path, str]:
    """Settings, the study's folder, and the URL of its database. Raises: RecipeError."""
    from r1recipes.machine import settings
    from r1recipes.study import database

    found = settings.load()
    if not NAME.fullmatch(name):
        form = "letters, digits, spaces and . _ - + = , after a letter or a digit, at most 60"
        hint = f"`--name NAME`: {form}" if is_new else "its name, not its folder or file"
        raise RecipeError(f"a study cannot be called `{name}`", hint=hint)
    folder = found.runs_dir / name
    url = args.storage or found.storage
    file = folder.absolute() / "study.db"
    if url is None and "?" in str(file):  # begins the options of a database's URL
        hint = "name another folder with R1RECIPES_RUNS_DIR"
        raise RecipeError(f"no study can be kept under `{found.runs_dir}`: it has a `?`", hint=hint)
    if url is None and not is_new and not file.exists():
        known = sorted(path.parent.name for path in found.runs_dir.glob("*/study.db"))
        hint = "there are: " + ", ".join(known) if known else "`r1recipes sweep FILE` makes one"
        raise RecipeError(f"there is no study `{name}` in `{found.runs_dir}`", hint=hint)
    if url and not is_new and (missing := database.missing_file(url)):
        raise RecipeError(f"there is no database `{missing}`", hint="`r1recipes sweep` makes one")
    return found, folder, url or f"sqlite:///{file}"


def _dashboard(url: str) -> int:
    from r1recipes.study import database

    found = database.parse_url(url)
    driver = "" if found.get_backend_name() == "sqlite" else " 'psycopg[binary]'"
    shown = found.render_as_string().replace(":***@", "@")
    print(f"pip install optuna-dashboard{driver} && optuna-dashboard {shlex.quote(shown)}")
    if found.password:
        print("without the password: put it into PGPASSWORD", file=sys.stderr)
    return 0


def _say_result(cells: Any, folder: Path) -> int:
    """The table, the best recipe and the report. Returns the exit code."""
    from rich.console import Console

    from r1recipes.machine import files
    from r1recipes.report import study
    from r1recipes.study import leaderboard, results

    console = Console(width=None if sys.stdout.isatty() else 160)
    is_open = any(not cell.is_done() for cell in cells)
    if is_open:
        console.print(leaderboard.progress(cells), highlight=False)
    if cells[0].cell.axes:
        console.print(results.matrix_table(cells))
    else:
        console.print(leaderboard.board(cells[0], leaderboard.TOP, console.width))
    files.check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = [(trials, trial) for trials in cells if (trial := leaderboard.best(trials))]
    files.write_text(folder / "report.html", study.html(cells))
    if not found:
        console.print(f"report       {folder / 'report.html'}", markup=False, highlight=False)
        hint = "`sweep` adds trials with `--n-trials N`, or begins another study with `--name NAME`"
        message = ["no trial is complete, so there is no best recipe", *leaderboard.failures(cells)]
        raise RunError("; ".join(message), hint="`sweep` goes on with it" if is_open else hint)
    trials, trial = results.best_of(found)
    text = results.best_recipe(trials, trial, folder.absolute())
    files.write_text(folder / "best.toml", text)
    for sentence in leaderboard.summary(cells, trials, trial):
        console.print(sentence, markup=False, highlight=False)
    best = shlex.quote(str(folder / "best.toml"))
    console.print(f"best recipe  python -m r1recipes run {best}", markup=False, highlight=False)
    console.print(f"report       {folder / 'report.html'}", markup=False, highlight=False)
    return 0

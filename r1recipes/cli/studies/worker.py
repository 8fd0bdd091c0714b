"""`worker`: run trials of a study that a `sweep` on this machine or another one has made."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from r1recipes.cli.studies.study import add_permissions, add_storage, check, make_supervisor, place

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.settings import Settings
    from r1recipes.training import Observer


def add(commands: Commands) -> None:
    worker = commands.add_parser("worker", help="add a worker to a study, from any machine")
    worker.add_argument("study", help="the study's name")
    add_storage(worker)
    add_permissions(worker)
    worker.add_argument("--child", help=argparse.SUPPRESS)
    worker.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    worker.set_defaults(command=worker_command)


def worker_command(args: argparse.Namespace) -> int:
    settings, folder, url = place(args, args.study)
    if args.child:
        return _be_worker(args, settings, url)
    from rich.console import Console

    from r1recipes.machine import files
    from r1recipes.study import database, driver, trials
    from r1recipes.study.leaderboard.live import Board

    files.check_writable(folder)
    cells = trials.load_cells(database.open_storage(url), args.study)
    check(args, [each.cell for each in cells], settings, here=True)
    folder.mkdir(parents=True, exist_ok=True)
    with Board(Console(), cells) as board:
        supervisor = make_supervisor(args, args.study, folder, url, settings, board.say)
        supervisor.log_name = f"worker-{os.getpid()}"
        board.say(f"a worker of study {args.study}; its log is in {folder}")
        driver.drive(cells, supervisor, board.look)
        board.say("all trials are done")
    return 0


def _be_worker(args: argparse.Namespace, settings: Settings, url: str) -> int:
    """Run trials in this process, which a supervisor started. Returns the exit code."""
    from r1recipes.machine import host, hub
    from r1recipes.machine.processes import die_with
    from r1recipes.study import driver

    if args.parent:
        die_with(args.parent)
    if args.offline or hub.is_offline():
        os.environ["HF_HUB_OFFLINE"] = "1"  # before any library that reads it is imported
        settings = settings.model_copy(update={"offline": True})
    share = host.cores() // int(args.child.split("/")[1])
    from r1recipes.study import database, trials, worker
    from r1recipes.training.prepared import Options

    cells = trials.load_cells(database.open_storage(url), args.study)
    # An engine that just ended may not have freed all its memory, so free memory does not count.
    driver.check_machine([c.cell for c in cells], offline=settings.offline, must_fit=False)
    options = Options(args.allow_code, args.allow_judge, force=args.force)
    return worker.main(cells, worker.Place(settings, max(1, share), options, _trial_observers))


def _trial_observers(note: Callable[[str], None]) -> list[Observer]:
    """The trackers and the report page of one trial."""
    from r1recipes.report.run import Live
    from r1recipes.training.trackers import Trackers

    return [Trackers(note), Live()]

"""Run a list of commands, one at a time on each GPU of this machine.

A case writes its output to FOLDER/<name>.log. A case that has a log is done or taken, also by
another process on this folder: remove its log to try it again. Ctrl-C ends the cases that are
running and removes their logs. Limits: one machine; NVIDIA GPUs alone, unless indices are given.
"""

import argparse
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1recipes.machine.gpu import visible


@dataclass(frozen=True)
class Case:
    """A command, and about how many seconds it takes."""

    name: str
    command: Sequence[str]
    seconds: float


class Queue:
    """The cases of a list that nobody has taken, for several threads and processes."""

    def __init__(self, cases: Sequence[Case], folder: Path, seconds: float):
        self.cases, self.folder = list(cases), folder
        self.end = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.running: dict[int, Path] = {}
        """Log of each running case, by its process group."""

    def next(self) -> tuple[Case, float] | None:
        """A case and the seconds that it may take; None where none is left or in time."""
        with self.lock:
            seconds = self.end - time.monotonic()
            in_time = (case for case in self.cases if case.seconds < seconds)
            case = next((case for case in in_time if take(case, self.folder)), None)
            return (case, seconds - 5) if case else None

    def stop(self) -> None:
        """Hand out no more cases, and end those that are running."""
        with self.lock:
            self.cases.clear()
        for group, log in list(self.running.items()):
            kill_group(group)
            log.unlink()

    def work(self, gpu: str) -> None:
        """Run cases on one GPU until none is left."""
        while taken := self.next():
            self.run(*taken, gpu)

    def run(self, case: Case, limit_s: float, gpu: str) -> None:
        """Run one case on one GPU, and print how it ended."""
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
        began = time.monotonic()
        with open(self.folder / f"{case.name}.log", "w") as log:
            process = subprocess.Popen(
                case.command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            self.running[process.pid] = Path(log.name)
            try:
                ending = str(process.wait(timeout=limit_s))
            except subprocess.TimeoutExpired:
                ending = "timeout"
            finally:
                del self.running[process.pid]
                kill_group(process.pid)
        print(f"{case.name} on GPU {gpu}: {ending}, {time.monotonic() - began:.0f} s", flush=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every benchmark that runs a list: --seconds, --only, --gpus."""
    parser.add_argument(
        "--seconds",
        type=float,
        default=1e9,
        help="when the last case must end; no case is begun that would not end in time",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cases alone")
    parser.add_argument(
        "--gpus", nargs="+", metavar="INDEX", help="default: all; an index twice: two cases on it"
    )


def run_all(cases: Sequence[Case], folder: Path, args: argparse.Namespace) -> None:
    """Run the cases with the flags of `add_flags`, and say how many are left."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [case for case in cases if not args.only or case.name in args.only]
    queue = Queue(chosen, folder, args.seconds)
    gpus = args.gpus or [str(card.index) for card in visible()]
    threads = [threading.Thread(target=queue.work, args=(gpu,)) for gpu in gpus]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        queue.stop()
        raise
    untried = [case for case in chosen if not (folder / f"{case.name}.log").exists()]
    print(len(untried), "cases left")


def take(case: Case, folder: Path) -> bool:
    """Begin the log of a case; false where it has begun already."""
    try:
        (folder / f"{case.name}.log").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def kill_group(group: int) -> None:
    """End whatever a case may have left running, so that the card is free for the next one."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        pass

"""Rehearse every case of a list, one at a time on each GPU of this machine.

    python -m benchmarks.memory.rehearse CASES.toml FOLDER [--seconds N] [--only NAME...]
                                         [--gpus INDEX...]

Writes FOLDER/<case>.json, the proof or the list of proofs, and FOLDER/<case>.log. A case that has
a log is done or taken, also by another process on this folder: remove its log to try it again.
Ctrl-C ends the cases that are running and removes their logs. With --seconds no case is begun that
would not end in time. Limits: one machine; NVIDIA GPUs alone.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import tomli

from r1recipes.machine.gpu import visible

CASE_S = 150
"""Seconds of a usual case, for --seconds (measured, H200, the cases of cases.toml)."""
RUNNING: dict[int, Path] = {}
"""Log of each running case, by its process group."""
Case = dict[str, Any]
"""A [[case]] of the list: name, recipe, and perhaps preset, vram, steps, lengths, seconds, set,
batches."""


class Queue:
    """The cases of a list that nobody has taken, for several threads and processes."""

    def __init__(self, cases: list[Case], folder: Path, end: float):
        self.cases, self.folder, self.end = cases, folder, end
        self.lock = threading.Lock()

    def next(self) -> tuple[Case, float] | None:
        """A case and the seconds that it may take; None where none is left or in time."""
        with self.lock:
            seconds = self.end - time.monotonic()
            in_time = (case for case in self.cases if case.get("seconds", CASE_S) < seconds)
            case = next((case for case in in_time if take(case, self.folder)), None)
            return (case, seconds - 5) if case else None

    def stop(self) -> None:
        """Hand out no more cases, and end those that are running."""
        with self.lock:
            self.cases.clear()
        for group, log in list(RUNNING.items()):
            kill_group(group)
            log.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", type=Path, help="a TOML file with [[case]] tables")
    parser.add_argument("folder", type=Path, help="where proofs and logs go")
    parser.add_argument("--seconds", type=float, default=1e9, help="when the last case must end")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cases alone")
    parser.add_argument("--gpus", nargs="+", metavar="INDEX", help="default: all")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    listed = tomli.loads(args.cases.read_text())["case"]
    cases = [case for case in listed if not args.only or case["name"] in args.only]
    queue = Queue(cases, args.folder, time.monotonic() + args.seconds)

    def work(gpu: str) -> None:
        while taken := queue.next():
            case, limit_s = taken
            rehearse(case, gpu, args.folder, limit_s)

    gpus = args.gpus or [str(card.index) for card in visible()]
    threads = [threading.Thread(target=work, args=(gpu,)) for gpu in gpus]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        queue.stop()
        raise
    untried = [case for case in cases if not (args.folder / f"{case['name']}.log").exists()]
    print(len(untried), "cases left")


def take(case: Case, folder: Path) -> bool:
    """Begin the log of a case; false where it has begun already."""
    try:
        (folder / f"{case['name']}.log").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def rehearse(case: Case, gpu: str, folder: Path, limit_s: float) -> None:
    """Run `rehearse` for one case on one GPU, and print how it ended."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    began = time.monotonic()
    with open(folder / f"{case['name']}.log", "w") as log:
        process = subprocess.Popen(
            command(case, folder), env=environment, stdout=log, stderr=log, start_new_session=True
        )
        RUNNING[process.pid] = Path(log.name)
        try:
            ending = str(process.wait(timeout=limit_s))
        except subprocess.TimeoutExpired:
            ending = "timeout"
        finally:
            del RUNNING[process.pid]
            kill_group(process.pid)
    print(f"{case['name']} on GPU {gpu}: {ending}, {time.monotonic() - began:.0f} s", flush=True)


def command(case: Case, folder: Path) -> list[str]:
    """The command line of a case."""
    proof = folder / f"{case['name']}.json"
    line = [sys.executable, "-m", "r1recipes", "rehearse", case["recipe"], "--proof", str(proof)]
    for flag in ("vram", "preset", "steps", "lengths"):
        if flag in case:
            line += [f"--{flag}", str(case[flag])]
    for override in case.get("set", []):
        line += ["--set", override]
    if "batches" in case:
        line += ["--batches", *map(str, case["batches"])]
    return line


def kill_group(group: int) -> None:
    """End whatever a case may have left running, so that the card is free for the next one."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()

"""Rehearse every case of a list, one at a time on each GPU of this machine.

    python benchmarks/rehearse_all.py CASES.toml FOLDER [--seconds N] [--only NAME...] [--gpus N...]

Writes FOLDER/<case>.json, the proof or the list of proofs, and FOLDER/<case>.log. A case that has
a log is done or taken, also by another process on this folder: without its log it is tried again.
Ctrl-C ends the cases that go on and takes their logs away.
With --seconds no case is begun that would not end in time.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import tomli

from r1recipes.machine.gpu import visible

CASE_S = 150
"""Seconds of a usual case, for --seconds."""
RUNNING: dict[int, Path] = {}
"""Process group of each case that goes on, and its log."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--gpus", nargs="+", help="indices; default: all")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    every = tomli.loads(args.cases.read_text())["case"]
    cases = [case for case in every if not args.only or case["name"] in args.only]
    lock, end = threading.Lock(), time.monotonic() + args.seconds

    def work(gpu: str) -> None:
        while True:
            with lock:
                left = end - time.monotonic()
                in_time = (case for case in cases if case.get("seconds", CASE_S) < left)
                case = next((case for case in in_time if take(case, args.folder)), None)
                if case is None:
                    return
            rehearse(case, gpu, args.folder, left - 5)

    every_gpu = [str(card.index) for card in visible()]
    threads = [threading.Thread(target=work, args=(gpu,)) for gpu in args.gpus or every_gpu]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:  # else each thread would go through all that is left
        with lock:
            cases.clear()
        for group, log in list(RUNNING.items()):
            kill_group(group)
            log.unlink()
        raise
    left = [case for case in cases if not (args.folder / f"{case['name']}.log").exists()]
    print(len(left), "cases left")


def take(case: dict, folder: Path) -> bool:
    """Begin the log of a case; false where it has begun already."""
    try:
        (folder / f"{case['name']}.log").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def rehearse(case: dict, gpu: str, folder: Path, limit_s: float) -> None:
    proof = folder / f"{case['name']}.json"
    command = [sys.executable, "-m", "r1recipes", "rehearse", case["recipe"], "--proof", str(proof)]
    for flag in ("vram", "preset", "steps"):
        if flag in case:
            command += [f"--{flag}", str(case[flag])]
    for override in case.get("set", []):
        command += ["--set", override]
    if "batches" in case:
        command += ["--batches", *map(str, case["batches"])]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    began = time.monotonic()
    with open(folder / f"{case['name']}.log", "w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        RUNNING[process.pid] = Path(log.name)
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = "timeout"
        finally:
            del RUNNING[process.pid]
            kill_group(process.pid)
    print(f"{case['name']} on GPU {gpu}: {code}, {time.monotonic() - began:.0f} s", flush=True)


def kill_group(group: int) -> None:
    """End what a case may have left, so that the card is free for the next one."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()

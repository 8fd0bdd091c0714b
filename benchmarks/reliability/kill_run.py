"""Kill the tiny run at random moments, resume each, and compare with a run that was not killed.

    python -m benchmarks.reliability.kill_run [--kills 20] [--recipe recipes/tiny.toml]
                                              [--set KEY=VALUE]...

Each kill is a SIGKILL of the whole process group at a uniformly random moment of the time that the
uninterrupted run took, in a run of its own, which is then resumed. Two at a time by default. Writes
benchmarks/reliability/results/kill_run.json. Limits: Linux; `--folder` must not exist; a run that
ends before its moment counts as "ended before".
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import about
from r1recipes.machine import files
from r1recipes.runs.record import Run

RESULT = Path(__file__).parent / "results" / "kill_run.json"
CLOCK = ("step_time", "num_tokens", "time/")
"""Beginnings of the metrics that depend on the machine's speed."""


def launch(*arguments: object) -> subprocess.Popen[bytes]:
    """`python -m r1recipes run ...` in a process group of its own."""
    command = [sys.executable, "-m", "r1recipes", "run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def metrics(run: Run) -> list[dict[str, Any]]:
    """The metrics of a run that another run on the same machine must repeat."""
    rows = files.read_lines(run.metrics)
    return [{k: v for k, v in row.items() if not k.startswith(CLOCK)} for row in rows]


def last_stage(run: Run) -> str:
    """What the run had finished when it was killed."""
    if not run.record.exists():
        return "before the run folder"
    stages = list(run.read()["duration_s"])
    steps = len(files.read_lines(run.metrics))
    return f"after {stages[-1] if stages else 'nothing'}, {steps} steps"


def kill_and_resume(
    number: int, after_s: float, args: argparse.Namespace, whole: Run
) -> dict[str, Any]:
    """Start a run, kill it after some seconds, resume it, and compare it with the whole one."""
    run = Run(args.folder / f"killed-{number}")
    process = launch(args.recipe, "--run-dir", run.folder, *flags(args))
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    ended_before = process.wait() == 0
    stage = "ended before" if ended_before else last_stage(run)
    again = ["--resume", run.folder]
    if not run.record.exists():  # nothing was begun: a user types the same command again
        again = [args.recipe, "--run-dir", run.folder, *flags(args)]
    code = launch(*again).wait()
    row = {
        "killed_after_s": round(after_s, 1),
        "killed": stage,
        "exit_code": code,
        "status": run.read()["status"],
        "same_metrics": metrics(run) == metrics(whole),
        "same_answers": all(
            run.evaluation(when).read_bytes() == whole.evaluation(when).read_bytes()
            for when in ("before", "after")
        ),
    }
    print(row, flush=True)
    return row


def flags(args: argparse.Namespace) -> list[str]:
    return [part for override in args.overrides for part in ("--set", override)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--recipe", default="recipes/tiny.toml")
    parser.add_argument("--folder", type=Path, default=Path("runs/kill-run"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    began = time.monotonic()
    assert launch(args.recipe, "--run-dir", args.folder / "whole", *flags(args)).wait() == 0
    whole_s = time.monotonic() - began
    whole, rng = Run(args.folder / "whole"), random.Random(20)
    moments = [rng.uniform(0, whole_s) for _ in range(args.kills)]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(kill_and_resume, n, s, args, whole) for n, s in enumerate(moments)]
        rows = [job.result() for job in jobs]
    result = {
        "recipe": args.recipe,
        "overrides": args.overrides,
        "uninterrupted_s": round(whole_s, 1),
        "kills": rows,
        "all_finished": all(r["exit_code"] == 0 and r["status"] == "complete" for r in rows),
        "all_same": all(r["same_metrics"] and r["same_answers"] for r in rows),
    }
    about.write(RESULT, result)


if __name__ == "__main__":
    main()

"""A 2 x 2 x 3 matrix of real runs, interrupted three ways and resumed: each cell runs once.

    python -m benchmarks.studies.matrix [--seed N]

Two workers on a small recipe. A worker gets SIGKILL, the driver gets SIGKILL, the driver gets
Ctrl-C, in an order and at moments drawn by the seed; the same command then goes on. Writes
benchmarks/studies/results/matrix.json. The exit code is 1 if a cell ran twice or not at all.
Limits: Linux, one machine, SQLite.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import about
from benchmarks.reliability.kill_sweep import SHORT, start, workers, write_study
from r1recipes.study import database, results, trials

RESULT = Path(__file__).parent / "results" / "matrix.json"
STUDY = f"""\
format = 1
recipe = "recipe.toml"

{SHORT.format(steps=20, save_steps=5)}
[matrix]
"train.learning_rate" = [1e-3, 3e-3]
"train.beta" = [0.0, 0.04]
seed = [1, 2, 3]
"""
NUM_CELLS = 12
FAREWELL_S = 130
"""Seconds for the driver to end after a signal: its workers save first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(folder, STUDY)
        url = f"sqlite:///{folder}/study.db"
        began = time.monotonic()
        events = torment(folder, url, random.Random(args.seed))
        counts = count(folder, url) | {"wall_s": round(time.monotonic() - began, 1)}
        print((folder / "log").read_text())
    result = {"seed": args.seed, "events": events, "found": counts}
    print(json.dumps(result, indent=1))
    about.write(RESULT, result)
    once = counts["cells"] == counts["finished"] == counts["runs_complete"] == NUM_CELLS
    sys.exit(0 if once and not counts["open"] and not counts["left_processes"] else 1)


def torment(folder: Path, url: str, rng: random.Random) -> list[dict[str, Any]]:
    """Drive the matrix to its end through three interruptions. Returns what was done and when."""
    interruptions = ["kill -9 of a worker", "kill -9 of the driver", "Ctrl-C"]
    rng.shuffle(interruptions)
    began = time.monotonic()
    events: list[dict[str, Any]] = []
    driver = start(folder, url)
    try:
        for interruption in interruptions:
            wait_for_work(folder, driver, rng.uniform(4, 10))
            events.append({"after_s": round(time.monotonic() - began, 1), "what": interruption})
            if interruption.endswith("worker"):
                os.kill(rng.choice(workers(folder)), signal.SIGKILL)
                continue
            driver.send_signal(signal.SIGINT if interruption == "Ctrl-C" else signal.SIGKILL)
            events[-1]["exit_code"] = driver.wait(FAREWELL_S)
            time.sleep(1)  # the kernel ends the workers of a dead driver
            events[-1]["left_processes"] = len(workers(folder))
            driver = start(folder, url)
        assert driver.wait() == 0, (folder / "log").read_text()
    finally:
        driver.kill()  # its workers end with it
    return events


def wait_for_work(folder: Path, driver: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a new cell trains, and `seconds` longer."""
    earlier = set(folder.glob("runs/study/*/metrics.jsonl"))
    while set(folder.glob("runs/study/*/metrics.jsonl")) == earlier:
        assert driver.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    time.sleep(seconds)


def count(folder: Path, url: str) -> dict[str, Any]:
    """Cells, their trials, and the run folders that went to their end."""
    cells = trials.load_cells(database.open_storage(url), "study")
    every = [trial for cell in cells for trial in cell.all()]
    runs = [json.loads(p.read_text()) for p in folder.glob("runs/study/*/record.json")]
    return {
        "cells": len(cells),
        "finished": sum(map(trials.is_finished, every)),
        "finished_in_each": sorted({sum(map(trials.is_finished, c.all())) for c in cells}),
        "open": sum(not trial.state.is_finished() for trial in every),
        "died": sum(trial.state.name == "FAIL" and not trials.is_counted(trial) for trial in every),
        "runs": len(runs),
        "runs_complete": sum(run["status"] == "complete" for run in runs),
        "resumed_runs": sum(run["attempts"] > 1 for run in runs),
        "left_processes": len(workers(folder)),
        "table": [
            {"axes": row.axes, "mean": row.mean, "interval": row.interval, "best": row.is_best}
            for row in results.matrix_rows(cells)
        ],
    }


if __name__ == "__main__":
    main()

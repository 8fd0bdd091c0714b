"""A 2 x 2 x 3 matrix of real runs, interrupted three ways and resumed: each cell runs once.

    python -m benchmarks.sweep_matrix [SEED]

Two workers on a small recipe. A worker gets SIGKILL, the driver SIGKILL, the driver Ctrl-C, in an
order and at moments drawn by SEED; the same command then goes on. Writes
benchmarks/results/sweep_matrix.json.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sweep_kill import start, workers
from r1recipes.machine import files, host, packages
from r1recipes.study import database, results, trials
from tests.conftest import SMALL

STUDY = """\
format = 1
recipe = "recipe.toml"

[set]
"train.max_steps" = 20
"train.save_steps" = 5
"cold_start.steps" = 150
"cold_start.learning_rate" = 2e-3
"cold_start.wrong" = 0.6
"data.problems.digits" = 1
"data.eval_size" = 12
"data.size" = 40

[matrix]
"train.learning_rate" = [1e-3, 3e-3]
"train.beta" = [0.0, 0.04]
seed = [1, 2, 3]
"""
NUM_CELLS = 12
FAREWELL_S = 130


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.toml").write_text(SMALL)
        (folder / "study.toml").write_text(STUDY)
        url = f"sqlite:///{folder}/study.db"
        began = time.monotonic()
        events = torment(folder, url, random.Random(seed))
        found = count(folder, url) | {"wall_s": round(time.monotonic() - began, 1)}
        print((folder / "log").read_text())
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions(),
        "seed": seed,
        "events": events,
        "found": found,
    }
    print(json.dumps({"events": events, "found": found}, indent=1))
    files.write_json(Path("benchmarks/results/sweep_matrix.json"), result)
    once = found["cells"] == found["finished"] == found["runs_complete"] == NUM_CELLS
    sys.exit(0 if once and not found["open"] and not found["left_processes"] else 1)


def torment(folder: Path, url: str, rng: random.Random) -> list[dict]:
    """Drive the matrix to its end through three interruptions. Returns what was done and when."""
    deeds = ["kill -9 of a worker", "kill -9 of the driver", "Ctrl-C"]
    rng.shuffle(deeds)
    began, events = time.monotonic(), []
    with open(folder / "log", "ab") as log:
        driver = start(folder, url, log)
        for deed in deeds:
            wait_for_work(folder, driver, rng.uniform(4, 10))
            events.append({"after_s": round(time.monotonic() - began, 1), "what": deed})
            if deed.endswith("worker"):
                os.kill(rng.choice(workers(folder)), signal.SIGKILL)
                continue
            driver.send_signal(signal.SIGINT if deed == "Ctrl-C" else signal.SIGKILL)
            events[-1]["exit_code"] = driver.wait(FAREWELL_S)
            time.sleep(1)  # the kernel ends the workers of a dead driver
            events[-1]["left_processes"] = len(workers(folder))
            driver = start(folder, url, log)
        assert driver.wait() == 0, (folder / "log").read_text()
    return events


def wait_for_work(folder: Path, driver: subprocess.Popen, seconds: float) -> None:
    """Until a cell trains, and some seconds more."""
    known = set(folder.glob("runs/study/*/metrics.jsonl"))
    while set(folder.glob("runs/study/*/metrics.jsonl")) == known:
        assert driver.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    time.sleep(seconds)


def count(folder: Path, url: str) -> dict:
    """Cells, their trials, and the run folders that went to their end."""
    cells = trials.cells(database.open_storage(url), "study")
    every = [trial for cell in cells for trial in cell.all()]
    runs = [json.loads(p.read_text()) for p in folder.glob("runs/study/*/record.json")]
    rows = results.matrix_rows(cells)
    return {
        "cells": len(cells),
        "finished": sum(map(trials.is_finished, every)),
        "finished_in_each": sorted({sum(map(trials.is_finished, c.all())) for c in cells}),
        "open": sum(not trial.state.is_finished() for trial in every),
        "died": sum(trial.state.name == "FAIL" and not trials.counts(trial) for trial in every),
        "runs": len(runs),
        "runs_complete": sum(run["status"] == "complete" for run in runs),
        "resumed_runs": sum(run["attempts"] > 1 for run in runs),
        "left_processes": len(workers(folder)),
        "table": [
            {"axes": row.axes, "mean": row.mean, "interval": row.interval, "best": row.is_best}
            for row in rows
        ],
    }


if __name__ == "__main__":
    main()

"""What a trial of a sweep cost beside its stages, in a new worker and in a warm one.

    python -m benchmarks.speed.trial_overhead STUDY_FOLDER RESULT.json

Reads the SQLite database and the records of its trials. Overhead is the time between Optuna's
start and end of a trial, less cold start, evaluations and optimiser steps. What remains is a
process, imports, loading model and engine, and saving. The first trial of each worker is in a new
process; the next are in a warm one, and must begin where the first began: their evaluation before
training and the accuracy of their first step, which nothing has trained yet, are written beside it.
Limits: the folder of one study, all of whose trials have ended with at least one step.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import optuna

from r1recipes.machine import files
from r1recipes.runs.record import Run

STAGES = ("cold_start", "evaluate_before", "evaluate_after")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="the folder of a study")
    parser.add_argument("result", type=Path, help="a .json file")
    args = parser.parse_args()
    storage = f"sqlite:///{args.study / 'study.db'}"
    (name,) = optuna.study.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    overheads = summary(name, trials, args.study)
    files.write_json(args.result, overheads)
    print(json.dumps(overheads, indent=1))


def summary(name: str, trials: list[optuna.trial.FrozenTrial], folder: Path) -> dict[str, Any]:
    """The result: medians of both kinds of trial, and each trial; date of the last trial."""
    rows: list[dict[str, Any]] = []
    pids: set[int] = set()
    for trial in trials:
        pid = trial.user_attrs["worker"]["pid"]
        rows.append(cost(trial, folder) | {"worker": pid, "warm": pid in pids})
        pids.add(pid)
    lock = json.loads(next(folder.glob("0000-*/lock.json")).read_text())
    ended = trials[-1].datetime_complete
    assert ended, f"trial {trials[-1].number} has not ended"
    return {
        "date": str(ended.date()),
        "study": name,
        "machine": lock["machine"],
        "versions": lock["versions"],
        "workers": len(pids),
        "warm_overhead_s": median([row["overhead_s"] for row in rows if row["warm"]]),
        "new_overhead_s": median([row["overhead_s"] for row in rows if not row["warm"]]),
        "trials": rows,
    }


def median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def cost(trial: optuna.trial.FrozenTrial, folder: Path) -> dict[str, Any]:
    """Seconds of a trial, and where it began."""
    (path,) = folder.glob(f"{trial.number:04d}-*")
    run = Run(path)
    record, rows = run.read(), files.read_lines(run.metrics)
    steps = [row["time/step_s"] for row in rows]
    assert trial.duration, f"trial {trial.number} has not ended"
    wall_s = trial.duration.total_seconds()
    stages_s = sum(record["duration_s"].get(stage, 0) for stage in STAGES) + sum(steps)
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "accuracy_before": record["evaluation"]["before"]["accuracy"],
        "first_accuracy": rows[0]["accuracy"],
        "steps": len(steps),
        "wall_s": round(wall_s, 2),
        "stages_s": round(stages_s, 2),
        "overhead_s": round(wall_s - stages_s, 2),
    }


if __name__ == "__main__":
    main()

"""What a trial of a sweep cost beside its stages, in a new worker and in a warm one.

    python benchmarks/sweep_overhead.py STUDY_FOLDER RESULT.json

Reads the SQLite database and the records of its trials. Overhead is the time between Optuna's
start and end of a trial, less cold start, evaluations and optimiser steps: what remains is a
process, imports, loading model and engine, saving. The first trial of each worker is in a new
process; the next are in a warm one, and must begin where the first began: their evaluation before
and the accuracy of their first step, for which nothing has been learned, stand beside it.
"""

import json
import statistics
import sys
from pathlib import Path

import optuna

from r1recipes.machine import files
from r1recipes.runs.record import Run

STAGES = ("cold_start", "evaluate_before", "evaluate_after")


def main() -> None:
    folder, result = Path(sys.argv[1]), Path(sys.argv[2])
    storage = f"sqlite:///{folder / 'study.db'}"
    (name,) = optuna.study.get_all_study_names(storage)
    trials, workers = [], set()
    for trial in optuna.load_study(study_name=name, storage=storage).trials:
        worker = trial.user_attrs["worker"]["pid"]
        trials.append(cost(trial, folder) | {"worker": worker, "warm": worker in workers})
        workers.add(worker)
    warm = [trial["overhead_s"] for trial in trials if trial["warm"]]
    fresh = [trial["overhead_s"] for trial in trials if not trial["warm"]]
    lock = json.loads(next(folder.glob("0000-*/lock.json")).read_text())
    found = {
        "date": str(trial.datetime_complete.date()),
        "study": name,
        "machine": lock["machine"],
        "versions": lock["versions"],
        "workers": len(workers),
        "warm_overhead_s": round(statistics.median(warm), 2),
        "new_overhead_s": round(statistics.median(fresh), 2),
        "trials": trials,
    }
    files.write_json(result, found)
    print(json.dumps(found, indent=1))


def cost(trial: optuna.trial.FrozenTrial, folder: Path) -> dict[str, object]:
    (path,) = folder.glob(f"{trial.number:04d}-*")
    run = Run(path)
    found = run.read()
    rows = files.read_lines(run.metrics)
    steps = [row["time/step_s"] for row in rows]
    wall = (trial.datetime_complete - trial.datetime_start).total_seconds()
    stages = sum(found["duration_s"].get(stage, 0) for stage in STAGES) + sum(steps)
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "accuracy_before": found["evaluation"]["before"]["accuracy"],
        "first_accuracy": rows[0]["accuracy"],
        "steps": len(steps),
        "wall_s": round(wall, 2),
        "stages_s": round(stages, 2),
        "overhead_s": round(wall - stages, 2),
    }


if __name__ == "__main__":
    main()

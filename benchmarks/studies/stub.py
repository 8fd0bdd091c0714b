"""1,000 trials of a stub objective through the study code and through bare Optuna, in CPU seconds.

    python -m benchmarks.studies.stub [--trials N]

Both use SQLite, the same sampler, and write the same attributes and 5 intermediate values a trial;
ours also claims, looks for dead workers and prunes as a worker does. The database is in memory
(/dev/shm), so that the disk does not hide what the code costs. Writes
benchmarks/studies/results/stub.json. Limits: one process; nothing is trained.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from benchmarks import about
from r1recipes.report import study
from r1recipes.study import database, loading, search, trials
from r1recipes.study.cell import Cell

RESULT = Path(__file__).parent / "results" / "stub.json"
EVERY = 100
STUDY = """\
format = 1
recipe = "tiny"

[study]
n_trials = {num_trials}
baseline = false

[search]
"train.learning_rate" = {{ low = 1e-4, high = 1e-2, log = true }}
"train.warmup_ratio" = {{ low = 0.0, high = 0.2 }}
"rewards.correctness" = {{ low = 0.5, high = 4.0 }}
"""


def objective(params: dict[str, Any]) -> float:
    """A peak at a learning rate of 2e-3 without warmup."""
    rate = math.log10(params["train.learning_rate"])
    return math.exp(-((rate + 2.7) ** 2)) * (1 - params["train.warmup_ratio"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help=f"a multiple of {EVERY}")
    num_trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "stub.toml").write_text(STUDY.format(num_trials=num_trials))
        (cell,) = loading.load(folder / "stub.toml").cells
        ours = trials.create_cell(database.open_storage(f"sqlite:///{folder}/ours.db"), cell)
        ours_s = timed(lambda: one_of_ours(ours), num_trials)
        bare = bare_study(f"sqlite:///{folder}/bare.db")
        optuna_s = timed(lambda: one_of_optunas(bare, cell), num_trials)
        began = time.monotonic()
        page = study.html([ours])
        result = {
            "ours_s": round(sum(ours_s), 1),
            "optuna_s": round(sum(optuna_s), 1),
            "ours_s_per_100": ours_s,
            "optuna_s_per_100": optuna_s,
            "report_s": round(time.monotonic() - began, 2),
            "report_bytes": len(page.encode()),
            "finished": sum(map(trials.is_finished, ours.all())),
        }
    print(json.dumps(result, indent=1))
    about.write(RESULT, result)


def timed(one: Callable[[], None], num_trials: int) -> list[float]:
    """CPU seconds of each hundred trials; a clock would count other processes."""
    seconds = []
    for _ in range(num_trials // EVERY):
        began = time.process_time()
        for _ in range(EVERY):
            one()
        seconds.append(round(time.process_time() - began, 2))
    return seconds


def one_of_ours(ours: trials.Trials) -> None:
    """A trial as a worker runs it, without the run."""
    ours.requeue_dead(trials.has_dead_local_worker)
    trial = ours.claim(trials.this_worker())
    assert trial, "the study has no trial left"
    pruner = search.pruner(ours.cell, 100, 8)
    ours.note_run(trial, Path("run"), 100)
    value = objective(trial.params)
    for step in range(20, 101, 20):
        if ours.report(trial, step, value * step / 100, pruner):
            return ours.prune(trial)
    return ours.complete(trial, [value])


def bare_study(url: str) -> optuna.Study:
    return optuna.create_study(study_name="bare", storage=url, direction="maximize")


def one_of_optunas(bare: optuna.Study, cell: Cell) -> None:
    """The same trial through Optuna alone."""
    bare.pruner = search.pruner(cell, 100, 8)
    trial = bare.ask()
    bare.sampler = search.sampler(cell, trial.number)
    for key, distribution in search.distributions(cell).items():
        search.suggest(trial, key, distribution)
    for key, value in {"worker": trials.this_worker(), "run": "run", "max_steps": 100}.items():
        trial.set_user_attr(key, value)
    result = objective(trial.params)
    for step in range(20, 101, 20):
        trial.report(result * step / 100, step)
        if trial.should_prune():
            bare.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
    bare.tell(trial, result)


if __name__ == "__main__":
    main()

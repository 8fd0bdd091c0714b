"""1,000 trials of a stub objective through the study code and through bare Optuna, in CPU seconds.

    python benchmarks/sweep_stub.py

Both use SQLite, the same sampler, and write the same attributes and 5 intermediate values a trial;
ours also claims, looks for dead workers and prunes as a worker does. The database is in memory
(/dev/shm), so that the disk does not hide what the code costs. Writes
benchmarks/results/sweep_stub.json.
"""

import json
import math
import tempfile
import time
from pathlib import Path

import optuna

from r1recipes.machine import files, host, packages
from r1recipes.report import study
from r1recipes.study import database, loading, search, trials
from r1recipes.study.cell import Cell

NUM_TRIALS, EVERY = 1000, 100
STUDY = """\
format = 1
recipe = "tiny"

[study]
n_trials = 1000
baseline = false

[search]
"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"train.warmup_ratio" = { low = 0.0, high = 0.2 }
"rewards.correctness" = { low = 0.5, high = 4.0 }
"""


def objective(params: dict) -> float:
    rate = math.log10(params["train.learning_rate"])
    return math.exp(-((rate + 2.7) ** 2)) * (1 - params["train.warmup_ratio"])


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "stub.toml").write_text(STUDY)
        (cell,) = loading.load(folder / "stub.toml").cells
        made = trials.create(database.open_storage(f"sqlite:///{folder}/ours.db"), cell)
        ours = timed(lambda: one_of_ours(made))
        bare = bare_study(f"sqlite:///{folder}/bare.db")
        theirs = timed(lambda: one_of_optunas(bare, cell))
        began = time.monotonic()
        page = study.html([made])
        found = {
            "ours_s": round(sum(ours), 1),
            "optuna_s": round(sum(theirs), 1),
            "ours_s_per_100": ours,
            "optuna_s_per_100": theirs,
            "report_s": round(time.monotonic() - began, 2),
            "report_bytes": len(page.encode()),
            "finished": sum(map(trials.is_finished, made.all())),
        }
    about = {"date": files.now(), "machine": host.describe(), "versions": packages.versions()}
    print(json.dumps(found, indent=1))
    files.write_json(Path("benchmarks/results/sweep_stub.json"), about | found)


def timed(one) -> list[float]:
    """CPU seconds for each hundred trials; the clock would count other processes."""
    spent = []
    for _ in range(NUM_TRIALS // EVERY):
        began = time.process_time()
        for _ in range(EVERY):
            one()
        spent.append(round(time.process_time() - began, 2))
    return spent


def one_of_ours(made: trials.Trials) -> None:
    made.bury(trials.is_dead_here)
    trial = made.claim(trials.this_worker())
    pruner = search.pruner(made.cell, 100, 8)
    made.note_run(trial, Path("run"), 100)
    value = objective(trial.params)
    for step in range(20, 101, 20):
        if made.report(trial, step, value * step / 100, pruner):
            return made.prune(trial)
    return made.complete(trial, [value])


def bare_study(url: str) -> optuna.Study:
    return optuna.create_study(study_name="bare", storage=url, direction="maximize")


def one_of_optunas(bare: optuna.Study, cell: Cell) -> None:
    bare.pruner = search.pruner(cell, 100, 8)
    trial = bare.ask()
    bare.sampler = search.sampler(cell, trial.number)
    for key, distribution in search.distributions(cell).items():
        search.suggest(trial, key, distribution)
    for key, value in {"worker": trials.this_worker(), "run": "run", "max_steps": 100}.items():
        trial.set_user_attr(key, value)
    value = objective(trial.params)
    for step in range(20, 101, 20):
        trial.report(value * step / 100, step)
        if trial.should_prune():
            bare.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
    bare.tell(trial, value)


if __name__ == "__main__":
    main()

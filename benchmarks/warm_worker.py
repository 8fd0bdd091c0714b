"""What a trial costs in a warm worker and in a fresh process, and whether the numbers are the same.

    python benchmarks/warm_worker.py RECIPE [--quick] [--set KEY=VALUE]...
    python benchmarks/warm_worker.py small --quick --set train.max_steps=10 \
        --set cold_start.steps=200              on one GPU; `small` as it is takes far longer

Three trials with different learning rates go through one warm worker; then each runs in a process
of its own, the last one twice; --quick runs only this last one, twice. On a CPU all numbers must be
equal, on a GPU as close as those two.
Overhead is everything but the evaluations, the cold start and the steps, the first of them at the
median time of all.
Works on both devices. Writes benchmarks/results/warm_worker-<recipe>.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from r1recipes import recipe
from r1recipes.machine import files, host, packages
from r1recipes.runs.record import Run
from r1recipes.study import database, trials

FACTORS = (1.0, 0.5, 2.0)
TIMES = ("step_time", "num_tokens")


def main() -> None:
    name, flags = sys.argv[1], [flag for flag in sys.argv[2:] if flag != "--quick"]
    quick = "--quick" in sys.argv
    loaded = recipe.load(name, [flag for flag in flags if flag != "--set"])
    rates = [loaded.recipe.train.learning_rate * factor for factor in FACTORS]
    with tempfile.TemporaryDirectory() as folder:
        warm = warm_runs(Path(folder), loaded.path.absolute(), rates, flags)
        compared = warm[-1:] if quick else warm
        fresh = [
            fresh_run(Path(folder), name, rate, i, flags)
            for i, rate in enumerate(rates[-len(compared) :])
        ]
        again = fresh_run(Path(folder), name, rates[-1], len(rates), flags)
        found = {
            "warm": [cost(run, wall) for run, wall in warm],
            "fresh": [cost(run, wall) for run, wall in [*fresh, again]],
            "warm_against_fresh": [
                difference(w, f) for (w, _), (f, _) in zip(compared, fresh, strict=True)
            ],
            "fresh_against_fresh": difference(fresh[-1][0], again[0]),
        }
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions(),
        "recipe": name,
        "overrides": flags,
    }
    print(json.dumps(found, indent=1))
    files.write_json(Path(f"benchmarks/results/warm_worker-{loaded.name}.json"), result | found)


def warm_runs(folder: Path, path: Path, rates: list[float], flags: list[str]):
    """(run, seconds) of each trial of one warm worker."""
    axis = ", ".join(map(repr, rates))
    text = f'format = 1\nrecipe = "{path}"\n[matrix]\n"train.learning_rate" = [{axis}]\n'
    (folder / "warm.toml").write_text(text)
    command("sweep", folder / "warm.toml", "--workers", 1, "--force", *flags, runs_dir=folder)
    storage = database.open_storage(f"sqlite:///{folder}/warm/study.db")
    found = [cell.all()[0] for cell in trials.cells(storage, "warm")]
    return [(Run(Path(t.user_attrs["run"])), t.duration.total_seconds()) for t in found]


def fresh_run(folder: Path, name: str, rate: float, number: int, flags: list[str]):
    run = Run(folder / f"fresh-{number}")
    began = time.monotonic()
    rate_flags = ["--set", f"train.learning_rate={rate!r}"]
    command("run", name, "--run-dir", run.folder, "--force", *flags, *rate_flags, runs_dir=folder)
    return run, time.monotonic() - began


def command(*arguments: object, runs_dir: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "r1recipes", *map(str, arguments)],
        check=True,
        env=os.environ | {"R1RECIPES_RUNS_DIR": str(runs_dir)},
    )


def cost(run: Run, wall_s: float) -> dict:
    """Seconds of a run by what they were spent on."""
    spent = run.read()["duration_s"]
    steps = [row["step_time"] for row in files.read_lines(run.metrics)]
    work = sum(steps[1:]) + min(steps[0], statistics.median(steps))  # the rest is compiling
    work += sum(spent.get(k, 0.0) for k in ("cold_start", "evaluate_before", "evaluate_after"))
    return {
        "wall_s": round(wall_s, 2),
        "stages_s": spent,
        "first_step_s": round(steps[0], 2),
        "median_step_s": round(statistics.median(steps), 3),
        "overhead_s": round(wall_s - work, 2),
        "outside_stages_s": round(wall_s - sum(spent.values()), 2),
    }


def difference(left: Run, right: Run) -> dict:
    """How far apart two runs of the same recipe are."""
    a, b = (files.read_lines(run.metrics) for run in (left, right))
    keys = [k for k in a[0] if k not in TIMES and not k.startswith(("time", "profiling"))]
    keys = [k for k in keys if isinstance(a[0][k], float) and not k.endswith("_s")]
    gaps = {k: max(abs(x[k] - y[k]) for x, y in zip(a, b, strict=True)) for k in keys}
    after = [run.read()["evaluation"]["after"]["accuracy"] for run in (left, right)]
    answers = [run.evaluation("after").read_text() for run in (left, right)]
    return {
        "equal_metrics": not any(gaps.values()),
        "equal_answers": answers[0] == answers[1],
        "largest_gap": {key: gaps[key] for key in ("reward", "grad_norm") if key in gaps},
        "accuracy_after": after,
    }


if __name__ == "__main__":
    main()

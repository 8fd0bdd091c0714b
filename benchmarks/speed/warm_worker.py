"""What a trial costs in a warm worker and in a fresh process, and whether the numbers are the same.

    python -m benchmarks.speed.warm_worker RECIPE [--quick] [--set KEY=VALUE]...
    python -m benchmarks.speed.warm_worker small --quick --set train.max_steps=10 \
        --set cold_start.steps=200

The second line is for one GPU, where `small` as it is takes far longer. Three trials with different
learning rates go through one warm worker; then each runs in a process of its own, the last one
twice. --quick runs only the last one, twice. On a CPU all numbers must be equal, and on a GPU as
close as those two. Overhead is the time outside evaluations, cold start and steps, where the first
step counts as the median step. Writes benchmarks/speed/results/warm_worker-<recipe>.json. Limits:
without --quick each trial of the recipe runs twice, and the last one three times.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import about
from r1recipes import recipe
from r1recipes.machine import files
from r1recipes.runs.record import Run
from r1recipes.study import database, trials

RESULTS = Path(__file__).parent / "results"
FACTORS = (1.0, 0.5, 2.0)
"""Learning rate of each trial over the recipe's."""
TIMES = ("step_time", "num_tokens")
Timed = tuple[Run, float]
"""A run and the seconds of its whole process or trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--quick", action="store_true", help="only the last trial in processes")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    loaded = recipe.load(args.recipe, args.overrides)
    flags = [part for override in args.overrides for part in ("--set", override)]
    rates = [loaded.recipe.train.learning_rate * factor for factor in FACTORS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm = warm_runs(folder, loaded.path.absolute(), rates, flags)
        compared = warm[-1:] if args.quick else warm
        fresh = [
            fresh_run(folder, args.recipe, rate, number, flags)
            for number, rate in enumerate(rates[-len(compared) :])
        ]
        again = fresh_run(folder, args.recipe, rates[-1], len(rates), flags)
        costs = {
            "warm": [cost(run, wall_s) for run, wall_s in warm],
            "fresh": [cost(run, wall_s) for run, wall_s in [*fresh, again]],
            "warm_against_fresh": [
                difference(one, other) for (one, _), (other, _) in zip(compared, fresh, strict=True)
            ],
            "fresh_against_fresh": difference(fresh[-1][0], again[0]),
        }
    print(json.dumps(costs, indent=1))
    result = {"recipe": args.recipe, "overrides": flags} | costs
    about.write(RESULTS / f"warm_worker-{loaded.name}.json", result)


def warm_runs(folder: Path, path: Path, rates: list[float], flags: list[str]) -> list[Timed]:
    """Each trial of one warm worker, in order."""
    axis = ", ".join(map(repr, rates))
    text = f'format = 1\nrecipe = "{path}"\n[matrix]\n"train.learning_rate" = [{axis}]\n'
    (folder / "warm.toml").write_text(text)
    command("sweep", folder / "warm.toml", "--workers", 1, "--force", *flags, runs_dir=folder)
    storage = database.open_storage(f"sqlite:///{folder}/warm/study.db")
    rows: list[Timed] = []
    for cell in trials.load_cells(storage, "warm"):
        trial = cell.all()[0]
        assert trial.duration, f"trial {trial.number} has not ended"
        rows.append((Run(Path(trial.user_attrs["run"])), trial.duration.total_seconds()))
    return rows


def fresh_run(folder: Path, name: str, rate: float, number: int, flags: list[str]) -> Timed:
    """The same in a process of its own."""
    run = Run(folder / f"fresh-{number}")
    began = time.monotonic()
    rate_flags = ["--set", f"train.learning_rate={rate!r}"]
    command("run", name, "--run-dir", run.folder, "--force", *flags, *rate_flags, runs_dir=folder)
    return run, time.monotonic() - began


def command(*arguments: object, runs_dir: Path) -> None:
    """`python -m r1recipes ...`. Raises: CalledProcessError."""
    subprocess.run(
        [sys.executable, "-m", "r1recipes", *map(str, arguments)],
        check=True,
        env=os.environ | {"R1RECIPES_RUNS_DIR": str(runs_dir)},
    )


def cost(run: Run, wall_s: float) -> dict[str, Any]:
    """Seconds of a run by what they were spent on."""
    stages_s = run.read()["duration_s"]
    steps = [row["step_time"] for row in files.read_lines(run.metrics)]
    work = sum(steps[1:]) + min(steps[0], statistics.median(steps))  # the rest is compiling
    work += sum(stages_s.get(k, 0.0) for k in ("cold_start", "evaluate_before", "evaluate_after"))
    return {
        "wall_s": round(wall_s, 2),
        "stages_s": stages_s,
        "first_step_s": round(steps[0], 2),
        "median_step_s": round(statistics.median(steps), 3),
        "overhead_s": round(wall_s - work, 2),
        "outside_stages_s": round(wall_s - sum(stages_s.values()), 2),
    }


def difference(one: Run, other: Run) -> dict[str, Any]:
    """How far apart two runs of the same recipe are."""
    rows, other_rows = (files.read_lines(run.metrics) for run in (one, other))
    keys = [k for k in rows[0] if k not in TIMES and not k.startswith(("time", "profiling"))]
    keys = [k for k in keys if isinstance(rows[0][k], float) and not k.endswith("_s")]
    steps = list(zip(rows, other_rows, strict=True))
    gaps = {key: max(abs(a[key] - b[key]) for a, b in steps) for key in keys}
    accuracies = [run.read()["evaluation"]["after"]["accuracy"] for run in (one, other)]
    answers = [run.evaluation("after").read_text() for run in (one, other)]
    return {
        "equal_metrics": not any(gaps.values()),
        "equal_answers": answers[0] == answers[1],
        "largest_gap": {key: gaps[key] for key in ("reward", "grad_norm") if key in gaps},
        "accuracy_after": accuracies,
    }


if __name__ == "__main__":
    main()

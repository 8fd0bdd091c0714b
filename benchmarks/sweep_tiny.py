"""The shipped search of `tiny`, its best recipe against the shipped one, and what pruning saves.

    python benchmarks/sweep_tiny.py search               the search as it is shipped
    python benchmarks/sweep_tiny.py seeds 8 21 22 23     both recipes in 8 steps on other seeds
    python benchmarks/sweep_tiny.py prune noise          30 steps, with the default pruner
    python benchmarks/sweep_tiny.py prune none           the same without pruning

Seeds that are compared on had no part in the search, nor in the choice of its space, which was made
on seeds 101, 102 and 3407. Run folders stay in $R1RECIPES_RUNS_DIR, and each command goes on where
it was stopped. Writes benchmarks/results/sweep_tiny-<what>.json.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

from r1recipes import recipe
from r1recipes.machine import files, host, packages, settings
from r1recipes.study import database, leaderboard, results, trials
from r1recipes.study.trials import Trials

RUNS = settings.load().runs_dir
PRUNED = """\
format = 1
recipe = "RECIPE"
[set]
"train.max_steps" = 30
"eval.samples" = 2
[study]
n_trials = 24
seed = 7         # the pruner's constants were chosen on studies with seed 0
pruner = "PRUNER"
[search]
"train.learning_rate" = { low = 2e-4, high = 2e-2, log = true }
"train.warmup_ratio" = { low = 0.0, high = 0.2 }
"rewards.correctness" = { low = 0.5, high = 4.0 }
"rewards.strict_format" = { low = 0.0, high = 1.0 }
"preset.lora_rank" = { choices = [8, 16, 32] }
"""
COMPARED = """\
format = 1
[set]
"train.max_steps" = STEPS
"data.eval_size" = 400
"eval.samples" = 4
[matrix]
seed = SEEDS
recipe = ["RECIPE", "BEST"]
"""


def main() -> None:
    what, *given = sys.argv[1:]
    if what == "search":
        name, found = what, searched(sweep("tiny", "tiny")[0])
    elif what == "prune":
        text = PRUNED.replace("PRUNER", given[0])
        name, found = given[0], searched(sweep(f"tiny-{given[0]}", text)[0])
    else:
        steps, *numbers = map(int, given)
        name, found = f"seeds-{steps}", compared(steps, numbers)
    about = {"date": files.now(), "machine": host.describe(), "versions": packages.versions()}
    files.write_json(Path(f"benchmarks/results/sweep_tiny-{name}.json"), about | found)
    print(json.dumps({k: v for k, v in found.items() if k != "trials"}, indent=1))


def sweep(name: str, study: str) -> list[Trials]:
    """Run a study, a shipped one by its name or one given as text, to its end. Its cells."""
    if "\n" in study:
        path = RUNS / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(study.replace("RECIPE", str(recipe.find("tiny").absolute())))
        study = str(path)
    command = [sys.executable, "-m", "r1recipes", "sweep", study, "--workers", "1"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    url = f"sqlite:///{RUNS.absolute()}/{name}/study.db"
    return trials.cells(database.open_storage(url), name)


def searched(cell: Trials) -> dict:
    best = leaderboard.best(cell)
    pruned, left, total = leaderboard.saved_by_pruning([cell])
    rows = results.rows([cell])
    return {
        "pruner": cell.cell.settings.pruner_name,
        "seconds": round(sum(row["seconds"] or 0.0 for row in rows), 1),
        "best": {"trial": best.number, "accuracy": best.values[0], "params": best.params},
        "recipes_own": cell.all()[0].values[0],
        "pruned": pruned,
        "steps_run": total - left,
        "steps_without_pruning": total,
        "trials": [row | {"run": None} for row in rows],
    }


def compared(steps: int, numbers: list[int]) -> dict:
    """Accuracy of both recipes on each seed, and the mean of the differences with its interval."""
    best = RUNS / "tiny" / "best.toml"
    text = COMPARED.replace("STEPS", str(steps)).replace("SEEDS", str(numbers))
    cells = sweep(f"tiny-seeds-{steps}", text.replace("BEST", str(best.absolute())))
    found = {"tiny": [], "best": []}
    for cell in cells:
        name = Path(cell.cell.axes["recipe"]).stem
        found[name].append(leaderboard.best(cell).values[0])
    gains = [best - own for own, best in zip(found["tiny"], found["best"], strict=True)]
    row = leaderboard.Row({}, gains, 0)
    spread = statistics.stdev(gains) / math.sqrt(len(gains))
    return {
        "steps": steps,
        "seeds": numbers,
        "shipped": found["tiny"],
        "best": found["best"],
        "mean_shipped": statistics.fmean(found["tiny"]),
        "mean_best": statistics.fmean(found["best"]),
        "mean_gain": row.mean,
        "interval_of_the_gain": row.interval,
        "t": row.mean / spread if spread else None,
        "better_on": sum(gain > 0 for gain in gains),
    }


if __name__ == "__main__":
    main()

"""The shipped search of `tiny`, its best recipe against the shipped one, and what pruning saves.

    python -m benchmarks.studies.tiny search               the search as it is shipped
    python -m benchmarks.studies.tiny seeds 8 21 22 23     both recipes in 8 steps on other seeds
    python -m benchmarks.studies.tiny prune noise          30 steps, with the default pruner
    python -m benchmarks.studies.tiny prune none           the same without pruning

The seeds of a comparison were used neither in the search nor to choose its space, for which seeds
101, 102 and 3407 were used. Writes benchmarks/studies/results/tiny-<task>.json. Limits: run folders
stay in $R1RECIPES_RUNS_DIR, where each command goes on if it was stopped; `seeds` needs `search`
before it.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from benchmarks import about
from r1recipes import recipe
from r1recipes.machine import settings
from r1recipes.runs.statistics import mean_interval
from r1recipes.study import database, leaderboard, results, trials
from r1recipes.study.trials import Trials

RUNS = settings.load().runs_dir
RESULTS = Path(__file__).parent / "results"
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
    args = arguments()
    if args.task == "search":
        name, result = "search", searched(sweep("tiny", "tiny")[0])
    elif args.task == "prune":
        name, text = args.pruner, PRUNED.replace("PRUNER", args.pruner)
        result = searched(sweep(f"tiny-{name}", text)[0])
    else:
        name, result = f"seeds-{args.steps}", compared(args.steps, args.seeds)
    about.write(RESULTS / f"tiny-{name}.json", result)
    print(json.dumps({key: v for key, v in result.items() if key != "trials"}, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    tasks = parser.add_subparsers(dest="task", required=True)
    tasks.add_parser("search", help="the search as it is shipped")
    seeds = tasks.add_parser("seeds", help="both recipes on other seeds")
    seeds.add_argument("steps", type=int)
    seeds.add_argument("seeds", type=int, nargs="+")
    prune = tasks.add_parser("prune", help="a search with a pruner, or with `none`")
    prune.add_argument("pruner")
    return parser.parse_args()


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
    return trials.load_cells(database.open_storage(url), name)


def best_trial(cell: Trials) -> FrozenTrial:
    """The best trial of a cell. Exits if none is complete."""
    trial = leaderboard.best(cell)
    if trial is None:
        sys.exit(f"no trial of {cell.cell.full_name} is complete")
    return trial


def searched(cell: Trials) -> dict[str, Any]:
    """The best trial of a search, and what pruning saved."""
    best = best_trial(cell)
    pruned, unrun, total = leaderboard.saved_by_pruning([cell])
    rows = results.trial_rows([cell])
    return {
        "pruner": cell.cell.settings.pruner_name,
        "seconds": round(sum(row["seconds"] or 0.0 for row in rows), 1),
        "best": {"trial": best.number, "accuracy": best.values[0], "params": best.params},
        "recipes_own": cell.all()[0].values[0],
        "pruned": pruned,
        "steps_run": total - unrun,
        "steps_without_pruning": total,
        "trials": [row | {"run": None} for row in rows],
    }


def compared(steps: int, seeds: list[int]) -> dict[str, Any]:
    """Accuracy of both recipes on each seed, and the mean of the differences with its interval."""
    best = RUNS / "tiny" / "best.toml"
    text = COMPARED.replace("STEPS", str(steps)).replace("SEEDS", str(seeds))
    cells = sweep(f"tiny-seeds-{steps}", text.replace("BEST", str(best.absolute())))
    accuracies: dict[str, list[float]] = {"tiny": [], "best": []}
    for cell in cells:
        name = Path(cell.cell.axes["recipe"]).stem
        accuracies[name].append(best_trial(cell).values[0])
    pairs = zip(accuracies["tiny"], accuracies["best"], strict=True)
    gains = [better - shipped for shipped, better in pairs]
    mean = statistics.fmean(gains)
    spread = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return {
        "steps": steps,
        "seeds": seeds,
        "shipped": accuracies["tiny"],
        "best": accuracies["best"],
        "mean_shipped": statistics.fmean(accuracies["tiny"]),
        "mean_best": statistics.fmean(accuracies["best"]),
        "mean_gain": mean,
        "interval_of_the_gain": mean_interval(gains),
        "t": mean / spread if spread else None,
        "better_on": sum(gain > 0 for gain in gains),
    }


if __name__ == "__main__":
    main()

"""What a study leaves: the best recipe as a file that `run` takes, its trials as csv or json."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from r1recipes import leaderboard, overrides, recipe, rewards
from r1recipes import trials as trials_module
from r1recipes.errors import RecipeError
from r1recipes.leaderboard import show_value
from r1recipes.memory import GIB
from r1recipes.schema import Recipe
from r1recipes.trials import Trials


def best_recipe(trials: Trials, trial: FrozenTrial, folder: Path) -> str:
    """The complete recipe of a trial as it can stand in `folder`: nothing is left to the study."""
    cell = trials.cell
    loaded = cell.load(trial.params)
    moved = move(loaded.recipe, loaded.path.parent, folder)
    found = {overrides.path_of(key) for key in trial.params}

    def origin(path: Any) -> str | None:
        nameless = (path[0], *path[2:]) if path[0] == "preset" and len(path) == 3 else path
        return "found by the study" if {path, nameless} & found else None

    metrics = zip(cell.settings.metrics, trial.values or [], strict=False)
    reached = ", ".join(f"{name} {show_value(value, name)}" for name, value in metrics)
    preset = f" --preset {cell.preset}" if cell.preset else ""
    head = (
        f"# The best of study {cell.full_name}: trial {trial.number}, {reached}.\n"
        f"# `python -m r1recipes run best.toml{preset}` trains it.\n"
    )
    return head + recipe.render(moved, origin)


def move(given: Recipe, old: Path, new: Path) -> Recipe:
    """A recipe of folder `old` as it must be written in folder `new` to name the same files."""

    def path(name: str) -> str:
        return os.path.relpath(old / name, new) if (old / name).exists() else name

    def reward(name: str) -> str:
        if not rewards.is_user_code(name):
            return name
        file, _, function = name.rpartition(":")
        return f"{path(file)}:{function}"

    data = given.model_dump()
    data["model"]["name"] = path(data["model"]["name"])
    template = data["model"]["chat_template"]
    if template and "\n" not in template and len(template) < 256:
        data["model"]["chat_template"] = path(template)
    data["data"]["name"] = path(data["data"]["name"])
    if data["cold_start"] and data["cold_start"]["data"]:
        data["cold_start"]["data"] = path(data["cold_start"]["data"])
    data["rewards"] = {reward(name): weight for name, weight in data["rewards"].items()}
    data["eval"]["reward"] = reward(data["eval"]["reward"])
    return Recipe.model_validate(data)


def rows(cells: list[Trials]) -> list[dict[str, Any]]:
    """A row for each trial: cell, number, state, values, parameters, run folder, why it failed."""
    found = []
    for trials in cells:
        cell = trials.cell
        for trial in trials.all():
            values = trial.values or [None] * len(cell.settings.metrics)
            found.append(
                {
                    "cell": cell.name,
                    "trial": trial.number,
                    "state": leaderboard.state(trial),
                    "counts": trials_module.counts(trial),
                    **dict(zip(cell.settings.metrics, values, strict=True)),
                    **{key: trial.params.get(key) for key in cell.search},
                    "predicted_gib": _gib(trial, "peak_bytes"),
                    "room_gib": _gib(trial, "available_bytes"),
                    "excess_gib": trial.constraints.get("excess_gib"),
                    "seconds": trial.duration.total_seconds() if trial.duration else None,
                    "run": trial.user_attrs.get("run"),
                    "error": trial.user_attrs.get("error", {}).get("message")
                    or trial.user_attrs.get("infeasible"),
                }
            )
    return found


def _gib(trial: FrozenTrial, key: str) -> float | None:
    """Of the predicted memory; None on a CPU."""
    predicted = trial.user_attrs.get("predicted")
    return predicted and predicted[key] / GIB


def export(cells: list[Trials], suffix: str) -> str:
    """All trials as `.csv` or `.json`. Raises: RecipeError for another suffix."""
    found = rows(cells)
    if suffix == ".json":
        return json.dumps({"study": cells[0].cell.study, "trials": found}, indent=1) + "\n"
    if suffix != ".csv":
        raise RecipeError(f"`{suffix}` is no form to export to", hint="name a .csv or .json file")
    text = io.StringIO()
    header = list(dict.fromkeys(key for row in found for key in row))
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()

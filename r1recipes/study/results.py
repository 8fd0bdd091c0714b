"""What a study ends with: its best recipe as a file, its trials as csv or json, its table."""

import csv
import io
import json
import os
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from rich.table import Table
from rich.text import Text

from r1recipes.config import render
from r1recipes.errors import RecipeError
from r1recipes.machine.units import GIB
from r1recipes.recipe import overrides
from r1recipes.recipe.schema import Recipe
from r1recipes.rewards.reward import is_user_code
from r1recipes.runs.statistics import mean_interval
from r1recipes.study import leaderboard
from r1recipes.study.cell import Cell
from r1recipes.study.leaderboard import best, ranked, short, show_value
from r1recipes.study.trials import Trials, counts


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
    return head + render.render(moved, origin)


def move(given: Recipe, old: Path, new: Path) -> Recipe:
    """A recipe of folder `old` as it must be written in folder `new` to name the same files."""

    def path(name: str) -> str:
        return os.path.relpath(old / name, new) if (old / name).exists() else name

    def reward(name: str) -> str:
        if not is_user_code(name):
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
                    "counts": counts(trial),
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


@dataclass(frozen=True)
class MatrixRow:
    """Cells that differ in their seed only: mean and 95 % interval of the first metric."""

    axes: dict[str, Any]
    values: list[float]
    num_failed: int
    num_open: int
    is_best: bool = False

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def remark(self) -> str:
        """`2 failed, 1 open`: the seeds that the mean is without."""
        counts = {"failed": self.num_failed, "open": self.num_open}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean over seeds, by Student's t; None for a single value."""
        return mean_interval(self.values)


def matrix_rows(cells: list[Trials]) -> list[MatrixRow]:
    """One row for each setting of a matrix, in its order; the first of the best is marked."""
    groups: dict[str, list[Trials]] = {}
    for trials in cells:
        groups.setdefault(repr(_setting(trials.cell)), []).append(trials)
    found = [_row(group) for group in groups.values()]
    known = [row.mean for row in found if row.mean is not None]
    if not known:
        return found
    is_max = cells[0].study.directions[0] == StudyDirection.MAXIMIZE
    top = max(known) if is_max else min(known)
    first = next(place for place, row in enumerate(found) if row.mean == top)
    return [replace(row, is_best=place == first) for place, row in enumerate(found)]


def _setting(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in cell.axes.items() if key != "seed"}


def _row(group: list[Trials]) -> MatrixRow:
    found = [best(trials) for trials in group]
    without = [trials for trials, trial in zip(group, found, strict=True) if trial is None]
    num_failed = sum(trials.is_done() for trials in without)
    values = [trial.values[0] for trial in found if trial]
    return MatrixRow(_setting(group[0].cell), values, num_failed, len(without) - num_failed)


def matrix_table(cells: list[Trials]) -> Table:
    """The final table of a matrix."""
    metric = cells[0].cell.settings.metrics[0]
    found = matrix_rows(cells)
    keys = list(found[0].axes)
    table = Table(box=None, padding=(0, 1))
    for heading in (*short(keys).values(), metric.removeprefix("eval/"), "95 %", "seeds", ""):
        side = "left" if heading in short(keys).values() else "right"
        table.add_column(Text(heading), justify=side)
    for row in found:
        low_high = " to ".join(show_value(v, metric) for v in row.interval) if row.interval else ""
        mean = show_value(row.mean, metric) if row.mean is not None else ""
        mark = ", ".join(filter(None, ("best" if row.is_best else "", row.remark)))
        axes = [str(row.axes[key]) for key in keys]
        count = str(len(row.values))
        cells = map(Text, (*axes, mean, low_high, count, mark))
        table.add_row(*cells, style="bold" if row.is_best else "")
    return table


def best_of(found: list[tuple[Trials, FrozenTrial]]) -> tuple[Trials, FrozenTrial]:
    """The best of the cells' best trials. Of a matrix, a trial of its best row."""
    trials = found[0][0]
    if trials.cell.axes:
        top = next(row for row in matrix_rows([cell for cell, _ in found]) if row.is_best)
        found = [pair for pair in found if _setting(pair[0].cell) == top.axes]
    order = ranked([trial for _, trial in found], trials.study.directions[0])
    return next(pair for pair in found if pair[1] is order[0])

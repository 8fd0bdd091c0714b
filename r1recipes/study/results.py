"""The results of a study: its best recipe as a file, its trials as csv or json, a matrix's table.

A matrix is a study whose cells differ in fixed values; cells that differ in their seed only are one
row of its table.
"""

import csv
import io
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from rich.table import Table
from rich.text import Text

from r1recipes.config import render
from r1recipes.config.render import Loc
from r1recipes.errors import RecipeError
from r1recipes.machine.units import GIB
from r1recipes.recipe import overrides, references
from r1recipes.recipe.schema import Recipe
from r1recipes.runs.statistics import mean_interval
from r1recipes.study import leaderboard
from r1recipes.study.cell import Cell
from r1recipes.study.leaderboard import best, ranked, short, show_value
from r1recipes.study.trials import Trials, is_counted


def best_recipe(trials: Trials, trial: FrozenTrial, folder: Path) -> str:
    """The text of a trial's complete recipe, to be written into `folder`."""
    cell = trials.cell
    loaded = cell.load(trial.params)
    moved = moved_recipe(loaded.recipe, loaded.path.parent, folder)
    searched = {overrides.path_of(key) for key in trial.params}

    def origin(path: Loc) -> str | None:
        in_every_preset = (path[0], *path[2:]) if path[0] == "preset" and len(path) == 3 else path
        return "found by the study" if {path, in_every_preset} & searched else None

    metrics = zip(cell.settings.metrics, trial.values or [], strict=False)
    reached = ", ".join(f"{name} {show_value(value, name)}" for name, value in metrics)
    preset = f" --preset {cell.preset}" if cell.preset else ""
    head = (
        f"# The best of study {cell.full_name}: trial {trial.number}, {reached}.\n"
        f"# `python -m r1recipes run best.toml{preset}` trains it.\n"
    )
    return head + render.render(moved, origin)


def moved_recipe(recipe: Recipe, old: Path, new: Path) -> Recipe:
    """The recipe of a file in folder `old` as a file in folder `new`: it names the same files."""

    def path(name: str) -> str:
        return os.path.relpath(old / name, new) if (old / name).exists() else name

    return Recipe.model_validate(references.with_names(recipe.model_dump(), path))


def trial_rows(cells: Sequence[Trials]) -> list[dict[str, Any]]:
    """A row for each trial: cell, number, state, values, parameters, memory, run folder, error."""
    return [_trial_row(trials.cell, trial) for trials in cells for trial in trials.all()]


def _trial_row(cell: Cell, trial: FrozenTrial) -> dict[str, Any]:
    attributes = trial.user_attrs
    values = trial.values or [None] * len(cell.settings.metrics)
    return {
        "cell": cell.name,
        "trial": trial.number,
        "state": leaderboard.state(trial),
        "counts": is_counted(trial),
        **dict(zip(cell.settings.metrics, values, strict=True)),
        **{key: trial.params.get(key) for key in cell.search},
        "predicted_gib": _predicted_gib(trial, "peak_bytes"),
        "room_gib": _predicted_gib(trial, "available_bytes"),
        "excess_gib": trial.constraints.get("excess_gib"),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "run": attributes.get("run"),
        "error": attributes.get("error", {}).get("message") or attributes.get("infeasible"),
    }


def _predicted_gib(trial: FrozenTrial, key: str) -> float | None:
    """A part of the predicted memory; None on a CPU."""
    predicted = trial.user_attrs.get("predicted")
    return predicted and predicted[key] / GIB


def export(cells: Sequence[Trials], suffix: str) -> str:
    """All trials as the text of a .csv or .json file. Raises: RecipeError for another suffix."""
    rows = trial_rows(cells)
    if suffix == ".json":
        return json.dumps({"study": cells[0].cell.study, "trials": rows}, indent=1) + "\n"
    if suffix != ".csv":
        message = f"trials cannot be exported as `{suffix}`"
        raise RecipeError(message, hint="name a .csv or .json file")
    text = io.StringIO()
    header = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class MatrixRow:
    """Cells that differ in their seed only: mean and 95 % interval of the first metric."""

    axes: dict[str, Any]
    """Key of [matrix] -> its value; the seed is left out."""
    values: list[float]
    """The first metric of the best trial of each cell that has one."""
    num_failed: int
    """Cells that are done and have no complete trial."""
    num_open: int
    """Cells that are not done and have no complete trial."""
    is_best: bool = False

    @property
    def mean(self) -> float | None:
        """The mean over seeds; None without a value."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def remark(self) -> str:
        """The seeds that the mean does not have, such as `2 failed, 1 open`."""
        counts = {"failed": self.num_failed, "open": self.num_open}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over seeds, by Student's t; None for a single value."""
        return mean_interval(self.values)


def matrix_rows(cells: Sequence[Trials]) -> list[MatrixRow]:
    """One row for each setting of a matrix, in its order; the first of the best is marked."""
    groups: dict[str, list[Trials]] = {}
    for trials in cells:
        groups.setdefault(repr(_setting(trials.cell)), []).append(trials)
    rows = [_matrix_row(group) for group in groups.values()]
    means = [row.mean for row in rows if row.mean is not None]
    if not means:
        return rows
    is_max = cells[0].study.directions[0] == StudyDirection.MAXIMIZE
    top = max(means) if is_max else min(means)
    first = next(place for place, row in enumerate(rows) if row.mean == top)
    return [replace(row, is_best=place == first) for place, row in enumerate(rows)]


def _setting(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in cell.axes.items() if key != "seed"}


def _matrix_row(group: list[Trials]) -> MatrixRow:
    best_trials = [(trials, best(trials)) for trials in group]
    without = [trials for trials, trial in best_trials if trial is None]
    num_failed = sum(trials.is_done() for trials in without)
    values = [trial.values[0] for _, trial in best_trials if trial]
    return MatrixRow(_setting(group[0].cell), values, num_failed, len(without) - num_failed)


def matrix_table(cells: Sequence[Trials]) -> Table:
    """The table of a matrix: a row for each setting, with its mean, interval and seeds."""
    metric = cells[0].cell.settings.metrics[0]
    rows = matrix_rows(cells)
    keys = list(rows[0].axes)
    table = Table(box=None, padding=(0, 1))
    for name in short(keys).values():
        table.add_column(Text(name), justify="left")
    for heading in (metric.removeprefix("eval/"), "95 %", "seeds", ""):
        table.add_column(Text(heading), justify="right")
    for row in rows:
        interval = " to ".join(show_value(end, metric) for end in row.interval or ())
        mean = show_value(row.mean, metric) if row.mean is not None else ""
        remark = ", ".join(filter(None, ("best" if row.is_best else "", row.remark)))
        axes = [str(row.axes[key]) for key in keys]
        texts = map(Text, (*axes, mean, interval, str(len(row.values)), remark))
        table.add_row(*texts, style="bold" if row.is_best else "")
    return table


def best_of(best_trials: Sequence[tuple[Trials, FrozenTrial]]) -> tuple[Trials, FrozenTrial]:
    """The best of the cells' best trials; in a matrix, a trial of its best row."""
    trials = best_trials[0][0]
    if trials.cell.axes:
        top = next(row for row in matrix_rows([cell for cell, _ in best_trials]) if row.is_best)
        best_trials = [pair for pair in best_trials if _setting(pair[0].cell) == top.axes]
    order = ranked([trial for _, trial in best_trials], trials.study.directions[0])
    return next(pair for pair in best_trials if pair[1] is order[0])

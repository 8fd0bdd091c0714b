"""The table of a matrix: each setting with its mean and interval over the seeds, the best marked.

Reads trials only.
"""

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from rich.table import Table
from rich.text import Text

from r1recipes.cell import Cell
from r1recipes.leaderboard import best, ranked, short, show_value
from r1recipes.trials import Trials

T_QUANTILES = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1 to 10 degrees of freedom (NIST/SEMATECH 1.3.6.7.2)."""


@dataclass(frozen=True)
class Row:
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
        freedom = len(self.values) - 1
        if freedom < 1:
            return None
        known = freedom <= len(T_QUANTILES)
        # beyond the table the expansion of Abramowitz and Stegun 26.7.5, to a thousandth
        quantile = T_QUANTILES[freedom - 1] if known else 1.96 + 2.372 / freedom + 2.82 / freedom**2
        half = quantile * statistics.stdev(self.values) / math.sqrt(len(self.values))
        return self.mean - half, self.mean + half


def rows(cells: list[Trials]) -> list[Row]:
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


def _row(group: list[Trials]) -> Row:
    found = [best(trials) for trials in group]
    without = [trials for trials, trial in zip(group, found, strict=True) if trial is None]
    num_failed = sum(trials.is_done() for trials in without)
    values = [trial.values[0] for trial in found if trial]
    return Row(_setting(group[0].cell), values, num_failed, len(without) - num_failed)


def table(cells: list[Trials]) -> Table:
    """The final table of a matrix."""
    metric = cells[0].cell.settings.metrics[0]
    found = rows(cells)
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
        top = next(row for row in rows([cell for cell, _ in found]) if row.is_best)
        found = [pair for pair in found if _setting(pair[0].cell) == top.axes]
    order = ranked([trial for _, trial in found], trials.study.directions[0])
    return next(pair for pair in found if pair[1] is order[0])

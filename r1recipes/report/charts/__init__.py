"""Charts as data: lines and points, bars, parallel coordinates; and the CSV of each.

A chart has a key, which is its file name. `drawing` draws it. Nothing is read or written here.
"""

import csv as csv_format
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r1recipes.report.charts import scales
from r1recipes.report.charts.scales import Ends

GREY = -1
"""Tone of what a result is compared with: before training, predicted."""
Table = list[list[object]]
"""A header and rows, each as long as the header."""


@dataclass(frozen=True)
class Series:
    """One line, or one set of points. `x` and `y` are equally long; None and NaN leave a gap.

    `low` and `high` are drawn as a band round a line and as whiskers on points. `labels` name the
    points: the label of a point is shown while the pointer is on it.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    labels: Sequence[str] = ()
    points: bool = False
    smooth: bool = False
    """Draw the mean of the neighbours boldly and the values themselves faintly."""
    tone: int | None = None
    """Number of the colour; without it the place among the series."""


@dataclass(frozen=True)
class Plot:
    """Lines and points over a horizontal axis. `unit` and `x_unit` are of `scales.UNITS`."""

    key: str
    title: str
    series: Sequence[Series]
    note: str = ""
    x_label: str = "step"
    unit: str = ""
    x_unit: str = ""
    y_range: Ends = (None, None)
    x_log: bool = False
    y_log: bool = False

    def table(self) -> Table:
        """Header and rows: one row for each x, or for each point where points have labels."""
        if any(series.labels for series in self.series):
            return [["series", self.x_label, "value", "label"], *self._points()]
        header: list[object] = [self.x_label]
        columns: list[dict[float, float | None]] = []
        for series in self.series:
            for name, values in (("", series.y), (" low", series.low), (" high", series.high)):
                if values:
                    header.append(series.name + name)
                    columns.append(dict(zip(series.x, values, strict=True)))
        xs = sorted({x for series in self.series for x in series.x})
        rows: Table = [[x, *(column.get(x) for column in columns)] for x in xs]
        return [header, *rows]

    def _points(self) -> Iterator[list[object]]:
        for series in self.series:
            labels = series.labels or [""] * len(series.x)
            for x, y, label in zip(series.x, series.y, labels, strict=True):
                yield [series.name, x, y, label]


@dataclass(frozen=True)
class Bar:
    """One bar, with an interval if `low` and `high` are given."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: int = 0


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, one below the other."""

    key: str
    title: str
    bars: Sequence[Bar]
    note: str = ""
    unit: str = ""
    y_range: Ends = (0.0, None)

    def table(self) -> Table:
        """Header and rows: one row for each bar."""
        header: list[object] = ["", "value", "low", "high"]
        rows: Table = [[bar.label, bar.value, bar.low, bar.high] for bar in self.bars]
        has_intervals = any(bar.low is not None for bar in self.bars)
        return [row if has_intervals else row[:2] for row in [header, *rows]]


@dataclass(frozen=True)
class Axis:
    """One upright axis of parallel coordinates: a range of numbers, or choices evenly spaced."""

    name: str
    labels: tuple[str, str]
    """What is written at its lower and its upper end."""
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: Sequence[object] = ()
    """The values from the lower to the upper end; empty on an axis of numbers."""


@dataclass(frozen=True)
class Line:
    """A value on each axis of parallel coordinates, such as a trial has; None is drawn lowest."""

    name: str
    values: Sequence[object]
    is_bold: bool = False


@dataclass(frozen=True)
class Parallel:
    """Parallel coordinates: axes side by side, and lines across them; the first are on top."""

    key: str
    title: str
    axes: Sequence[Axis]
    lines: Sequence[Line]

    def table(self) -> Table:
        """Header and rows: one row for each line."""
        header: list[object] = ["", *(axis.name for axis in self.axes)]
        return [header, *([line.name, *line.values] for line in self.lines)]


Chart = Plot | Bars | Parallel


def csv(chart: Chart) -> str:
    """The data of a chart as CSV: a header, then rows; a value that is missing is empty."""
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    for row in chart.table():
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.7g}" if math.isfinite(value) else ""
    return value


def has_data(chart: Chart) -> bool:
    """Whether there is anything to draw; one line across axes shows nothing."""
    if isinstance(chart, Bars):
        return bool(chart.bars)
    if isinstance(chart, Parallel):
        return len(chart.lines) > 1
    return any(scales.is_number(y) for series in chart.series for y in series.y)

"""Charts as data: what is drawn (`drawing`), and the same as CSV.

A chart has a key, which is its file name. Nothing is read or written here.
"""

import csv as csv_format
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r1recipes.report import scales

GREY = -1
"""Tone of what stands beside the matter: before, predicted, pruned."""


@dataclass(frozen=True)
class Series:
    """One line, or one set of points. `x` and `y` are equally long; None and NaN leave a gap.

    `low` and `high` are drawn as a band round a line and as whiskers on points; `labels` name the
    points where they are pointed at.
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
    dashed: bool = False
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
    y_range: tuple[float | None, float | None] = (None, None)
    x_log: bool = False
    y_log: bool = False

    def table(self) -> list[list[object]]:
        """Header and rows: one row for each x, or for each point where points have labels."""
        if any(s.labels for s in self.series):
            return [["series", self.x_label, "value", "label"], *self._points()]
        header: list[object] = [self.x_label]
        columns: list[dict[float, float | None]] = []
        for series in self.series:
            for name, values in (("", series.y), (" low", series.low), (" high", series.high)):
                if values:
                    header.append(series.name + name)
                    columns.append(dict(zip(series.x, values, strict=True)))
        places = sorted({x for series in self.series for x in series.x})
        return [header, *([x, *(column.get(x) for column in columns)] for x in places)]

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
    y_range: tuple[float | None, float | None] = (0.0, None)

    def table(self) -> list[list[object]]:
        """Header and rows: one row for each bar."""
        rows = [[b.label, b.value, b.low, b.high] for b in self.bars]
        whole = any(b.low is not None for b in self.bars)
        header = ["", "value", "low", "high"]
        return [row if whole else row[:2] for row in [header, *rows]]


Chart = Plot | Bars


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
    """Whether there is anything to draw."""
    if isinstance(chart, Bars):
        return bool(chart.bars)
    return any(scales.is_number(y) for series in chart.series for y in series.y)

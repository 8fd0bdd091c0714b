"""The lines of a plot: smoothed, thinned, and told apart where several lie on each other.

Knows values and positions, not colours or elements: `drawing` makes SVG of them. Limits: lines that
cross are not told apart, only those that coincide over a whole segment.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from r1recipes.report.charts import scales
from r1recipes.report.charts.scales import Scale

MAX_POINTS = 600
"""Points of a line that are drawn; more do not show at this width. The CSV has all."""
NEAR = 1.5
"""Units between two lines that hide each other: less than the width of a line; assumed."""
STRIPE = 9
"""Units of each colour where lines lie on each other; assumed, five colours fit into 45."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """A stretch of a line. Of `count` lines that lie on each other, this is number `rank`."""

    points: list[Point]
    rank: int = 0
    count: int = 1

    @property
    def dashes(self) -> tuple[int, int, float]:
        """Length of a dash, of a gap, and where in them the piece begins. The position is counted
        from the left of the plot, so the lines of one place take turns."""
        period = self.count * STRIPE
        return STRIPE, period - STRIPE, (self.points[0][0] - self.rank * STRIPE) % period


def smoothed(values: Sequence[float | None]) -> list[float | None]:
    """Each value replaced by the straight line through its neighbours: a tenth of all values, at
    least 5. In the middle this is their mean; at both ends the line of the outermost window is
    followed to the end, so no single value bends it (Savitzky and Golay 1964, of degree 1).

    A missing value stays missing, and nothing leaves the range of the values.
    """
    half = max(2, len(values) // 20)
    size = min(2 * half + 1, len(values))
    sums = _Sums(values)
    numbers = [value for value in values if scales.is_number(value)]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    fitted: list[float | None] = []
    for index, value in enumerate(values):
        first = min(max(index - half, 0), len(values) - size)
        at = sums.line(first, first + size, index)
        fitted.append(min(max(at, low), high) if scales.is_number(value) else None)
    return fitted


class _Sums:
    """Running sums of a series, from which a straight line is fitted to any window at once."""

    def __init__(self, values: Sequence[float | None]) -> None:
        rows = [(i, float(v)) for i, v in enumerate(values) if scales.is_number(v)]
        columns: list[list[float]] = [[0.0] * len(values) for _ in range(5)]
        for i, v in rows:
            for column, term in zip(columns, (1.0, i, v, i * i, i * v), strict=True):
                column[i] = term
        self._sums = [[0.0, *accumulate(column)] for column in columns]

    def line(self, first: int, end: int, at: int) -> float:
        """The value at `at` of the line through the values from `first` up to `end`."""
        count, x, y, xx, xy = (column[end] - column[first] for column in self._sums)
        if not count:
            return 0.0
        spread = xx - x * x / count
        slope = (xy - x * y / count) / spread if spread > 1e-9 else 0.0
        return y / count + slope * (at - x / count)


def stretches(
    xs: Sequence[float], ys: Sequence[float | None], x: Scale, y: Scale
) -> list[list[Point]]:
    """Positions of a line; a value that is missing breaks it, and a long stretch is thinned."""
    pairs = [
        (a, b) if scales.is_number(b) and (b > 0 or not y.log) else None
        for a, b in zip(xs, ys, strict=True)
    ]
    parts = []
    for _, group in groupby(pairs, key=lambda pair: pair is None):
        if stretch := [pair for pair in group if pair is not None]:
            parts.append([(x(a), y(within(b, y))) for a, b in _thinned(stretch)])
    return parts


def within(value: float, scale: Scale) -> float:
    """The value, or the nearest end of the scale."""
    return min(max(value, scale.low), scale.high)


def _thinned(pairs: list[Point]) -> list[Point]:
    """The lowest and the highest of each stretch, so that no spike is lost."""
    if len(pairs) <= MAX_POINTS:
        return pairs
    size = math.ceil(2 * len(pairs) / MAX_POINTS)
    thinned = []
    for start in range(0, len(pairs), size):
        stretch = pairs[start : start + size]
        thinned += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return thinned


def told_apart(lines: Sequence[list[list[Point]]]) -> list[list[Piece]]:
    """The pieces of each line, cut where it begins and ceases to lie on others.

    `lines` are those of one plot, each as `stretches` gives it.
    """
    together = _together(lines)
    return [[*_pieces(number, line, together)] for number, line in enumerate(lines)]


Segment = tuple[float, float]
"""Where a segment begins and ends, in units from the left."""


def _together(lines: Sequence[list[list[Point]]]) -> dict[tuple[int, Segment], tuple[int, int]]:
    """(Line, segment) -> its rank among the lines that lie on each other there, and their count."""
    heights: dict[Segment, list[tuple[float, float, int]]] = {}
    for number, line in enumerate(lines):
        for stretch in line:
            for (x0, y0), (x1, y1) in pairwise(stretch):
                heights.setdefault((x0, x1), []).append((y0, y1, number))
    ranks: dict[tuple[int, Segment], tuple[int, int]] = {}
    for segment, at in heights.items():
        for cluster in _clusters(sorted(at)):
            for rank, number in enumerate(sorted(cluster)):
                ranks[number, segment] = (rank, len(cluster))
    return ranks


def _clusters(heights: list[tuple[float, float, int]]) -> Iterator[list[int]]:
    """Lines whose segments begin and end at nearly the same height, from the highest down."""
    cluster = [heights[0][2]]
    for (y0, y1, _), (next0, next1, number) in pairwise(heights):
        if abs(next0 - y0) < NEAR and abs(next1 - y1) < NEAR:
            cluster.append(number)
        else:
            yield cluster
            cluster = [number]
    yield cluster


def _pieces(
    number: int,
    line: list[list[Point]],
    together: dict[tuple[int, Segment], tuple[int, int]],
) -> Iterator[Piece]:
    for stretch in line:
        if len(stretch) == 1:
            yield Piece(stretch * 2)  # a value alone is a dot
        for (rank, count), group in groupby(
            pairwise(stretch), key=lambda ends: together[number, (ends[0][0], ends[1][0])]
        ):
            segments = [*group]
            yield Piece([segments[0][0], *(end for _, end in segments)], rank, count)

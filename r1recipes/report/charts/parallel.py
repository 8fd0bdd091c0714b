"""Draws parallel coordinates: upright axes side by side, and a line across them for each trial.

Knows positions and labels; `drawing` makes an element of it, as wide as the axes need.
"""

from collections.abc import Sequence

from markupsafe import Markup

from r1recipes.report.charts import Axis, Line, Parallel, scales
from r1recipes.report.charts.scales import Scale

WIDTH, HEIGHT = 1000, 260
"""Size of the drawing, in units; with many axes it is wider."""
TOP, BOTTOM = 34, 236
"""Upper and lower end of an axis, in units from the top."""
SIDE, MIN_GAP, MAX_NAME = 70, 120, 19
"""Room beside the outer axes and between two, in units; characters of a label that fit there."""


def drawn(chart: Parallel) -> tuple[float, Markup]:
    """The width in units, and the elements: upright axes with their labels, and the lines across
    them; the first line is on top."""
    gap = max(MIN_GAP, (WIDTH - 2 * SIDE) / max(1, len(chart.axes) - 1))
    xs = [SIDE + index * gap for index in range(len(chart.axes))]
    parts = [_across(line, chart.axes, xs) for line in reversed(chart.lines)]
    parts += [_upright(axis, x) for axis, x in zip(chart.axes, xs, strict=True)]
    inner = Markup('<g class="parallel t0" text-anchor="middle">{}</g>').format(
        Markup("").join(parts)
    )
    return xs[-1] + SIDE, inner


def _across(line: Line, axes: Sequence[Axis], xs: Sequence[float]) -> Markup:
    heights = map(_height, line.values, axes)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, heights, strict=True))
    bold = Markup(' class="bold"') if line.is_bold else ""
    return Markup('<polyline{} points="{}"><title>{}</title></polyline>').format(
        bold, points, line.name
    )


def _height(value: object, axis: Axis) -> float:
    """The vertical position of a value; one that is not on the axis is drawn at its lower end."""
    share = 0.0
    if axis.choices:
        if value in axis.choices:
            share = axis.choices.index(value) / max(1, len(axis.choices) - 1)
    elif axis.high <= axis.low:
        share = 0.5
    elif scales.is_number(value):
        share = Scale(axis.low, axis.high, 0.0, 1.0, axis.log)(value)
    return BOTTOM - share * (BOTTOM - TOP)


def _upright(axis: Axis, x: float) -> Markup:
    bottom, top = axis.labels
    return Markup(
        '<g transform="translate({:.1f})"><line y1="{}" y2="{}"/><text y="{}">{}</text>'
        '<text y="{}">{}</text><text y="{}">{}</text></g>'
    ).format(
        x,
        TOP,
        BOTTOM,
        TOP - 22,
        _shortened(axis.name),
        TOP - 8,
        _shortened(top),
        BOTTOM + 16,
        _shortened(bottom),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"

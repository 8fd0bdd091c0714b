"""A chart as an SVG drawing with axes and legend.

Colours are CSS variables of the page (`page.css`), so a drawing follows the reader's light or dark
setting. The page's script shows the value under the pointer.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, groupby

from markupsafe import Markup

from r1recipes.report.charts import (
    GREY,
    Axis,
    Bar,
    Bars,
    Chart,
    Line,
    Parallel,
    Plot,
    Series,
    scales,
)
from r1recipes.report.charts.scales import Scale

WIDTH, HEIGHT = 360, 210
"""Units of the drawing; a page shows it at about one pixel a unit, so text has its natural size."""
FONT = 11
CHARACTER = 0.56 * FONT
"""Mean width of a character of a sans-serif font; assumed, it spaces the legend only."""
TONES = 7
"""Colours that can be told apart, beside grey; from there on they repeat."""
MAX_FAINT = 3
"""Series whose single values are drawn behind their means; with more, only means can be read."""
MAX_POINTS = 600
"""Points of a line that are drawn; more do not show at this width. The CSV has all."""
PARALLEL_WIDTH, PARALLEL_HEIGHT = 1000, 260
"""Size of parallel coordinates, in pixels; with many axes they are wider."""
PARALLEL_TOP, PARALLEL_BOTTOM = 34, 236
"""Upper and lower end of an axis of parallel coordinates, in pixels from the top."""
SIDE, MIN_GAP, MAX_NAME = 70, 120, 19
"""Room beside the outer axes and between two, in pixels; characters of a label that fit there."""


def svg(chart: Chart) -> Markup:
    """The drawing, as an <svg> element."""
    if isinstance(chart, Plot):
        return _plot(chart)
    return _bars(chart) if isinstance(chart, Bars) else _parallel(chart)


def _plot(plot: Plot) -> Markup:
    legend, top = _legend(plot.series)
    bottom = HEIGHT - 34
    every_y = [v for s in plot.series for column in (s.y, s.low, s.high) for v in column]
    low, high = scales.extent(every_y, plot.y_range, plot.y_log)
    y = Scale(low, high, bottom, top, plot.y_log)
    marks = [(v, scales.text(v, plot.unit, y.ticks())) for v in y.ticks()]
    left = 12 + max((len(label) for _, label in marks), default=0) * CHARACTER
    xs = [x for s in plot.series for x in s.x if scales.is_number(x) and (x > 0 or not plot.x_log)]
    first, last = min(xs, default=1.0 if plot.x_log else 0.0), max(xs, default=1.0)
    if last <= first:
        first, last = (first / 2, last * 2) if plot.x_log else (first - 1, last + 1)
    air = 8 if any(s.points for s in plot.series) else 0
    x = Scale(first, last, left + air, WIDTH - 12 - air, plot.x_log)
    parts = [_grid(marks, y, left), _x_axis(plot, x, bottom), legend]
    parts += [_series(s, _tone(s.tone, i), x, y, plot) for i, s in enumerate(plot.series)]
    frame = Markup(
        'data-x0="{:g}" data-x1="{:g}" data-left="{:.1f}" data-right="{:.1f}" data-log="{}"'
    ).format(first, last, x.start, x.end, int(plot.x_log))
    rule = Markup('<line class="rule" y1="{}" y2="{}"/>').format(round(top), bottom)
    return _element(plot.title, (WIDTH, HEIGHT), Markup("").join([*parts, rule]), frame)


def _element(
    title: str, size: tuple[float, float], inner: Markup, attributes: Markup | None = None
) -> Markup:
    """An <svg> element; `size` is its width and height."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" role="img" '
        'aria-label="{}" {}>{}</svg>'
    ).format(*size, title, attributes or "", inner)


def _tone(tone: int | None, index: int = 0) -> int:
    number = index if tone is None else tone
    return number if number == GREY else number % TONES


def _legend(series: Sequence[Series]) -> tuple[Markup, float]:
    """The names of the series above the plot, and where the plot begins below them."""
    if len(series) < 2:
        return Markup(""), 10
    parts, x, y = [], 2.0, 12.0
    for index, one in enumerate(series):
        name = one.name if len(one.name) <= 40 else one.name[:39] + "…"
        width = 16 + len(name) * CHARACTER + 12
        if x > 2 and x + width > WIDTH:
            x, y = 2.0, y + 16
        parts.append(
            Markup(
                '<line class="t{0}{1}" x1="{2:.0f}" x2="{3:.0f}" y1="{4:g}" y2="{4:g}"/>'
                '<text x="{5:.0f}" y="{6:g}">{7}</text>'
            ).format(_tone(one.tone, index), _dashed(one), x, x + 11, y - 3.5, x + 16, y, name)
        )
        x += width
    return Markup('<g class="legend">{}</g>').format(Markup("").join(parts)), y + 15


def _dashed(series: Series) -> str:
    return " dashed" if series.dashed else ""


def _grid(marks: list[tuple[float, str]], y: Scale, left: float) -> Markup:
    line = Markup(
        '<line x1="{0:.1f}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text x="{3:.1f}" y="{4:.1f}" text-anchor="end">{5}</text>'
    )
    lines = [line.format(left, WIDTH - 12, y(v), left - 6, y(v) + 4, label) for v, label in marks]
    return Markup('<g class="grid">{}</g>').format(Markup("").join(lines))


def _x_axis(plot: Plot, x: Scale, bottom: float) -> Markup:
    values = x.ticks(5)
    labels = [scales.text(v, plot.x_unit, values) for v in values]
    parts = [
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x(v), bottom + 15, label
        )
        for v, label in zip(values, labels, strict=True)
    ]
    parts.append(
        Markup('<text class="label" x="{:.1f}" y="{}" text-anchor="end">{}</text>').format(
            WIDTH - 12, bottom + 30, plot.x_label
        )
    )
    return Markup('<g class="axis">{}</g>').format(Markup("").join(parts))


def _series(series: Series, tone: int, x: Scale, y: Scale, plot: Plot) -> Markup:
    if series.points:
        return _points(series, tone, x, y, plot)
    parts = []
    if series.low and series.high:
        parts.append(_band(series, x, y))
    lines = [("line", series.y)]
    if series.smooth and len(series.x) > 4:
        single = [("faint", series.y)] if len(plot.series) <= MAX_FAINT else []
        lines = [*single, ("line", smoothed(series.y))]
    for kind, values in lines:
        path = _path(series.x, values, x, y)
        parts.append(Markup('<path class="{}" d="{}"/>').format(kind, path))
    return Markup('<g class="t{}{}">{}</g>').format(tone, _dashed(series), Markup("").join(parts))


def smoothed(values: Sequence[float | None]) -> list[float | None]:
    """Mean of each value and its neighbours: a tenth of all values, at least 5."""
    half = max(2, len(values) // 20)
    sums = [0.0, *accumulate(float(v) if scales.is_number(v) else 0.0 for v in values)]
    counts = [0, *accumulate(map(scales.is_number, values))]
    means: list[float | None] = []
    for index, value in enumerate(values):
        reach = min(half, index, len(values) - 1 - index)  # symmetric, so a slope stays a slope
        first, end = index - reach, index + reach + 1
        mean = (sums[end] - sums[first]) / max(1, counts[end] - counts[first])
        means.append(mean if scales.is_number(value) else None)
    return means


def _path(xs: Sequence[float], ys: Sequence[float | None], x: Scale, y: Scale) -> str:
    """SVG path data; a value that is missing breaks the line, and a value alone is a dot."""
    pairs = [
        (a, b) if scales.is_number(b) and (b > 0 or not y.log) else None
        for a, b in zip(xs, ys, strict=True)
    ]
    pieces = []
    for _, group in groupby(pairs, key=lambda pair: pair is None):
        if stretch := [pair for pair in group if pair is not None]:
            points = [f"{x(a):.1f},{y(_within(b, y)):.1f}" for a, b in _thinned(stretch)]
            pieces.append("M" + "L".join(points if len(points) > 1 else points * 2))
    return "".join(pieces)


def _within(value: float, scale: Scale) -> float:
    return min(max(value, scale.low), scale.high)


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lowest and the highest of each stretch, so that no spike is lost."""
    if len(pairs) <= MAX_POINTS:
        return pairs
    size = math.ceil(2 * len(pairs) / MAX_POINTS)
    thinned = []
    for start in range(0, len(pairs), size):
        stretch = pairs[start : start + size]
        thinned += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return thinned


def _band(series: Series, x: Scale, y: Scale) -> Markup:
    columns = [
        (x(a), y(_within(low, y)), y(_within(high, y)))
        for a, low, high in zip(series.x, series.low, series.high, strict=True)
        if scales.is_number(low) and scales.is_number(high)
    ]
    upper = [f"{a:.1f},{high:.1f}" for a, _, high in columns]
    lower = [f"{a:.1f},{low:.1f}" for a, low, _ in reversed(columns)]
    return Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower))


def _points(series: Series, tone: int, x: Scale, y: Scale, plot: Plot) -> Markup:
    parts = []
    for index, (a, b) in enumerate(zip(series.x, series.y, strict=True)):
        if not (scales.is_number(a) and scales.is_number(b)) or (x.log and a <= 0):
            continue
        low = series.low[index] if series.low else None
        high = series.high[index] if series.high else None
        if low is not None and high is not None:
            parts.append(_whisker(x(a), y(low), y(high)))
        label = series.labels[index] if series.labels else series.name
        title = f"{label}: {scales.text(b, plot.unit)} at {scales.text(a, plot.x_unit)}"
        parts.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>').format(
                x(a), y(_within(b, y)), title
            )
        )
    return Markup('<g class="t{}">{}</g>').format(tone, Markup("").join(parts))


def _whisker(x: float, low: float, high: float) -> Markup:
    return Markup('<path class="whisker" d="M{0:.1f},{1:.1f}V{2:.1f}"/>').format(x, low, high)


def _bars(chart: Bars) -> Markup:
    """Each bar has its label above it, so that long names have room."""
    values = [v for b in chart.bars for v in (b.value, b.low, b.high)]
    low, high = scales.extent(values, chart.y_range)
    x = Scale(low, high, 2, WIDTH - 74)
    rows = [_bar(bar, 14 + 38 * index, x, chart.unit) for index, bar in enumerate(chart.bars)]
    return _element(chart.title, (WIDTH, 38 * len(chart.bars) + 2), Markup("").join(rows))


def _bar(bar: Bar, top: float, x: Scale, unit: str) -> Markup:
    start, end = sorted((x(min(max(0.0, x.low), x.high)), x(bar.value)))
    value = scales.text(bar.value, unit)
    inner = Markup(
        '<text x="2" y="{}">{}</text><rect class="track" x="2" y="{}" width="{}" height="12" '
        'rx="3"/><rect x="{:.1f}" y="{}" width="{:.1f}" height="12" rx="3"/>'
    ).format(top, bar.label, top + 6, WIDTH - 76, start, top + 6, max(1.0, end - start))
    if bar.low is not None and bar.high is not None:
        inner += Markup(
            '<path class="whisker" d="M{0:.1f},{2}H{1:.1f}M{0:.1f},{3}v6M{1:.1f},{3}v6"/>'
            "<title>{4}: {5} ({6} to {7})</title>"
        ).format(
            x(bar.low),
            x(bar.high),
            top + 12,
            top + 9,
            bar.label,
            value,
            scales.text(bar.low, unit),
            scales.text(bar.high, unit),
        )
    inner += Markup('<text class="value" x="{}" y="{}" text-anchor="end">{}</text>').format(
        WIDTH - 2, top + 16, value
    )
    return Markup('<g class="bar t{}">{}</g>').format(_tone(bar.tone), inner)


def _parallel(chart: Parallel) -> Markup:
    """Upright axes with their labels, and the lines across them; the first line is on top."""
    gap = max(MIN_GAP, (PARALLEL_WIDTH - 2 * SIDE) / max(1, len(chart.axes) - 1))
    xs = [SIDE + index * gap for index in range(len(chart.axes))]
    parts = [_across(line, chart.axes, xs) for line in reversed(chart.lines)]
    parts += [_upright(axis, x) for axis, x in zip(chart.axes, xs, strict=True)]
    inner = Markup('<g class="parallel t0" text-anchor="middle">{}</g>').format(
        Markup("").join(parts)
    )
    width = xs[-1] + SIDE
    attributes = Markup('width="{:g}"').format(width)
    return _element(chart.title, (width, PARALLEL_HEIGHT), inner, attributes)


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
    return PARALLEL_BOTTOM - share * (PARALLEL_BOTTOM - PARALLEL_TOP)


def _upright(axis: Axis, x: float) -> Markup:
    bottom, top = axis.labels
    return Markup(
        '<g transform="translate({:.1f})"><line y1="{}" y2="{}"/><text y="{}">{}</text>'
        '<text y="{}">{}</text><text y="{}">{}</text></g>'
    ).format(
        x,
        PARALLEL_TOP,
        PARALLEL_BOTTOM,
        PARALLEL_TOP - 22,
        _shortened(axis.name),
        PARALLEL_TOP - 8,
        _shortened(top),
        PARALLEL_BOTTOM + 16,
        _shortened(bottom),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"

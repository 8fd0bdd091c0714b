"""A chart as an SVG drawing with axes and legend.

Colours are CSS variables of the page (`page.css`), so a drawing follows the reader's light or dark
setting. The page's script shows the value under the pointer.
"""

from collections.abc import Sequence

from markupsafe import Markup

from r1recipes.report.charts import (
    GREY,
    Bar,
    Bars,
    Chart,
    Parallel,
    Plot,
    Series,
    lines,
    parallel,
    scales,
)
from r1recipes.report.charts.scales import Scale

WIDTH, WIDE, HEIGHT = 360, 548, 200
"""Units of a drawing, and the width of one in a wide card. A page shows it at about one pixel a
unit, so text has its natural size."""
FONT = 11
CHARACTER = 0.56 * FONT
"""Mean width of a character of a sans-serif font; assumed, it spaces the legend only."""
TONES = 7
"""Colours that can be told apart, beside grey; from there on they repeat."""
MAX_FAINT = 3
"""Series whose single values are drawn behind their means; with more, only means can be read."""
MAX_SHORT = 6
"""Characters of a label that stands beside the ticks of its axis; a longer one stands below."""
MAX_BESIDE = 22
"""Characters of labels that stand beside their bars; assumed, they leave the bars 40 % of it."""
MAX_DESCRIBED = 8
"""Lines or bars that the description of a drawing names; the CSV has all."""


def svg(chart: Chart, width: int = WIDTH) -> Markup:
    """The drawing, as an <svg> element `width` units wide; parallel coordinates have their own."""
    if isinstance(chart, Plot):
        return _plot(chart, width)
    if isinstance(chart, Bars):
        return _bars(chart, width)
    units, inner = parallel.drawn(chart)
    return _element(chart, (units, parallel.HEIGHT), inner, Markup('width="{:g}"').format(units))


def described(chart: Chart) -> str:
    """A chart in a sentence, for those who do not see it: `Reward: 2.8 at step 1, 3.9 at step 90`.

    The values are those of the data, before smoothing.
    """
    if isinstance(chart, Parallel):
        return f"{chart.title}: {len(chart.lines)} lines over {len(chart.axes)} axes"
    if isinstance(chart, Bars):
        parts = [f"{b.label} {scales.text(b.value, chart.unit)}".strip() for b in chart.bars]
    else:
        parts = [text for series in chart.series if (text := _ends(series, chart))]
    more = f", and {len(parts) - MAX_DESCRIBED} more" if len(parts) > MAX_DESCRIBED else ""
    return f"{chart.title}: {'; '.join(parts[:MAX_DESCRIBED])}{more}"


def _ends(series: Series, plot: Plot) -> str:
    """The first and the last value of a series; of points their number. Empty without values."""
    pairs = [(a, b) for a, b in zip(series.x, series.y, strict=True) if scales.is_number(b)]
    if not pairs:
        return ""
    name = f"{series.name} " if len(plot.series) > 1 else ""
    if series.points:
        return f"{name}{len(pairs)} points"
    ends = [
        f"{scales.text(b, plot.unit)} at {plot.x_label} {scales.text(a, plot.x_unit)}"
        for a, b in (pairs if len(pairs) == 1 else (pairs[0], pairs[-1]))
    ]
    return name + ", ".join(ends)


def _plot(plot: Plot, width: int) -> Markup:
    legend, top = _legend(plot.series, width)
    bottom = HEIGHT - (20 if len(plot.x_label) <= MAX_SHORT else 34)
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
    x = Scale(first, last, left + air, width - 12 - air, plot.x_log)
    is_whole = not plot.x_unit and all(float(value).is_integer() for value in xs)
    ticks = x.ticks(5, is_whole=is_whole)
    parts = [_grid(marks, y, left, width), _x_axis(plot, x, ticks, (width, bottom)), legend]
    parts += _all_series(plot, x, y)
    frame = Markup(
        'data-x0="{:g}" data-x1="{:g}" data-left="{:.1f}" data-right="{:.1f}" data-log="{}"'
    ).format(first, last, x.start, x.end, int(plot.x_log))
    rule = Markup('<line class="rule" y1="{}" y2="{}"/>').format(round(top), bottom)
    return _element(plot, (width, HEIGHT), Markup("").join([*parts, rule]), frame)


def _element(
    chart: Chart, size: tuple[float, float], inner: Markup, attributes: Markup | None = None
) -> Markup:
    """An <svg> element; `size` is its width and height."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" role="img" '
        'aria-label="{}" {}>{}</svg>'
    ).format(*size, described(chart), attributes or "", inner)


def colour(asked: int | None, index: int = 0) -> int:
    """The number of a colour: the one that is asked for, or that of the place among the series."""
    number = index if asked is None else asked
    return number if number == GREY else number % TONES


def _legend(series: Sequence[Series], width: int) -> tuple[Markup, float]:
    """The names of the series above the plot, and where the plot begins below them."""
    if len(series) < 2:
        return Markup(""), 10
    parts, x, y = [], 2.0, 12.0
    for index, one in enumerate(series):
        name = one.name if len(one.name) <= 40 else one.name[:39] + "…"
        room = 16 + len(name) * CHARACTER + 12
        if x > 2 and x + room > width:
            x, y = 2.0, y + 16
        mark = '<line class="t{}" x1="{:.0f}" x2="{:.0f}" y1="{:g}" y2="{:g}"/>'
        if one.points:
            mark = '<circle class="t{}" cx="{:.0f}" cy="{:g}" r="3.5"/>'
        place = (x + 6, y - 3.5) if one.points else (x, x + 11, y - 3.5, y - 3.5)
        parts.append(Markup(mark).format(colour(one.tone, index), *place))
        parts.append(Markup('<text x="{:.0f}" y="{:g}">{}</text>').format(x + 16, y, name))
        x += room
    return Markup('<g class="legend">{}</g>').format(Markup("").join(parts)), y + 15


def _grid(marks: list[tuple[float, str]], y: Scale, left: float, width: int) -> Markup:
    line = Markup(
        '<line x1="{0:.1f}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text x="{3:.1f}" y="{4:.1f}" text-anchor="end">{5}</text>'
    )
    drawn = [line.format(left, width - 12, y(v), left - 6, y(v) + 4, label) for v, label in marks]
    return Markup('<g class="grid">{}</g>').format(Markup("").join(drawn))


def _x_axis(plot: Plot, x: Scale, ticks: list[float], corner: tuple[float, float]) -> Markup:
    """Ticks and the name of the axis; `corner` is the lower right one of the drawing's plot."""
    width, bottom = corner
    is_short = len(plot.x_label) <= MAX_SHORT
    end = width - 12 - (len(plot.x_label) * CHARACTER + 4 if is_short else -12)
    parts = []
    for value in ticks:
        label = scales.text(value, plot.x_unit, ticks)
        if x(value) + len(label) * CHARACTER / 2 <= end:
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    x(value), bottom + 15, label
                )
            )
    parts.append(
        Markup('<text class="label" x="{:.1f}" y="{}" text-anchor="end">{}</text>').format(
            width - 12, bottom + (15 if is_short else 30), plot.x_label
        )
    )
    return Markup('<g class="axis">{}</g>').format(Markup("").join(parts))


def _all_series(plot: Plot, x: Scale, y: Scale) -> list[Markup]:
    """Bands and single values first, then the lines, then the points on top."""
    behind, bold = [], []
    for index, series in enumerate(plot.series):
        if not series.points:
            is_smooth = series.smooth and len(series.x) > 4
            behind.append(_behind(series, colour(series.tone, index), x, y, plot, is_smooth))
            values = lines.smoothed(series.y) if is_smooth else series.y
            bold.append((colour(series.tone, index), lines.stretches(series.x, values, x, y)))
    pieces = lines.told_apart([line for _, line in bold])
    drawn = [_line(tone, line) for (tone, _), line in zip(bold, pieces, strict=True)]
    points = [
        _points(series, colour(series.tone, index), x, y, plot)
        for index, series in enumerate(plot.series)
        if series.points
    ]
    return [*behind, *drawn, *points]


def _behind(series: Series, tone: int, x: Scale, y: Scale, plot: Plot, is_smooth: bool) -> Markup:
    """The interval of a line, and its single values where the line is their mean."""
    parts = []
    if series.low and series.high:
        parts.append(_band(series, x, y))
    if is_smooth and len(plot.series) <= MAX_FAINT:
        path = "".join(map(_path, lines.stretches(series.x, series.y, x, y)))
        parts.append(Markup('<path class="faint" d="{}"/>').format(path))
    return Markup('<g class="t{}">{}</g>').format(tone, Markup("").join(parts))


def _line(tone: int, pieces: Sequence[lines.Piece]) -> Markup:
    """The pieces of a line; where it lies on others, a dash of each in turn."""
    alone = "".join(_path(piece.points) for piece in pieces if piece.count == 1)
    parts = [Markup('<path class="line" d="{}"/>').format(alone)] if alone else []
    for piece in pieces:
        if piece.count > 1:
            dash, gap, offset = piece.dashes
            parts.append(
                Markup(
                    '<path class="striped" stroke-dasharray="{} {}" stroke-dashoffset="{:.1f}" '
                    'd="{}"/>'
                ).format(dash, gap, offset, _path(piece.points))
            )
    return Markup('<g class="t{}">{}</g>').format(tone, Markup("").join(parts))


def _path(points: Sequence[lines.Point]) -> str:
    """SVG path data; a value alone is a dot."""
    pairs = [f"{x:.1f},{y:.1f}" for x, y in points]
    return "M" + "L".join(pairs if len(pairs) > 1 else pairs * 2)


def _band(series: Series, x: Scale, y: Scale) -> Markup:
    columns = [
        (x(a), y(lines.within(low, y)), y(lines.within(high, y)))
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
                x(a), y(lines.within(b, y)), title
            )
        )
    return Markup('<g class="t{}">{}</g>').format(tone, Markup("").join(parts))


def _whisker(x: float, low: float, high: float) -> Markup:
    return Markup('<path class="whisker" d="M{0:.1f},{1:.1f}V{2:.1f}"/>').format(x, low, high)


def _bars(chart: Bars, width: int) -> Markup:
    """Short labels stand on the left of their bars, long ones above them, where they have room."""
    longest = max((len(bar.label) for bar in chart.bars), default=0)
    is_beside = longest <= MAX_BESIDE
    left, height, down = (longest * CHARACTER + 14, 25, 6.0) if is_beside else (2.0, 38, 20.0)
    values = [v for b in chart.bars for v in (b.value, b.low, b.high)]
    low, high = scales.extent(values, chart.y_range)
    x = Scale(low, high, left, width - 74)
    rows = [
        _label(bar, height * index + (down + 10 if is_beside else 14))
        + _bar(bar, height * index + down, x, chart.unit)
        for index, bar in enumerate(chart.bars)
    ]
    groups = [
        Markup('<g class="bar t{}">{}</g>').format(colour(bar.tone), row)
        for bar, row in zip(chart.bars, rows, strict=True)
    ]
    return _element(chart, (width, height * len(chart.bars) + 2), Markup("").join(groups))


def _label(bar: Bar, baseline: float) -> Markup:
    return Markup('<text x="2" y="{:g}">{}</text>').format(baseline, bar.label)


def _bar(bar: Bar, top: float, x: Scale, unit: str) -> Markup:
    """A bar on its track, its interval, and its value on the right."""
    start, end = sorted((x(min(max(0.0, x.low), x.high)), x(bar.value)))
    value = scales.text(bar.value, unit)
    inner = Markup(
        '<rect class="track" x="{:.1f}" y="{:g}" width="{:.1f}" height="12" rx="3"/>'
        '<rect x="{:.1f}" y="{:g}" width="{:.1f}" height="12" rx="3"/>'
    ).format(x.start, top, x.end - x.start, start, top, max(1.0, end - start))
    if bar.low is not None and bar.high is not None:
        inner += Markup(
            '<path class="whisker" d="M{0:.1f},{2:g}H{1:.1f}M{0:.1f},{3:g}v6M{1:.1f},{3:g}v6"/>'
            "<title>{4}: {5} ({6} to {7})</title>"
        ).format(
            x(bar.low),
            x(bar.high),
            top + 6,
            top + 3,
            bar.label,
            value,
            scales.text(bar.low, unit),
            scales.text(bar.high, unit),
        )
    return inner + Markup(
        '<text class="value" x="{:g}" y="{:g}" text-anchor="end">{}</text>'
    ).format(x.end + 72, top + 10, value)

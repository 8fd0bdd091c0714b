import csv
import io
import math
import random
import xml.etree.ElementTree as xml
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1recipes.report import charts
from r1recipes.report.charts import (
    Axis,
    Bar,
    Bars,
    Chart,
    Line,
    Parallel,
    Plot,
    Series,
    drawing,
    lines,
    parallel,
)

SVG = "{http://www.w3.org/2000/svg}"
words = st.text(st.characters(exclude_categories=["C"]), max_size=60)
anything = st.none() | st.floats(allow_nan=True, allow_infinity=True, width=32)


def rows(chart: Chart) -> list[list[str]]:
    return list(csv.reader(io.StringIO(charts.csv(chart))))


def drawn(chart: Chart, element: str) -> list[xml.Element]:
    """The elements of this kind in the drawing of a chart."""
    return list(xml.fromstring(drawing.svg(chart)).iter(f"{SVG}{element}"))


def texts(chart: Chart, element: str) -> list[str | None]:
    return [one.text for one in drawn(chart, element)]


@given(
    st.lists(anything, max_size=30),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    words,
)
def test_any_data_makes_well_formed_svg_within_its_frame(ys, points, y_log, smooth, name):
    x = range(len(ys))
    series = [Series(name, x, ys, points=points, smooth=smooth), Series("b", x, ys, ys, ys)]
    plot = Plot("k", name, series, y_log=y_log)
    for circle in drawn(plot, "circle"):
        assert 0 <= float(circle.attrib["cx"]) <= drawing.WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= drawing.HEIGHT
    for path in drawn(plot, "path"):
        assert "nan" not in path.attrib["d"] and "inf" not in path.attrib["d"]
    assert len(rows(plot)) == len(ys) + 1


def test_a_missing_value_breaks_the_line_and_is_empty_in_the_csv():
    plot = Plot("k", "t", [Series("a", [1, 2, 3, 4], [1.0, math.nan, 2.0, 3.0])])
    path = drawn(plot, "path")[0].attrib["d"]
    assert path.count("M") == 2
    assert rows(plot) == [["step", "a"], ["1", "1"], ["2", ""], ["3", "2"], ["4", "3"]]


def test_runs_of_different_lengths_share_one_table():
    plot = Plot("k", "t", [Series("a", [1, 2], [5.0, 6.0]), Series("b", [2, 3], [7.0, 8.0])])
    assert rows(plot) == [["step", "a", "b"], ["1", "5", ""], ["2", "6", "7"], ["3", "", "8"]]


def test_points_with_labels_keep_them_in_the_csv_and_say_them_when_pointed_at():
    series = Series("complete", [1e-5, 1e-4], [0.5, 0.6], labels=['a, "b"', "<c>"], points=True)
    plot = Plot("k", "t", [series], x_log=True, unit="%", x_label="rate")
    assert rows(plot)[1:] == [
        ["complete", "1e-05", "0.5", 'a, "b"'],
        ["complete", "0.0001", "0.6", "<c>"],
    ]
    assert texts(plot, "title") == ['a, "b": 50.0 % at 1e-5', "<c>: 60.0 % at 1e-4"]


def test_a_spike_is_not_lost_when_a_long_line_is_thinned():
    values = [0.0] * 5000
    values[3333] = 9.0
    plot = Plot("k", "t", [Series("a", range(5000), values)], y_range=(0, 9))
    path = drawn(plot, "path")[0].attrib["d"]
    assert path.count("L") <= lines.MAX_POINTS
    heights = [float(pair.split(",")[1]) for pair in path[1:].split("L")]
    assert min(heights) == 10.0  # the top of the plot
    assert len(rows(plot)) == 5001


def test_smoothing_keeps_a_slope_and_its_ends():
    smoothed = lines.smoothed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert smoothed == pytest.approx([1, 2, 3, 4, 5, 6])
    assert lines.smoothed([1.0, None, 3.0])[1] is None
    assert lines.smoothed([]) == [] and lines.smoothed([7.0]) == [7.0]


@pytest.mark.parametrize("last", [0.0, 10.0])
def test_one_value_at_an_end_does_not_bend_the_smoothed_line(last):
    """The line changed its slope by as much as the last value differed."""
    noise = random.Random(1)
    values = [5.0 + noise.gauss(0, 0.5) for _ in range(100)]
    smoothed = lines.smoothed([*values[:-1], last])
    slopes = [float(b) - float(a) for a, b in pairwise(smoothed)]  # type: ignore[arg-type]
    bends = [abs(b - a) for a, b in pairwise(slopes)]
    assert max(bends[-4:]) < 1e-9, "the second half of the last window is one straight line"
    assert abs(slopes[-1]) < abs(last - 5.0) / 3


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=80))
def test_a_smoothed_line_stays_within_its_values(values):
    numbers = [value for value in values if value is not None]
    for value, fitted in zip(values, lines.smoothed(values), strict=True):
        assert (fitted is None) == (value is None)
        assert fitted is None or min(numbers) <= fitted <= max(numbers)


def striped(plot: Plot) -> list[dict[str, str]]:
    return [path.attrib for path in drawn(plot, "path") if path.get("class") == "striped"]


def test_lines_that_lie_on_each_other_take_turns():
    """Four rewards at 1.0 were one line, in the colour of the last."""
    steps = range(1, 91)
    names = ["integer", "strict", "soft", "tags"]
    paid = [Series(name, steps, [1.0] * 90) for name in names]
    plot = Plot("k", "t", [Series("right", steps, [k / 90 for k in steps]), *paid], y_range=(0, 1))
    pieces = striped(plot)
    assert len(pieces) == 4
    dash, gap = map(float, pieces[0]["stroke-dasharray"].split())
    assert gap == 3 * dash, "each has a quarter of the way"
    starts = sorted(float(piece["stroke-dashoffset"]) % (4 * dash) for piece in pieces)
    distances = {round(b - a, 1) for a, b in pairwise(starts)}
    assert distances == {dash}, "no two at the same place"


def test_only_the_part_that_lies_on_another_line_is_striped():
    first = Series("a", range(11), [0.0] * 5 + [1.0] * 6)
    second = Series("b", range(11), [1.0] * 11)
    pieces = striped(Plot("k", "t", [first, second], y_range=(0, 1)))
    assert len(pieces) == 2 and {piece["d"].count("L") for piece in pieces} == {5}
    apart = [Series("a", range(9), [0.2] * 9), Series("b", range(9), [0.8] * 9)]
    assert not striped(Plot("k", "t", apart, y_range=(0, 1)))


def test_a_chart_is_described_for_those_who_do_not_see_it():
    line = Series("reward", [1, 2, 3], [0.5, None, 0.75])
    described = drawing.described
    assert described(Plot("k", "Reward", [line])) == "Reward: 0.5 at step 1, 0.75 at step 3"
    points = Series("held out", [0], [0.5], points=True)
    two = Plot("k", "Right", [line, points], unit="%")
    assert described(two) == "Right: reward 50.0 % at step 1, 75.0 % at step 3; held out 1 points"
    bars = Bars("k", "Time", [Bar(f"part {n}", float(n), tone=0) for n in range(10)], unit="s")
    assert described(bars).endswith("part 7 7 s, and 2 more")


def test_an_axis_of_things_that_are_counted_has_whole_numbers():
    for count in (2, 3, 4, 7):
        trials = Series("trial", [float(k) for k in range(count)], [0.5] * count, points=True)
        axis = drawn(Plot("k", "t", [trials], x_label="trial"), "g")
        labels = [
            text.text for group in axis if group.get("class") == "axis" for text in group.iter()
        ]
        assert all(label is None or label == "trial" or label.isdecimal() for label in labels)


def test_a_wide_drawing_has_its_own_width():
    for chart in (Plot("k", "t", [Series("a", [1, 2], [1.0, 2.0])]), Bars("k", "t", [Bar("a", 1)])):
        widths = [xml.fromstring(drawing.svg(chart, w)).attrib["viewBox"] for w in (360, 548)]
        assert [text.split()[2] for text in widths] == ["360", "548"]


def test_long_labels_stand_above_their_bars():
    long = Bars("k", "t", [Bar("a label that is too long for its side", 1.0)])
    (label, _), (bar, _) = drawn(long, "text"), drawn(long, "rect")
    assert float(label.attrib["y"]) < float(bar.attrib["y"]) and bar.attrib["x"] == "2.0"
    short = Bars("k", "t", [Bar("before", 1.0)])
    (label, _), (bar, _) = drawn(short, "text"), drawn(short, "rect")
    assert float(bar.attrib["y"]) < float(label.attrib["y"]) and float(bar.attrib["x"]) > 40


def test_bars_show_value_and_interval():
    chart = Bars("k", "t", [Bar("before", 0.4, 0.3, 0.5), Bar("after", 0.9)], unit="%")
    assert texts(chart, "text") == ["before", "40.0 %", "after", "90.0 %"]
    assert texts(chart, "title") == ["before: 40.0 % (30.0 % to 50.0 %)"]
    assert rows(chart)[1:] == [["before", "0.4", "0.3", "0.5"], ["after", "0.9", "", ""]]


@given(
    st.lists(st.tuples(st.none() | st.floats(1e-6, 1e-3), st.none() | words), max_size=9),
    st.integers(1, 12),
)
def test_every_line_of_parallel_coordinates_stays_between_its_axes(pairs, num_axes):
    choices = list(dict.fromkeys([word for _, word in pairs if word is not None] or ["a"]))
    rate = Axis("rate", ("1e-6", "1e-3"), 1e-6, 1e-3, log=True)
    axes = [rate, *[Axis("word", (choices[0], choices[-1]), choices=choices)] * num_axes]
    lines = [Line("trial", [number, *[word] * num_axes]) for number, word in pairs]
    chart = Parallel("k", "t", axes, lines)
    width = float(xml.fromstring(drawing.svg(chart)).attrib["width"])
    for line in drawn(chart, "polyline"):
        points = [point.split(",") for point in line.attrib["points"].split()]
        assert len(points) == len(axes)
        assert all(parallel.SIDE <= float(x) <= width - parallel.SIDE + 0.1 for x, _ in points)
        tops = [float(y) for _, y in points]
        assert parallel.TOP <= min(tops) <= max(tops) <= parallel.BOTTOM
    assert len(rows(chart)) >= len(pairs) + 1


def test_parallel_coordinates_show_values_between_the_ends_of_each_axis():
    axes = [
        Axis("rate", ("0.0001", "0.01"), 1e-4, 1e-2, log=True),
        Axis("a name that is too long for it", ("4", "16"), choices=[4, 8, 16]),
        Axis("equal", ("5", "5"), 5.0, 5.0),
    ]
    best, worst = Line("trial 7", [1e-3, 16, 5.0], is_bold=True), Line("trial 1", [None, 9, 5.0])
    chart = Parallel("k", "Parallel coordinates", axes, [best, worst])
    low, high = parallel.BOTTOM, parallel.TOP
    middle = (low + high) / 2
    heights = [
        [float(point.split(",")[1]) for point in line.attrib["points"].split()]
        for line in drawn(chart, "polyline")
    ]
    assert heights == [[low, low, middle], [middle, high, middle]]  # the best is drawn last, on top
    assert [line.get("class") for line in drawn(chart, "polyline")] == [None, "bold"]
    assert texts(chart, "title") == ["trial 1", "trial 7"]
    labels = texts(chart, "text")
    assert labels == ["rate", "0.01", "0.0001", "a name that is too…", "16", "4", "equal", "5", "5"]
    assert rows(chart)[1:] == [["trial 7", "0.001", "16", "5"], ["trial 1", "", "9", "5"]]


def test_what_has_no_data_says_so():
    assert not charts.has_data(Plot("k", "t", [Series("a", [1], [None])]))
    assert not charts.has_data(Bars("k", "t", []))
    assert not charts.has_data(Parallel("k", "t", [Axis("a", ("0", "1"))], [Line("b", [1.0])]))

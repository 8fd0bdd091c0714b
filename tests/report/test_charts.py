import csv
import io
import math
import xml.etree.ElementTree as xml

from hypothesis import given
from hypothesis import strategies as st

from r1recipes.report import charts, drawing
from r1recipes.report.charts import Bar, Bars, Plot, Series

SVG = "{http://www.w3.org/2000/svg}"
anything = st.none() | st.floats(allow_nan=True, allow_infinity=True, width=32)


def rows(chart):
    return list(csv.reader(io.StringIO(charts.csv(chart))))


@given(
    st.lists(anything, max_size=30),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["C"]), max_size=60),
)
def test_any_data_makes_well_formed_svg_within_its_frame(ys, points, y_log, smooth, name):
    x = range(len(ys))
    series = [Series(name, x, ys, points=points, smooth=smooth), Series("b", x, ys, ys, ys)]
    plot = Plot("k", name, series, y_log=y_log)
    picture = xml.fromstring(drawing.svg(plot))
    for circle in picture.iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx")) <= drawing.WIDTH
        assert 0 <= float(circle.get("cy")) <= drawing.HEIGHT
    for path in picture.iter(f"{SVG}path"):
        assert "nan" not in path.get("d") and "inf" not in path.get("d")
    assert len(rows(plot)) == len(ys) + 1


def test_a_missing_value_breaks_the_line_and_is_empty_in_the_csv():
    plot = Plot("k", "t", [Series("a", [1, 2, 3, 4], [1.0, math.nan, 2.0, 3.0])])
    path = xml.fromstring(drawing.svg(plot)).find(f".//{SVG}path").get("d")
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
    titles = [t.text for t in xml.fromstring(drawing.svg(plot)).iter(f"{SVG}title")]
    assert titles == ['a, "b": 50.0 % at 1e-5', "<c>: 60.0 % at 1e-4"]


def test_a_spike_is_not_lost_when_a_long_line_is_thinned():
    values = [0.0] * 5000
    values[3333] = 9.0
    plot = Plot("k", "t", [Series("a", range(5000), values)], y_range=(0, 9))
    path = xml.fromstring(drawing.svg(plot)).find(f".//{SVG}path").get("d")
    assert path.count("L") <= drawing.MAX_POINTS
    heights = [float(pair.split(",")[1]) for pair in path[1:].split("L")]
    assert min(heights) == 10.0  # the top of the plot
    assert len(rows(plot)) == 5001


def test_smoothing_keeps_a_slope_and_its_ends():
    assert drawing.smoothed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == [1, 2, 3, 4, 5, 6]
    assert drawing.smoothed([1.0, None, 3.0])[1] is None


def test_bars_show_value_and_interval():
    chart = Bars("k", "t", [Bar("before", 0.4, 0.3, 0.5), Bar("after", 0.9)], unit="%")
    picture = xml.fromstring(drawing.svg(chart))
    assert [t.text for t in picture.iter(f"{SVG}text")] == ["before", "40.0 %", "after", "90.0 %"]
    assert picture.find(f".//{SVG}title").text == "before: 40.0 % (30.0 % to 50.0 %)"
    assert rows(chart)[1:] == [["before", "0.4", "0.3", "0.5"], ["after", "0.9", "", ""]]


def test_what_has_no_data_says_so():
    assert not charts.has_data(Plot("k", "t", [Series("a", [1], [None])]))
    assert not charts.has_data(Bars("k", "t", []))

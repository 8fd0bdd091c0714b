import math

from hypothesis import given
from hypothesis import strategies as st

from r1recipes.report.charts import scales
from r1recipes.report.charts.scales import Scale

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, finite)
def test_ticks_are_round_and_within_the_range(a, b):
    low, high = sorted((a, b))
    ticks = scales.ticks(low, high)
    assert 1 <= len(ticks) <= 10 or high - low < 1e-6 * max(1, abs(high))
    slack = 1e-6 * max(high - low, abs(high), 1e-300)
    assert all(low - slack <= tick <= high + slack for tick in ticks)


def test_a_range_that_cannot_be_divided_is_an_empty_one():
    assert scales.ticks(0.0, 5e-324) == [0.0] and len(scales.ticks(0.0, 1e-290)) > 1


def test_ticks_that_a_person_would_choose():
    assert scales.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1] or scales.ticks(0, 1) == [0, 0.5, 1]
    assert scales.ticks(0, 5e-4) == [0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4]
    assert scales.ticks(1, 90, 5) == [20, 40, 60, 80]
    assert scales.ticks(0, 3, 5, is_whole=True) == [0, 1, 2, 3]
    assert scales.ticks(1, 2, 5, is_whole=True) == [1, 2]
    assert Scale(1e-6, 5e-5, 0, 1, log=True).ticks() == [1e-6, 1e-5]


def test_a_scale_puts_its_ends_on_its_ends():
    assert Scale(1, 3, 10, 20)(2) == 15
    assert Scale(1e-6, 1e-4, 0, 100, log=True)(1e-5) == 50
    assert Scale(2, 2, 5, 9)(2) == 5  # an empty range divides by nothing


def test_numbers_as_people_write_them():
    assert [scales.text(v, "%") for v in (0.41625, 0.95, 0.0012)] == ["41.6 %", "95.0 %", "0.12 %"]
    assert scales.text(2e-3) == "0.002" and scales.text(1e-5) == "1e-5"
    assert scales.text(12_900) == "12.9k" and scales.text(3_900_000) == "3.9M"
    assert scales.text(6.6 * 2**30, "bytes") == "6.6 GiB"
    assert [scales.text(v, "s") for v in (2.5, 120, 9000)] == ["2.5 s", "2 min", "2.5 h"]
    assert scales.text(9000, "s", [9000, 9500]) == "9000 s"
    assert scales.text(None) == scales.text(math.nan) == ""
    assert [scales.text(v, "%", [0.5, 0.55]) for v in (0.5, 0.55)] == ["50 %", "55 %"]
    assert [scales.text(v, "", [3.0, 3.5]) for v in (3.0, 3.5)] == ["3.0", "3.5"]


def test_an_axis_of_zeros_begins_at_zero():
    assert scales.extent([0.0, 0.0], (None, None)) == (0.0, 1.0)
    assert scales.extent([2.0, 2.0], (None, None)) == (1.8, 2.2)
    assert scales.extent([-2.0, -2.0], (None, None)) == (-2.2, -1.8)

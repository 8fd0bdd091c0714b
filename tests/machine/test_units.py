"""Sizes, times and shares as people read them."""

import math

from r1recipes.machine import units


def test_sizes():
    assert units.gib(13.14 * units.GIB) == "13.1"
    assert (units.gigabytes(29_316_000_000), units.gigabytes(4_000_000)) == ("29.3 GB", "4.0 MB")


def test_times():
    assert (units.duration(9), units.duration(176)) == ("9 s", "2 min 56 s")
    assert units.duration(3 * 3600 + 299) == "3 h 04 min"


def test_shares():
    assert units.percent(0.8417) == "84%"
    assert units.percent(math.nan) == "-"

import math

import numpy as np
import pytest

from r1recipes.runs.health import trends
from r1recipes.runs.health.trends import Series


def shares(rng, level, *, steps=200, groups=16, size=8, correlation=0.3):
    """Accuracy of steps whose prompts have a difficulty of their own."""
    k = 1 / correlation - 1
    hard = rng.beta(level * k, (1 - level) * k, size=(steps, groups))
    return rng.binomial(size, hard).sum(axis=1) / (groups * size)


def series(values, groups=16, size=8):
    return trends.share(list(map(float, values)), groups * size, size)


@pytest.mark.parametrize("correlation", [0.1, 0.5])
@pytest.mark.parametrize("level", [0.1, 0.5])
def test_the_design_effect_is_found_from_neighbouring_steps(correlation, level):
    rng = np.random.default_rng(0)
    designs = [series(shares(rng, level, correlation=correlation)).design for _ in range(20)]
    assert np.mean(designs) == pytest.approx(1 + 7 * correlation, rel=0.15)


def test_a_trend_is_not_taken_for_noise():
    rng = np.random.default_rng(0)
    still = shares(rng, 0.4)
    moving = still + np.linspace(-0.2, 0.2, len(still))
    assert series(moving).design == pytest.approx(series(still).design, rel=0.1)


def test_a_collapse_does_not_hide_in_the_noise_that_it_makes():
    rng = np.random.default_rng(0)
    values = np.concatenate([shares(rng, 0.6, steps=20), np.zeros(10)])
    assert series(values).design < 5
    fall = trends.fallen(series(values))
    assert fall and fall.since == 20


def test_an_interval_has_the_share_that_it_claims():
    """95 % of the intervals of a difference cover it, at the noise of groups."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        values = np.concatenate([shares(rng, 0.3, steps=30), shares(rng, 0.4, steps=30)])
        change = series(values).change((0, 30), (30, 60))
        covered += change.low < 0.1 < change.high
    assert 0.92 <= covered / 400 <= 0.99


@pytest.mark.parametrize("test", [trends.risen, trends.rising, trends.fallen])
def test_noise_is_seldom_called_a_change_though_it_is_looked_at_in_every_step(test):
    rng, runs = np.random.default_rng(2), 0
    for _ in range(60):
        values = shares(rng, 0.4, steps=120)
        runs += any(test(series(values[:num])) is not None for num in range(4, 121, 2))
    assert runs <= 2


def test_a_rise_is_seen_where_windows_of_a_third_show_it():
    rng = np.random.default_rng(3)
    values = shares(rng, 0.3) + np.linspace(0, 0.15, 200)
    change = trends.risen(series(values))
    assert change is not None and 0 < change.low < change.size < 0.2
    assert trends.fallen(series(values)) is None


def test_flat_after_a_rise_is_told_from_a_straight_rise():
    rng = np.random.default_rng(4)
    noise = shares(rng, 0.5) - 0.5
    bent = 0.2 + 0.5 * np.minimum(1, np.arange(200) / 40) + noise
    straight = np.linspace(0.2, 0.7, 200) + noise
    assert trends.flattened(series(bent)) and not trends.flattened(series(straight))


def test_few_groups_need_long_windows():
    assert series([0.5] * 40, groups=32).scales(40) == [2, 4, 8, 16]
    assert series([0.5] * 40, groups=2).scales(40) == [16]
    assert series([0.5] * 10, groups=2).scales(10) == []


def test_a_metric_without_known_noise_is_judged_by_its_jumps():
    values = [float(x) for x in np.random.default_rng(5).normal(10, 2, 300)]
    unknown = Series(values, [1.0] * 300, None, groups=32)
    assert math.sqrt(unknown.design) == pytest.approx(2, rel=0.15)
    fall = trends.fallen(Series([3.0] * 10 + [1.0] * 10, [1.0] * 20, None, groups=32))
    assert fall and fall.since == 10


def test_more_looks_ask_for_more():
    assert trends.bar(3.0, 1) == 3.0
    assert trends.bar(3.0, 0.5) == 3.0
    assert trends.bar(3.0, 100) == pytest.approx(math.sqrt(9 + 2 * math.log(100)))

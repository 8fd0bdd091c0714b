"""Which pass rates are kept, and what is said of them."""

import pytest

from r1recipes.runs import pass_rates


@pytest.mark.parametrize(
    ("num_right", "num_samples", "keep", "is_kept"),
    [
        (0, 8, [0.1, 0.9], False),
        (1, 8, [0.1, 0.9], True),
        (7, 8, [0.1, 0.9], True),
        (8, 8, [0.1, 0.9], False),
        (0, 8, [0.0, 0.9], True),
        (8, 8, [0.0, 1.0], True),
        (1, 10, [0.1, 0.9], True),
        (9, 10, [0.1, 0.9], True),
        (3, 10, [0.3, 0.7], True),
        (7, 10, [0.3, 0.7], True),
        (2, 8, [0.25, 0.5], True),
        (1, 8, [0.126, 0.5], False),
    ],
)
def test_both_ends_are_kept(num_right, num_samples, keep, is_kept):
    assert pass_rates.is_within(num_right, num_samples, keep) is is_kept
    recorded = pass_rates.summary([num_right], num_samples, keep, 1)
    assert recorded["num_kept"] == is_kept


def test_every_share_that_a_recipe_can_write_is_its_own_bound():
    for size in range(2, 101):
        for right in range(size + 1):
            written = float(f"{right / size:.17g}")
            assert pass_rates.is_within(right, size, [written, 1.0])
            assert pass_rates.is_within(right, size, [0.0, written])


def test_the_summary_counts_every_problem_once():
    recorded = pass_rates.summary([0, 0, 1, 2, 4, 4, 4], 4, [0.25, 0.75], 20)
    assert recorded["histogram"] == [2, 1, 1, 0, 3]
    counts = (recorded["num_too_hard"], recorded["num_kept"], recorded["num_too_easy"])
    assert counts == (2, 2, 3)
    assert recorded["num_measured"] == 7 and recorded["num_available"] == 20
    assert pass_rates.sentence(recorded) == (
        "2 of 7 problems have a pass rate from 0.25 to 0.75 and are trained on; 2 are too hard, "
        "3 too easy"
    )
    locked = {"low": 0.1, "high": 0.9, "num_kept": 1200, "from_lock": True}
    assert pass_rates.sentence(locked) == "1,200 problems are trained on, those that the lock names"

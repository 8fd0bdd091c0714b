"""Pass rates of training problems: which are within `data.keep`, and what the record says of them.

The pass rate of a problem is the share of its samples, by the model that training begins with, that
the decisive reward calls right. Limits: a rate of 8 samples is an estimate, 35 points wide.
"""

from collections.abc import Sequence
from typing import Any


def is_within(num_right: int, num_samples: int, keep: Sequence[float]) -> bool:
    """Whether a pass rate is within `[low, high]`; both ends belong to it.

    The quotient is rounded to the nearest number, as the text of a recipe is, so 1 of 10 is 0.1.
    """
    low, high = keep
    return low <= num_right / num_samples <= high


def summary(
    num_right: Sequence[int], num_samples: int, keep: Sequence[float], num_available: int
) -> dict[str, Any]:
    """What the record says: `num_right` has the right samples of each problem that was measured,
    of `num_available` that there are. `histogram[k]` counts the problems with k right samples."""
    low, high = keep
    histogram = [0] * (num_samples + 1)
    for count in num_right:
        histogram[count] += 1
    too_hard = sum(n for k, n in enumerate(histogram) if k / num_samples < low)
    too_easy = sum(n for k, n in enumerate(histogram) if k / num_samples > high)
    return {
        "low": low,
        "high": high,
        "num_samples": num_samples,
        "num_available": num_available,
        "num_measured": len(num_right),
        "num_too_hard": too_hard,
        "num_kept": len(num_right) - too_hard - too_easy,
        "num_too_easy": too_easy,
        "histogram": histogram,
    }


def sentence(recorded: dict[str, Any]) -> str:
    """The record's summary in words."""
    low, high, num_kept = recorded["low"], recorded["high"], recorded["num_kept"]
    if recorded.get("from_lock"):
        return f"{num_kept:,} problems are trained on, those that the lock names"
    return (
        f"{num_kept:,} of {recorded['num_measured']:,} problems have a pass rate from {low:g} to "
        f"{high:g} and are trained on; {recorded['num_too_hard']:,} are too hard, "
        f"{recorded['num_too_easy']:,} too easy"
    )

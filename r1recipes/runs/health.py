"""One plain sentence on whether a run is learning and, if not, why and what to change.

Reads rows of metrics.jsonl, which carry TRL's names. The loss is not looked at: with centred
advantages and one pass per batch its value is near 0 by construction, its gradient is not.
"""

import math
from collections.abc import Sequence
from typing import Any

WINDOW = 20
"""Steps that are averaged; assumed, long enough for the noise of groups of 8."""
CERTAIN = 3.0
"""Standard errors that a change must have to be called one; assumed, since it is looked at in every
step and two would cry wolf."""
NEARLY = 0.9
"""Share of right completions, or of the highest reward, above which a flat reward is no fault;
assumed."""


def sentence(
    rows: Sequence[dict[str, Any]], *, max_completion_length: int, max_reward: float
) -> str:
    """What the metrics so far say. `max_reward` is the sum of the weights."""
    if not rows:
        return "Waiting for the first step"
    recent = rows[-WINDOW:]
    if not_finite(rows[-1:]):
        return "Not learning: the gradient is not finite; lower `train.learning_rate`"
    cut = mean(recent, "completions/clipped_ratio")
    if cut > 0.5:
        return (
            f"Not learning: {cut:.0%} of the completions are cut at {max_completion_length} tokens "
            "before they end; raise `max_completion_length`"
        )
    if mean(recent, "frac_reward_zero_std") > 0.8:
        return _no_spread(recent, max_reward)
    return _trend(rows, max_reward)


def _no_spread(recent: Sequence[dict[str, Any]], max_reward: float) -> str:
    reward, accuracy = mean(recent, "reward"), mean(recent, "accuracy")
    if accuracy > 0.95 or reward > 0.97 * max_reward:
        return "Nothing left to learn: nearly every completion is right; take harder problems"
    if accuracy < 0.02 or reward < 0.02 * max_reward:
        return (
            "Not learning: nearly every completion is wrong, so no group has a better one; take "
            "easier problems, a stronger model or a cold start"
        )
    return (
        "Not learning: the completions of a prompt all earn the same; raise `train.temperature` or "
        "`num_generations`"
    )


def _trend(rows: Sequence[dict[str, Any]], max_reward: float) -> str:
    if len(rows) < 2 * 5:
        return "Too early to tell"
    width, half = min(WINDOW, len(rows) // 2), len(rows) // 2
    first, middle, last = rows[:width], rows[half - width : half], rows[-width:]
    best = _best_before(rows, width)
    if _risen(last, best, choices=len(rows) // width - 1):
        return (
            f"Getting worse since step {best[-1]['step']}: {_change(best, last)}; lower "
            "`train.learning_rate`, or stop here"
        )
    risen = _risen(first, last)
    if _risen(middle, last) or (risen and not _is_flat(rows, first, middle, last)):
        return f"Learning: {_change(first if risen else middle, last)}"
    if mean(last, "reward") > NEARLY * max_reward or mean(last, "accuracy") > NEARLY:
        return f"Nearly all right: {_change(first, last)}; harder problems would teach more"
    if risen:
        return f"Learned, now flat: {_change(first, last)}"
    if len(rows) < 3 * WINDOW:
        return f"No trend yet: {_change(first, last)}"
    return (
        f"Not moving: {_change(first, last)}; raise `train.learning_rate` or look at the "
        "completions"
    )


def _best_before(rows: Sequence[dict[str, Any]], width: int) -> Sequence[dict[str, Any]]:
    """The window with the highest reward before the last one; windows count from the end."""
    starts = range(len(rows) - 2 * width, -1, -width)
    return max((rows[i : i + width] for i in starts), key=lambda window: mean(window, "reward"))


def _risen(low: Sequence[dict[str, Any]], high: Sequence[dict[str, Any]], choices: int = 1) -> bool:
    """Whether the reward of `high` is above that of `low` by more than noise.

    Where `high` is the best of several windows, chance has made it high, so more is asked for:
    2 ln(choices) on top of the square, which keeps the chance of a false alarm about the same.
    """
    gain = mean(high, "reward") - mean(low, "reward")
    noise = math.sqrt(variance(low, "reward") / len(low) + variance(high, "reward") / len(high))
    return gain > 0 and gain > math.sqrt(CERTAIN**2 + 2 * math.log(choices)) * noise


def _is_flat(
    rows: Sequence[dict[str, Any]],
    first: Sequence[dict[str, Any]],
    middle: Sequence[dict[str, Any]],
    last: Sequence[dict[str, Any]],
) -> bool:
    """Whether the second half brought less than a quarter of the gain; a line brings half of it."""
    start, center, end = (mean(window, "reward") for window in (first, middle, last))
    return len(rows) >= 3 * WINDOW and end - center < (end - start) / 4


def _change(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> str:
    return f"reward {mean(old, 'reward'):.2f} -> {mean(new, 'reward'):.2f}"


def not_finite(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the gradient of every row is not a finite number."""
    norms = [row.get("grad_norm") for row in rows]
    return bool(norms) and all(norm is not None and not math.isfinite(norm) for norm in norms)


def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Mean of a key over the rows that have it; NaN when none has."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else math.nan


def variance(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Sample variance of a key over the rows that have it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    center = sum(values) / len(values)
    return sum((value - center) ** 2 for value in values) / max(1, len(values) - 1)

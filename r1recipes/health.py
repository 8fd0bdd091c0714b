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
    return _trend(rows)


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


def _trend(rows: Sequence[dict[str, Any]]) -> str:
    if len(rows) < 2 * 5:
        return "Too early to tell"
    width = min(WINDOW, len(rows) // 2)
    first, last = rows[:width], rows[-width:]
    gain = mean(last, "reward") - mean(first, "reward")
    noise = math.sqrt(variance(first, "reward") / width + variance(last, "reward") / width)
    change = f"reward {mean(first, 'reward'):.2f} -> {mean(last, 'reward'):.2f}"
    if gain > CERTAIN * noise and gain > 0:
        return f"Learning: {change}"
    if gain < -CERTAIN * noise:
        return f"Getting worse: {change}; lower `train.learning_rate`"
    if len(rows) < 3 * WINDOW:
        return f"No trend yet: {change}"
    return f"Not moving: {change}; raise `train.learning_rate` or look at the completions"


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

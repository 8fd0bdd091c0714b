"""Verdicts on runs that learn from examples, whose steps sample no completions.

Only a held-out evaluation says whether the answers get better (`eval.every`): how well the examples
are fitted does not. Limits: the loss is compared at its ends, without a test.
"""

from collections.abc import Sequence

from r1recipes.runs.health import trends
from r1recipes.runs.health.signs import WINDOW, Signs, mean
from r1recipes.runs.health.verdicts import Row, Verdict, held_out_change, percent

EARLY = 10
"""Steps before which nothing is said of the loss; assumed."""


def is_fitted(rows: Sequence[Row]) -> bool:
    """Whether these are the rows of an algorithm that learns from examples."""
    return bool(rows) and not any("reward" in row for row in rows)


def held_out_falls(s: Signs) -> Verdict | None:
    """The best evaluation against the last."""
    if not (fall := s.held_out_fall):
        return None
    step, text = fall
    change = "lower `train.learning_rate`" if step == 0 else "stop here"
    return Verdict("overfitting", f"{text}, while the examples are fitted", change, step)


def held_out_rises(s: Signs) -> Verdict | None:
    """The first evaluation against the last."""
    if len(s.held_out) < 2:
        return None
    first, *_, last = s.held_out
    low, _ = held_out_change(first, last, trends.bar(trends.RISE, len(s.held_out) - 1))
    if low <= 0:
        return None
    text = f"held-out accuracy {percent(first.accuracy)} -> {percent(last.accuracy)}"
    return Verdict("learning", f"Learning: {text}")


def loss(s: Signs) -> Verdict:
    """What the loss says, which is not whether the answers get better."""
    num = len(s.all)
    if num < EARLY:
        return Verdict("too early", "Too early to tell")
    width = max(1, min(WINDOW, num // 3))
    old, new = mean(s.all[:width], "loss"), mean(s.all[-width:], "loss")
    change = f"loss {old:.3f} -> {new:.3f}"
    if new >= old:
        text = f"The examples are not fitted: {change}"
        return Verdict("not fitting", text, "raise `train.learning_rate`")
    text = f"Fits its examples: {change}"
    if len(s.held_out) < 2:
        return Verdict("fitting", text, "an evaluation tells whether the answers are better")
    first, *_, last = s.held_out
    answers = f"held-out accuracy {percent(first.accuracy)} -> {percent(last.accuracy)}"
    return Verdict("fitting", f"{text}, {answers}, which is not certain yet")

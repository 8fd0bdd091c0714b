"""Whether a run is learning, in one sentence and, where it is not, with the one change that fits.

The decisive reward speaks first, then the weighted sum, its parts, and the rest. `RULES` are asked
in order and the first that has an answer wins: a collapse comes before cut completions and lost
spread, which it causes. The loss is not looked at: with centred advantages and one pass per batch
its value is near 0 by construction, its gradient is not. Nor is the share of clipped ratios: a
batch is used once, so that it is 0. Statistics: `trends`; error rates: benchmarks/learning.
"""

import math
from collections.abc import Sequence

from r1recipes.errors import RunError
from r1recipes.runs.health import fitted, stalled, trends
from r1recipes.runs.health.signs import WINDOW, Signs, mean
from r1recipes.runs.health.trends import Change
from r1recipes.runs.health.verdicts import HeldOut, Row, Terms, Verdict, held_out_change, percent
from r1recipes.runs.statistics import wilson

COLLAPSED = 0.25
"""Share of its best level that a metric must have lost to be called collapsing; assumed."""
NEARLY = 0.9
"""Accuracy above which a flat run is no fault; assumed."""
FULL = 0.95
"""Accuracy above which groups without spread are so because all is right; assumed."""
FRESH = 0.75
"""Share of the steps so far that an evaluation must have seen to say what is left; assumed."""
READ_BEST = "read the best paid completions"
NAN_STEPS = 3
"""Steps in a row without a finite gradient after which a run is stopped; assumed."""
FLOAT16_NAN_STEPS = 17
"""Steps in a row without a finite gradient after which a run in float16 is stopped; derived. A step
whose gradient overflows is skipped there and the scale of the loss is halved, from 2^16 down
(torch.amp.GradScaler), so after 17 steps the scale is 1 and not the cause any more."""
FLAT = 60
"""Steps, or those of the whole run, before a run that has learned is told to stop; assumed."""


def verdict(rows: Sequence[Row], terms: Terms, held_out: Sequence[HeldOut] = ()) -> Verdict:
    """What the rows of metrics.jsonl so far say.

    `held_out`: evaluations that are in no row, such as the one before training. Takes time linear
    in the number of rows; changes nothing and remembers nothing.
    """
    signs = Signs(rows, terms, held_out)
    rules = EXAMPLE_RULES if fitted.is_fitted(rows) else RULES
    return next(answer for rule in rules if (answer := rule(signs)))


def sentence(rows: Sequence[Row], terms: Terms, held_out: Sequence[HeldOut] = ()) -> str:
    """`verdict` as one sentence."""
    return verdict(rows, terms, held_out).sentence


def not_finite(rows: Sequence[Row]) -> bool:
    """Whether the gradient of every row is not a finite number."""
    norms = [row.get("grad_norm") for row in rows]
    return bool(norms) and all(norm is not None and not math.isfinite(norm) for norm in norms)


def num_not_finite_allowed(dtype: str) -> int:
    """Steps in a row without a finite gradient that end a run in this precision."""
    return FLOAT16_NAN_STEPS if dtype == "float16" else NAN_STEPS


def refuse_not_finite(rows: Sequence[Row], allowed: int) -> None:
    """Raises: RunError (nan) where `allowed` rows, and no fewer, have no finite gradient."""
    if len(rows) == allowed and not_finite(rows):
        raise RunError(
            f"the gradient was not finite for {allowed} steps, at step {rows[-1]['step']}",
            kind="nan",
            hint="lower `train.learning_rate` or `train.max_grad_norm`",
        )


def _waiting(s: Signs) -> Verdict | None:
    return None if s.all else Verdict("waiting", "Waiting for the first step")


def _not_finite(s: Signs) -> Verdict | None:
    if not not_finite(s.all[-1:]):
        return None
    first = len(s.all) - 1
    while first and not_finite(s.all[first - 1 : first]):
        first -= 1
    since = int(s.all[first]["step"])
    text = f"Not learning: the gradient is not finite since step {since}"
    return Verdict("not finite", text, "lower `train.learning_rate`", since)


def _answers_fall(s: Signs) -> Verdict | None:
    """Fewer right answers than before; the reward says whether all collapses or something else is
    paid for: had nothing else changed, it would have lost what the answers brought."""
    fall = _fall(s.answers, s.ceiling)
    if fall is None:
        return None
    if stalled.explains(s, fall):
        return stalled.outgrown(s, fall)
    old, new = _around(s, fall)
    answers, reward = s.answers.change(old, new), s.reward.change(old, new)
    lost = s.terms.weights.get(s.terms.decisive, 0.0) * answers.size
    if not s.has_answers or reward.size <= lost / 2:
        return _collapse(s, answers, reward, fall.since)
    return _hacked(s, answers, reward, fall.since)


def _reward_falls(s: Signs) -> Verdict | None:
    """The answers are as right as ever (or as wrong), and the rest gets worse."""
    fall = _fall(s.reward, s.terms.max_reward)
    if fall is None:
        return None
    answers, reward = (series.change(*_around(s, fall)) for series in (s.answers, s.reward))
    return _collapse(s, answers, reward, fall.since)


def _breaks_off(s: Signs) -> Verdict | None:
    """Nearly all is cut since some step, and what is not is no better: a collapse that the cuts
    show before the answers do, where completions are few."""
    cuts = s.finished
    if cuts is None or not mean(s.recent, stalled.CLIPPED) > stalled.CUT:
        return None
    fall = trends.fallen(cuts)
    if fall is None:
        return None
    old, new = _around(s, fall)
    answers, reward = s.answers.change(old, new), s.reward.change(old, new)
    is_worse = any(-c.size > COLLAPSED * abs(c.old) for c in (answers, reward))
    if not is_worse or stalled.explains(s, answers):
        return None
    return _collapse(s, answers, reward, fall.since)


def _fall(series: trends.Series, ceiling: float) -> Change | None:
    """A fall that matters and from which the run is not recovering."""
    fall = trends.fallen(series)
    if fall is None or -fall.size < max(COLLAPSED * abs(fall.old), stalled.TOLERANCE * ceiling):
        return None
    return None if trends.rising(series, fall.since) else fall


def _around(s: Signs, fall: Change) -> tuple[trends.Window, trends.Window]:
    """Up to `WINDOW` steps before and the last ones after the fall."""
    return (max(0, fall.since - WINDOW), fall.since), (max(fall.since, s.num - WINDOW), s.num)


def _collapse(s: Signs, answers: Change, reward: Change, row: int) -> Verdict:
    since = s.step(row)
    text = f"Collapsing since step {since}: {s.both(answers, reward)}"
    return Verdict("collapsing", text, "lower `train.learning_rate`", since)


def _hacked(s: Signs, answers: Change, reward: Change, row: int) -> Verdict:
    since = s.step(row)
    parts = [part for part in s.parts(*answers.windows) if part.name != s.terms.decisive]
    name = parts[0].name if parts and parts[0].gain > 0 else None
    text = f"The rewards pay for something else since step {since}: {s.both(answers, reward)}"
    change = f"lower the weight of `{name}`" if name else READ_BEST
    return Verdict("hacked", text, change, since)


def _held_out_falls(s: Signs) -> Verdict | None:
    """The best evaluation against the last, where the training metrics do not fall."""
    if not (fall := s.held_out_fall):
        return None
    step, text = fall
    return Verdict("hacked", f"{text}, while the reward does not", "stop here", step)


def _paid_in_full(s: Signs) -> Verdict | None:
    """Hardly a group with spread, since all is right."""
    if not s.is_spent or not s.recent_answers > FULL * s.ceiling:
        return None
    return _nearly_all(s)


def _nearly_all(s: Signs) -> Verdict:
    """Only what was held out, and lately, can say that there is nothing left to learn."""
    paid = f"early every training completion is paid in full ({s.recent_text})"
    recent = [one for one in s.held_out if one.step >= FRESH * s.all[-1]["step"]]
    if not recent:
        is_over = s.all[-1]["step"] >= s.terms.max_steps
        change = "check with an evaluation"
        if is_over:  # what is printed next is that evaluation
            change = "the evaluation after training shows what it learned"
        return Verdict("nearly all paid", f"N{paid}", change)
    last = recent[-1]
    low, high = wilson(last.accuracy, last.trials)
    held_out = f"held-out accuracy is {percent(last.accuracy)}"
    if low > NEARLY:
        return Verdict("nothing left", f"Nothing left to learn: {held_out}", "take harder problems")
    if high < NEARLY:
        text = f"Not transferring: n{paid}, and {held_out}"
        return Verdict("not transferring", text, READ_BEST)
    text = f"N{paid}, and {held_out}, which is not certain yet"
    change = "wait for the evaluation after training" if last.is_part else "raise `data.eval_size`"
    return Verdict("nearly all paid", text, change)


def _not_transferring(s: Signs) -> Verdict | None:
    """Training gained, and what was held out gained less than half of it for sure."""
    if len(s.held_out) < 2 or not s.rise or s.held_out[-1].step < FRESH * s.all[-1]["step"]:
        return None
    first, last = s.held_out[0], s.held_out[-1]
    _, high = held_out_change(first, last, trends.bar(trends.FALL, len(s.held_out) - 1))
    if high >= s.rise.low / 2:
        return None
    text = (
        f"Not transferring: {s.only(s.rise)} in training, held-out accuracy "
        f"{percent(first.accuracy)} -> {percent(last.accuracy)}"
    )
    return Verdict("not transferring", text, READ_BEST)


def _learning(s: Signs) -> Verdict | None:
    rises = [rise for rise in (s.rise, s.climb) if rise]
    if not rises:
        return None
    rise = max(rises, key=lambda change: change.low)
    is_late = s.num >= min(s.terms.max_steps, FLAT)
    is_flat = is_late and trends.flattened(s.answers)
    if is_flat and s.recent_answers > NEARLY * s.ceiling:
        return _nearly_all(s)
    change = s.both(rise, s.reward.change(*rise.windows))
    if is_flat and not s.climb:
        return Verdict("learned", f"Learned, now flat: {change}", "stop here")
    cut = mean(s.recent, stalled.CLIPPED)
    if cut > stalled.CUT_NOTED:
        text = f"Learning: {change}, though {cut:.0%} of the completions are cut"
        return Verdict("learning", text, stalled.RAISE_LIMIT)
    return Verdict("learning", f"Learning: {change}")


def _partly(s: Signs) -> Verdict | None:
    """The decisive reward pays for a part of the way, and gets paid more."""
    rise = s.partial_rise
    if rise is None:
        return None
    answers = s.only(s.answers.change(*s.ends))
    text = f"Learning: `{s.terms.decisive}` pays {rise.old:.2f} -> {rise.new:.2f}, {answers}"
    return Verdict("learning", text)


def _nearly_all_right(s: Signs) -> Verdict | None:
    """Flat because hardly anything is wrong."""
    is_late = s.num >= stalled.EARLY and s.recent_answers > NEARLY * s.ceiling
    return _nearly_all(s) if is_late else None


RULES = (
    _waiting,
    _not_finite,
    _answers_fall,
    _held_out_falls,
    _paid_in_full,
    _not_transferring,
    _learning,
    _partly,
    _reward_falls,
    _breaks_off,
    stalled.cut,
    stalled.something_else_rises,
    stalled.no_spread,
    _nearly_all_right,
    stalled.length_moves,
    stalled.too_early,
    stalled.drifting,
    stalled.no_entropy,
    stalled.spikes,
    stalled.not_moving,
    stalled.noisy,
)
"""The rules in the order in which they are asked; the last always answers."""
EXAMPLE_RULES = (
    _waiting,
    _not_finite,
    fitted.held_out_falls,
    fitted.held_out_rises,
    fitted.loss,
)
"""Those for the rows of an algorithm that learns from examples."""

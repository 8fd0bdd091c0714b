"""Why a run makes no progress: the rules of `health` for answers that neither rise nor fall.

Each rule returns a verdict or None, and looks at one cause. Those of rldoctor 0.2.0's detectors
that our rows can decide are here or in `health`, with its limits where they are named; what is left
out, and why, stands in docs/verdicts.md.
"""

import math
import statistics

from r1recipes.rewards.functions import FORMATS
from r1recipes.runs.health import trends
from r1recipes.runs.health.signs import SPENT, Signs, mean
from r1recipes.runs.health.trends import Change
from r1recipes.runs.health.verdicts import Verdict

EARLY = 10
"""Steps before a trend is spoken of; assumed."""
SETTLED = 20
"""Steps before something that does not rise is spoken of; assumed."""
NOT_MOVING = 30
"""Steps before a run is said not to move; assumed."""
TOLERANCE = 0.05
"""Gain over the whole run, as a share of the highest value, that is worth nothing; assumed."""
RARE = 0.02
"""Accuracy below which right answers are too rare to learn from; assumed."""
CUT = 0.5
"""Share of cut completions that explains a run without progress; assumed."""
CUT_NOTED = 0.15
"""Share of cut completions that is worth a word at all, rldoctor's limit."""
NEARLY_ALL = 0.8
"""Share of cut completions from which on the others say nothing; assumed."""
LAST = 4
"""Steps that tell whether cuts explain a fall; assumed, few so that they are all after it."""
STEADY = 0.75
"""Share of right answers among the finished, over that before, that is no fall; assumed."""
SMALL_GROUP = 8
"""Completions to a prompt below which more of them are the way to a difference; assumed."""
_READ = "read the completions"
EASIER = "take easier problems or a stronger model"
CLIPPED = "completions/clipped_ratio"
RAISE_LIMIT = "raise `max_completion_length`"
LITTLE = 0.1
"""Gain of accuracy that must be ruled out before the answers are said to stay; assumed."""
HINT = 2.0
"""Standard errors from which the answers seem to rise, so that even `TOLERANCE` must be ruled out;
assumed, one still run in forty has them."""
HALF = 0.5
"""Share of the reward's gain that the answers must have brought at the most; assumed."""
SHRUNK, GROWN = 0.7, 1.5
"""Length over that at the start; assumed, and rldoctor's limit."""
FAR_KL = 2.0
"""KL divergence that is too far where nothing improves, rldoctor's limit."""
ENTROPY_LEFT = 0.1
"""Share of the entropy at the start below which nothing new is tried, rldoctor's limit."""
DOMINANT = 0.7
"""Share of the reward's variance with which a side reward drowns the answers, rldoctor's limit."""
SPIKE_SIGMAS, SPIKE_RATIO, NUM_SPIKES = 8.0, 3.0, 3
"""Robust standard deviations and medians that a gradient norm must exceed, and the number of such
steps, rldoctor's limits. The four healthy runs in tests/fixtures/verdicts have none."""


def cut(s: Signs) -> Verdict | None:
    """Completions that are not finished cannot be right."""
    share = mean(s.recent, CLIPPED)
    if not share > CUT:
        return None
    text = f"Not learning: {share:.0%} of the completions are cut at {_limit(s)}"
    return Verdict("cut", text, RAISE_LIMIT)


def explains(s: Signs, before: Change) -> bool:
    """Whether the answers that are finished are as right as `before.old`, and more of them are cut.

    The last steps alone, since the steps of a collapse mixed with those before look like this too.
    Where nearly all is cut, what is left says nothing.
    """
    answers, share = mean(s.rows[-LAST:], s.key), mean(s.rows[-LAST:], CLIPPED)
    return CUT_NOTED < share < NEARLY_ALL and answers / (1 - share) > STEADY * before.old


def outgrown(s: Signs, answers: Change) -> Verdict:
    """Fewer answers are right, since fewer are finished."""
    share, since = mean(s.recent, CLIPPED), s.step(answers.since)
    text = f"{share:.0%} of the completions are cut at {_limit(s)}, more since step {since}: "
    return Verdict("cut", text + s.only(answers), RAISE_LIMIT, since)


def _limit(s: Signs) -> str:
    return f"{s.terms.max_completion_length} tokens"


def something_else_rises(s: Signs) -> Verdict | None:
    """The reward rises, and the answers brought less than half of that for sure."""
    if s.num < SETTLED or not s.has_answers:
        return None
    reward = trends.risen(s.reward) or trends.rising(s.reward)
    weight = s.terms.weights.get(s.terms.decisive, 0.0)
    if reward is None or not _answers_stay(s) or weight * s.thirds.high >= HALF * reward.size:
        return None
    rest = [part for part in s.parts(*s.ends) if part.name != s.terms.decisive]
    risen = [part.name for part in rest if part.gain > reward.size / 10]
    names = ", ".join(f"`{name}`" for name in risen)
    change = s.both(s.answers.change(*s.ends), s.reward.change(*s.ends))
    length = _length_change(s)
    if length:
        change += f", length {length.old:.0f} -> {length.new:.0f} tokens"
    if risen and set(risen) <= FORMATS:
        if s.num < s.terms.max_steps and not trends.flattened(s.reward):
            return Verdict("format first", f"The format comes first: {change} so far")
        text = f"The format is learned and the answers are not: {change}"
        return Verdict("format only", text, _for_rare(s) or f"lower the weights of {names}")
    if length and length.new < length.old:
        text = f"Shorter without better answers: {change}"
        return Verdict("shorter", text, f"lower the weight of {names}" if names else _READ)
    text = f"Only {names or 'the reward'} rises, not the answers: {change}"
    return Verdict("side reward", text, f"lower the weight of {names}" if names else _READ)


def _answers_stay(s: Signs) -> bool:
    """Whether the answers cannot have gained much; next to nothing, where they seem to rise."""
    gain = s.thirds
    seems = gain.size > 0 and gain.standard_errors > HINT
    return gain.high < (TOLERANCE if seems else LITTLE) * s.ceiling


def _for_rare(s: Signs) -> str:
    """Where hardly an answer is right, no weight makes the right ones more frequent."""
    is_rare = s.recent_answers < 5 * RARE * s.ceiling
    return EASIER if is_rare else ""


def no_spread(s: Signs) -> Verdict | None:
    """Without differences within a group nothing is learned."""
    norms = [row.get("grad_norm") for row in s.recent]
    is_still = len(norms) >= EARLY and norms.count(0.0) > SPENT * len(norms)
    if not s.is_spent and not is_still:
        return None
    if s.recent_answers < RARE * s.ceiling:
        text = f"Not learning: nearly every completion is wrong ({s.recent_text}), so no group has "
        text += "a better one"
        return Verdict("all wrong", text, EASIER)
    same = mean(s.recent, "frac_reward_zero_std")
    prompts = "most prompts" if math.isnan(same) else f"{same:.0%} of the prompts"
    text = f"Not learning: for {prompts} all completions earn the same ({s.recent_text})"
    is_small = s.terms.num_generations < SMALL_GROUP and not s.terms.has_fixed_group
    change = "raise `num_generations`" if is_small else "raise `train.temperature`"
    return Verdict("all same", text, change)


def length_moves(s: Signs) -> Verdict | None:
    """Much shorter or longer, and no better."""
    if s.num < SETTLED or not _answers_stay(s):
        return None
    change = _length_change(s)
    if change is None:
        return None
    change_text = (
        f"{change.old:.0f} -> {change.new:.0f} tokens, "
        f"{s.both(s.answers.change(*s.ends), s.reward.change(*s.ends))}"
    )
    if change.new < change.old:
        return Verdict("shorter", f"Shorter without better answers: {change_text}", _READ)
    text = f"Longer without better answers: {change_text}"
    return Verdict("longer", text, "lower `max_completion_length`")


def _length_change(s: Signs) -> Change | None:
    """The length at the ends, where it changed much and for sure."""
    if s.length is None:
        return None
    change = s.length.change(*s.ends, z=trends.RISE)
    is_shorter = change.high < 0 and change.new < SHRUNK * change.old
    is_longer = change.low > 0 and change.new > GROWN * change.old
    return change if is_shorter or is_longer else None


def too_early(s: Signs) -> Verdict | None:
    return Verdict("too early", "Too early to tell") if s.num < EARLY else None


def drifting(s: Signs) -> Verdict | None:
    """Far from the base model, for nothing. Absent or 0 where beta is 0."""
    kl = mean(s.recent, "kl")
    if not kl > FAR_KL:
        return None
    text = f"Drifting: the KL divergence is {kl:.1f} and {s.name} does not rise ({s.recent_text})"
    return Verdict("drifting", text, "raise `train.beta`")


def no_entropy(s: Signs) -> Verdict | None:
    """Nothing new is tried any more. Unsloth's rows have no entropy."""
    old, new = (mean(s.rows[slice(*window)], "entropy") for window in s.ends)
    if not new < ENTROPY_LEFT * old:
        return None
    text = f"Not learning: the entropy is used up, {old:.2g} -> {new:.2g} ({s.recent_text})"
    return Verdict("no entropy", text, "raise `train.temperature`")


def spikes(s: Signs) -> Verdict | None:
    """Single steps with many times the usual gradient, which spoil the optimiser's moments."""
    norms = [row["grad_norm"] for row in s.all if _is_finite(row.get("grad_norm"))]
    if not any(norms):
        return None
    median = statistics.median(norms)
    deviation = 1.4826 * statistics.median(abs(norm - median) for norm in norms)
    limit = max(SPIKE_RATIO * median, median + SPIKE_SIGMAS * deviation)
    num = sum(norm > limit for norm in norms)
    if num < NUM_SPIKES or num > len(norms) / 10:  # more than a tenth are no spikes
        return None
    text = f"Not learning: {num} steps have more than {limit / median:.0f} times the usual gradient"
    return Verdict("spikes", text, "lower `train.max_grad_norm`")


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def not_moving(s: Signs) -> Verdict | None:
    """Even at the upper end of the interval the whole run would gain next to nothing.

    The interval is that of the last third against the first, which lie two thirds of the run apart.
    """
    if s.num < NOT_MOVING:
        return None
    limit = TOLERANCE * s.ceiling
    whole = 1.5 * s.thirds.high * max(1.0, s.terms.max_steps / s.num)
    if whole > limit or s.thirds.low < -limit:
        return None
    text = f"Not moving: {s.both(s.thirds, s.reward.change(*s.ends))}"
    name, share = max(s.spread_shares.items(), key=lambda item: item[1], default=("", 0.0))
    if _for_rare(s):
        return Verdict("not moving", text, _for_rare(s))
    if share > DOMINANT and name != s.terms.decisive:
        text += f"; `{name}` makes {share:.0%} of the reward's variance"
        return Verdict("not moving", text, "lower its weight")
    return Verdict("not moving", text, "raise `train.learning_rate`")


def noisy(s: Signs) -> Verdict | None:
    """Neither a change nor its absence can be seen."""
    half = (s.thirds.high - s.thirds.low) / 2
    hidden = f"{100 * half:.0f} points" if s.is_share else f"{half:.2f}"
    trend = (
        "The reward rises, the answers are not clear"
        if trends.risen(s.reward)
        else "No clear trend"
    )
    text = f"{trend}: {s.both(s.thirds, s.reward.change(*s.ends))}; noise hides {hidden}"
    is_done = s.num >= s.terms.max_steps
    return Verdict("noisy", text, "raise `prompts_per_step`" if is_done else "")

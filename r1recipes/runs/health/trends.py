"""Which changes of a metric over the steps of a run are more than noise, and since when.

A verdict is looked at in every step, so that chance gets many tries: a change counts only where it
exceeds `bar` standard errors, which grows with the number of windows that could have shown it.
Noise is taken to be independent from step to step, since each step has prompts of its own; what
the model itself wanders is change, not noise. What the constants lead to is measured by
benchmarks/learning/verdicts.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

from r1recipes.runs.statistics import Z_95, newcombe, wilson

RISE, FALL = 3.5, 4.0
"""Standard errors that a single comparison needs, to which `bar` adds for the number of looks;
chosen by simulation. More for a fall, since its windows are many and a false alarm stops a run."""
CORRELATION = 0.35
"""Correlation of right answers to the same prompt before any step was seen. Measured from the jumps
between neighbouring steps: 0.13 to 0.55 in four runs of Qwen2.5-Coder-0.5B, 0.02 to 0.3 in those of
the tiny model; the middle of the former is assumed."""
PRIOR_STEPS = 8
"""Steps that the assumed noise weighs against the observed; assumed."""
OUTLIERS = 2
"""Largest jumps between neighbouring steps that the noise is not taken from: a collapse within a
step or two is a change, and must not hide in the noise that it makes; assumed."""
MIN_GROUPS = 32
"""Groups in the shortest window that is looked at: the mean of fewer, each all right or all wrong,
is far from normal; assumed."""
MAX_WINDOW = 64
"""Longest window that is looked at; assumed, longer ones see a collapse too late."""
BENT = 2.5
"""Standard errors that a curve must have bent by to be called flat after a rise; assumed."""

Window = tuple[int, int]
"""Rows first to last - 1, as in a slice."""


@dataclass(frozen=True)
class Change:
    """The change from the mean of one window to that of another, with its interval."""

    old: float
    new: float
    low: float
    high: float
    windows: tuple[Window, Window]
    since: int = 0
    """Row from which the new level holds, where that was looked for."""

    @property
    def size(self) -> float:
        return self.new - self.old

    @property
    def standard_errors(self) -> float:
        """Size of the change in standard errors, if its interval has 95 %."""
        toward_zero = self.size - self.low if self.size > 0 else self.high - self.size
        return Z_95 * abs(self.size) / max(toward_zero, 1e-12)


class Series:
    """One metric in every step, with prefix sums so that the mean of a window takes no time.

    `variances`: of each step's mean, if its completions were independent. They are not, since those
    to one prompt are alike; the factor is Kish's design effect, which the jumps between
    neighbouring steps show. `design`: its value before any step was seen, None if nothing is known.
    `trials`: completions of a step where the metric is a share of them, for Wilson's interval.
    `groups`: prompts of a step.
    """

    def __init__(
        self,
        values: Sequence[float],
        variances: Sequence[float],
        design: float | None,
        *,
        groups: int,
        trials: int | None = None,
    ):
        self.values = values
        self.variances = variances
        self.trials = trials
        self._groups = groups
        self._prior = design
        self._sums = list(accumulate(values, initial=0.0))
        self._variance_sums = list(accumulate(variances, initial=0.0))

    def __len__(self) -> int:
        return len(self.values)

    def mean(self, window: Window) -> float:
        first, last = window
        return (self._sums[last] - self._sums[first]) / (last - first)

    @cached_property
    def design(self) -> float:
        """Variance of a step's mean over what independent completions would have.

        Half the squared difference of neighbouring steps has the variance as its mean, whatever the
        slow trend is (von Neumann 1941).
        """
        jumps = [(b - a) ** 2 / 2 for a, b in pairwise(self.values)]
        expected = [(a + b) / 2 for a, b in pairwise(self.variances)]
        order = sorted(range(len(jumps)), key=lambda i: jumps[i] / (expected[i] + 1e-12))
        num = len(order) - min(OUTLIERS, len(order) // 3)
        observed = sum(jumps[i] for i in order[:num])
        weight = sum(expected[i] for i in order[:num])
        if self._prior is not None:
            typical = PRIOR_STEPS * (weight / num if num else 1.0)
            observed, weight = observed + self._prior * typical, weight + typical
        ratio = observed / weight if weight else 0.0
        return max(1.0, ratio) if self.trials else ratio

    def scales(self, length: int) -> list[int]:
        """Windows to look at, so that two fit into `length` steps: 2, 4, 8 ... `MAX_WINDOW`."""
        powers = (2**k for k in range(1, MAX_WINDOW.bit_length()))
        return [n for n in powers if n <= length // 2 and n * self._groups >= MIN_GROUPS]

    def interval(self, window: Window, z: float) -> tuple[float, float]:
        """Mean of a window, z standard errors down and up; Wilson's for a share."""
        first, last = window
        mean, length = self.mean(window), last - first
        if self.trials:
            return wilson(min(1.0, max(0.0, mean)), length * self.trials / self.design, z)
        variance = (self._variance_sums[last] - self._variance_sums[first]) / length
        # A step whose completions all earned the same by chance says nothing about its noise.
        variance = max(variance, self._variance_sums[-1] / len(self))
        half = z * math.sqrt(max(0.0, self.design * variance) / length)
        return mean - half, mean + half

    def change(self, old: Window, new: Window, z: float = Z_95) -> Change:
        """Newcombe's interval of the difference, z standard errors wide (`statistics.newcombe`)."""
        before, after = self.mean(old), self.mean(new)
        low, high = newcombe(before, self.interval(old, z), after, self.interval(new, z))
        return Change(before, after, low, high, (old, new))


def share(values: Sequence[float], trials: int, group_size: int) -> Series:
    """The series of a share of `trials` completions, in groups of `group_size` to a prompt.

    The variance p(1-p)/n of a step takes p from the five steps around it, half a completion away
    from 0 and 1.
    """
    sums = list(accumulate(values, initial=0.0))
    variances = []
    for i in range(len(values)):
        first, last = max(0, i - 2), min(len(values), i + 3)
        local = (sums[last] - sums[first]) / (last - first)
        p = (local * trials + 0.5) / (trials + 1)
        variances.append(max(0.0, p * (1 - p)) / trials)
    design = design_before(group_size)
    return Series(values, variances, design, groups=trials // group_size, trials=trials)


def design_before(group_size: int) -> float:
    """Kish's design effect of groups of a size, 1 + (m - 1) correlation, before any step."""
    return 1 + CORRELATION * (group_size - 1)


def bar(single: float, choices: float) -> float:
    """Standard errors that the largest of several comparisons needs to be called a change.

    `single`: what one comparison needs. The largest of k standard normals exceeds sqrt(2 ln k) by
    little; 2 ln k on top of the square keeps the chance of a false alarm about the same for all k.
    """
    return math.sqrt(single**2 + 2 * math.log(max(1.0, choices)))


def risen(series: Series) -> Change | None:
    """The last steps against the first ones, where they are higher for sure."""
    end = len(series)
    third = [end // 3] if series.scales(end) else []  # the best two windows of a straight rise
    pairs = [((0, n), (end - n, end)) for n in series.scales(end) + third]
    return _largest_rise(series, pairs)


def rising(series: Series, start: int = 0) -> Change | None:
    """The last steps against those before the middle, where they are higher for sure.

    `start`: the first row that counts.
    """
    end = len(series)
    half = start + (end - start) // 2
    pairs = [((half - n, half), (end - n, end)) for n in series.scales(2 * (half - start))]
    return _largest_rise(series, pairs)


def _largest_rise(series: Series, pairs: Sequence[tuple[Window, Window]]) -> Change | None:
    """The change that is the largest for sure. Each pair of windows is looked at in every step, and
    about n / length of those looks are independent."""
    changes = [series.change(o, n, bar(RISE, len(series) / (n[1] - n[0]))) for o, n in pairs]
    best = max(changes, key=lambda change: change.low, default=None)
    return best if best and best.low > 0 else None


def fallen(series: Series) -> Change | None:
    """The last steps against the best window before them, where they are lower for sure.

    Any two windows of these lengths could have shown the fall at some step, which is what `bar`
    corrects for. `since` is where the mean before and the mean after differ most (CUSUM).
    """
    end = len(series)
    scales = series.scales(end)
    worst, best_start = None, 0
    for old in scales:
        best = _best_until(series, old)
        for new in scales:
            if old + new > end:
                break
            start = best[end - new - old]
            looks = end / old * end / new
            change = series.change((start, start + old), (end - new, end), bar(FALL, looks))
            if change.high < 0 and (worst is None or change.high < worst.high):
                worst, best_start = change, start
    return replace(worst, since=_split(series, best_start)) if worst else None


def _best_until(series: Series, length: int) -> list[int]:
    """For each row the start of the best window of a length that starts there or before."""
    means = [series.mean((i, i + length)) for i in range(len(series) - length + 1)]
    best = [0]
    for i in range(1, len(means)):
        best.append(i if means[i] > means[best[-1]] else best[-1])
    return best


def _split(series: Series, start: int) -> int:
    """The row from `start` on whose step down divides the rest best."""
    end = len(series)

    def drop(k: int) -> float:
        step = series.mean((start, k)) - series.mean((k, end))
        return math.sqrt((k - start) * (end - k)) * step

    return max(range(start + 1, end), key=drop)


def flattened(series: Series) -> bool:
    """Whether the second half brought less than a quarter of the gain, and that is no chance.

    A line brings half of it; so the middle must lie above the line from start to end by `BENT`
    standard errors, or a slow rise in noise would be called flat.
    """
    end = len(series)
    width = max(2, end // 5)
    half = (end - width) // 2
    windows = (0, width), (half, half + width), (end - width, end)
    start, center, stop = (series.mean(window) for window in windows)
    errors = [_half_width(series, window) / Z_95 for window in windows]
    error = math.hypot(errors[0], 2 * errors[1], errors[2])
    bend = 2 * center - start - stop
    return stop - center < (stop - start) / 4 and bend > BENT * error


def _half_width(series: Series, window: Window) -> float:
    low, high = series.interval(window, Z_95)
    return (high - low) / 2

"""Which changes of a metric over the steps of a run are more than noise, and since when.

A verdict is looked at in every step, so that chance gets many tries: a change counts only where it
exceeds `bar` standard errors, which grows with the number of windows that could have shown it.
Noise is taken to be independent from step to step, since each step has prompts of its own; what
the model itself wanders is change, not noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from r1recipes.evaluate import Z_95, wilson

CERTAIN = 3.0
"""Standard errors that a single, fixed comparison needs; assumed. With the correction for the
number of looks in `bar`, benchmarks/verdicts.py measures the false alarms that are left."""
CORRELATION = 0.35
"""Correlation of right answers to the same prompt before any step was seen. Measured: 0.15 to 0.55
(spread of neighbouring steps in the three runs of tests/data/verdicts that learn)."""
PRIOR_STEPS = 8
"""Steps that the assumed noise weighs against the observed; assumed."""
OUTLIERS = 2
"""Largest jumps between neighbouring steps that the noise is not taken from: a collapse within a
step or two is a change, and must not hide in the noise that it makes; assumed."""
MAX_WINDOW = 64
"""Longest window that is looked for a change; assumed, longer ones see a collapse too late."""

BENT = 2.5
"""Standard errors that a curve must have bent by to be called flat after a rise; assumed."""

Window = tuple[int, int]
"""Rows first to last - 1, as in a slice."""


@dataclass(frozen=True)
class Change:
    """From the mean of one window to that of another, with the interval of the difference."""

    old: float
    new: float
    low: float
    high: float
    since: int = 0
    """Row from which the new level holds."""

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
    """

    def __init__(
        self,
        values: Sequence[float],
        variances: Sequence[float],
        design: float | None,
        trials: int | None = None,
    ):
        self.values = values
        self.variances = variances
        self.trials = trials
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
        found = observed / weight if weight else 0.0
        return max(1.0, found) if self.trials else found

    def interval(self, window: Window, z: float) -> tuple[float, float]:
        """Mean of a window, z standard errors down and up; Wilson's for a share."""
        first, last = window
        mean, length = self.mean(window), last - first
        if self.trials:
            return wilson(min(1.0, max(0.0, mean)), length * self.trials / self.design, z)
        variance = (self._variance_sums[last] - self._variance_sums[first]) / length
        half = z * math.sqrt(max(0.0, self.design * variance) / length)
        return mean - half, mean + half

    def change(self, old: Window, new: Window, z: float = Z_95) -> Change:
        """Newcombe's interval of the difference, z standard errors wide (1998, method 10)."""
        before, after = self.mean(old), self.mean(new)
        first, second = self.interval(old, z), self.interval(new, z)
        low = after - before - math.hypot(after - second[0], first[1] - before)
        high = after - before + math.hypot(second[1] - after, before - first[0])
        return Change(before, after, low, high)


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
    return Series(values, variances, 1 + CORRELATION * (group_size - 1), trials)


def bar(choices: float) -> float:
    """Standard errors that the largest of several comparisons needs to be called a change.

    The largest of k standard normals exceeds sqrt(2 ln k) by little; 2 ln k on top of the square
    keeps the chance of a false alarm about the same for every k.
    """
    return math.sqrt(CERTAIN**2 + 2 * math.log(max(1.0, choices)))


def scales(length: int) -> list[int]:
    """Lengths of the windows that are compared: 2, 4, 8 ... so that two of them fit."""
    return [2**k for k in range(1, MAX_WINDOW.bit_length()) if 2**k <= length // 2]


def risen(series: Series) -> Change | None:
    """The last steps against the first ones, where they are higher for sure."""
    return _rise_since(series, 0)


def _rise_since(series: Series, start: int) -> Change | None:
    end, best = len(series), None
    for scale in scales(end - start):
        looks = (end - start) / scale
        change = series.change((start, start + scale), (end - scale, end), bar(looks))
        if change.low > 0 and (best is None or change.low > best.low):
            best = change
    return best


def rising(series: Series, start: int = 0) -> Change | None:
    """The last steps against those before the middle, where they are higher for sure.

    `start`: the first row that counts.
    """
    end = len(series)
    half, best = start + (end - start) // 2, None
    for scale in scales(end - half):
        if scale > half - start:
            break
        looks = (end - start) / scale
        change = series.change((half - scale, half), (end - scale, end), bar(looks))
        if change.low > 0 and (best is None or change.low > best.low):
            best = change
    return best


def fallen(series: Series) -> Change | None:
    """The last steps against the best window before them, where they are lower for sure.

    Any two windows of a length could have shown the fall at some step: (n / length) squared of them
    do not overlap. `since` is where the mean before and the mean after differ most (CUSUM).
    """
    end, worst, best_start = len(series), None, 0
    for scale in scales(end):
        start = max(range(end - 2 * scale + 1), key=lambda i: series.mean((i, i + scale)))
        change = series.change((start, start + scale), (end - scale, end), bar((end / scale) ** 2))
        if change.high < 0 and (worst is None or change.high < worst.high):
            worst, best_start = change, start
    if worst is None:
        return None
    return Change(worst.old, worst.new, worst.low, worst.high, _split(series, best_start))


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

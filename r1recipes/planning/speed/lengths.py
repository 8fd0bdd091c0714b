"""How long prompts and completions are: a distribution to draw from, for rehearsals and for speed.

`REAL` is that of a real run, and is what "real lengths" means everywhere. Its completions are
shares of the limit: a recipe's limit is set above what its model writes, so a model that writes
more has a higher one. Its prompts are tokens, since problems do not grow with a limit. The lengths
of a run of the user's own are tokens throughout. Limits: lengths are independent of one another,
and do not change in the course of training.
"""

import math
import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

Quantiles = tuple[tuple[float, float], ...]
"""(share of the completions, the length that they do not exceed), both ascending, from 0 to 1."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of completions and prompts."""

    name: str
    """`real`, or the name of a run."""
    quantiles: Quantiles
    prompt_mean: float
    """Tokens."""
    prompt_deviation: float
    """Standard deviation, in tokens."""
    is_share: bool = False
    """Whether the quantiles are shares of max_completion_length, and not tokens."""

    def completions(self, draw: random.Random, count: int, limit: int) -> list[int]:
        """`count` lengths from 1 to `limit` tokens, in random order.

        One is drawn from each `count`-th part of the distribution, so that every step has its share
        of long ones, and steps differ less than those of a run do.
        """
        levels = [(n + draw.random()) / count for n in range(count)]
        draw.shuffle(levels)
        return [self._tokens(self.at(level), limit) for level in levels]

    def prompts(self, draw: random.Random, count: int, least: int, limit: int) -> list[int]:
        """`count` lengths from `least` to `limit` tokens."""
        drawn = (draw.gauss(self.prompt_mean, self.prompt_deviation) for _ in range(count))
        return [max(least, min(limit, round(length))) for length in drawn]

    def expected(self, count: int, limit: int) -> tuple[float, float]:
        """Mean length of a completion in tokens, and the length of the longest of `count`."""
        return _mean(self, limit), self._tokens(self.at(count / (count + 1)), limit)

    def expected_prompt(self, limit: int) -> float:
        """Mean length of a prompt in tokens."""
        return min(self.prompt_mean, limit)

    def at(self, level: float) -> float:
        """The quantile, between those that are listed by a straight line."""
        pairs = zip(self.quantiles, self.quantiles[1:], strict=False)
        (below, low), (above, high) = next(pair for pair in pairs if level <= pair[1][0])
        return low + (high - low) * (level - below) / (above - below)

    def _tokens(self, length: float, limit: int) -> int:
        return max(1, min(limit, round(length * limit if self.is_share else length)))

    def of_parts(self, parts: int, limit: int) -> list[int]:
        """The length in the middle of each of so many equal parts of the distribution."""
        return [self._tokens(self.at((n + 0.5) / parts), limit) for n in range(parts)]


@cache
def _mean(lengths: Lengths, limit: int) -> float:
    """Kept, since a search asks for it thousands of times."""
    return statistics.fmean(lengths.of_parts(1000, limit))


def of_mean(mean: float) -> Lengths:
    """The distribution of `REAL`, in tokens, with this mean."""
    share = statistics.fmean(REAL.of_parts(1000, 10**6)) / 10**6
    quantiles = tuple((level, length * mean / share) for level, length in REAL.quantiles)
    return replace(REAL, name=f"{mean:g} tokens", quantiles=quantiles, is_share=False)


def of_tokens(name: str, tokens: Iterable[int], prompt: tuple[float, float]) -> Lengths:
    """The distribution of counted completions; `prompt`: mean and deviation in tokens.

    Raises: ValueError without any completion.
    """
    ordered = sorted(tokens)
    if not ordered:
        raise ValueError("no completions")
    last = len(ordered) - 1
    steps = min(MAX_QUANTILES, max(1, last))
    levels = [n / steps for n in range(steps + 1)]
    quantiles = tuple((level, float(ordered[math.floor(level * last + 0.5)])) for level in levels)
    return Lengths(name, quantiles, *prompt)


MAX_QUANTILES = 1000
"""Quantiles of a run's own lengths; assumed, enough for the longest of a step of 1,000."""
REAL = Lengths(
    "real",
    (
        (0, 0.076),
        (0.02, 0.109),
        (0.1, 0.146),
        (0.2, 0.174),
        (0.3, 0.198),
        (0.4, 0.221),
        (0.5, 0.245),
        (0.6, 0.272),
        (0.7, 0.305),
        (0.8, 0.349),
        (0.9, 0.421),
        (0.95, 0.494),
        (0.98, 0.586),
        (0.99, 0.641),
        (0.995, 0.693),
        (0.999, 0.777),
        (1, 0.777),
    ),  # fmt: skip
    188,
    19,
    is_share=True,
)
"""A step on average of a run of Qwen2.5-Coder 0.5B on word problems such as those of GSM8K, with a
limit of 384: 36 steps of 512 completions (measured, H100, 2026-11-26; benchmarks/speed/lengths.py
makes it)."""

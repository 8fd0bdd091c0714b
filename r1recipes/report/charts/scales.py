"""Axes of a chart: the position of a value in pixels, the ticks of an axis, and numbers as text.

Knows numbers only, not charts. Nothing is drawn here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

UNITS = ("", "%", "s", "bytes")
"""What a value is: a plain number, a share from 0 to 1, seconds, or bytes."""
Ends = tuple[float | None, float | None]
"""Lowest and highest value of an axis; None where the data decide."""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis: values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value, in pixels."""
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        share = ((math.log10(value) if self.log else value) - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 4, *, is_whole: bool = False) -> list[float]:
        """About `count` round values within the scale; `is_whole`: whole numbers alone."""
        if self.log:
            return _log_ticks(self.low, self.high)
        return ticks(self.low, self.high, count, is_whole=is_whole)


def ticks(low: float, high: float, count: int = 4, *, is_whole: bool = False) -> list[float]:
    """About `count` round values from `low` to `high`: multiples of 1, 2 or 5 times a power of 10.

    None lies outside the range. An empty range has its one value as its only tick. `is_whole`: of
    values that are counted, such as trials, which have no halves; the range has a whole number.
    """
    if not high - low > 1e-300:  # a smaller range is rounded to 0 when it is divided
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = min((power * f for f in (1, 2, 5, 10)), key=lambda s: abs((high - low) / s - count))
    step = max(step, 1.0) if is_whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12 - math.floor(math.log10(step))) for k in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; where fewer than two lie in the range, also 3 times them, or 2 and 5 times."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(values) >= 2:
            every = math.ceil(len(values) / 6)
            return values[::every]
    return [low, high]


def extent(values: Iterable[float | None], fixed: Ends, log: bool = False) -> tuple[float, float]:
    """Lowest and highest value to draw: those of the data with some air, unless an end is fixed."""
    numbers = [v for v in values if is_number(v) and (v > 0 or not log)]
    fixed_low, fixed_high = fixed
    low = min(numbers, default=1.0 if log else 0.0) if fixed_low is None else fixed_low
    high = max(numbers, default=1.0) if fixed_high is None else fixed_high
    if log:
        return (low, high) if high > low else (low / 2, high * 2 or 1.0)
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        is_fixed = fixed_low is not None or low == 0  # nothing was paid: less than 0 is no value
        return (low if is_fixed else low - pad), low + pad
    pad = (high - low) * 0.06
    if fixed_low is None:
        low = 0.0 if 0 <= low < pad else low - pad
    return low, (high + pad if fixed_high is None else high)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value can be drawn: a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def text(value: float | None, unit: str = "", among: Sequence[float] = ()) -> str:
    """A value as people write it: `41.6 %`, `12.9k`, `1e-5`, `6.6 GiB`, `2.5 s`, `3 h`.

    Beside others (`among`) it has the digits that tell them apart, as ticks need.
    """
    if value is None or not is_number(value):
        return ""
    if unit == "%" and not among and abs(value) >= 0.01:
        return f"{100 * value:.1f} %"
    if unit == "%":
        return _plain(100 * value, [100 * v for v in among]) + " %"
    if unit == "bytes":
        return _plain(value / 2**30, [v / 2**30 for v in among]) + " GiB"
    if unit == "s" and value >= 120 and not among:
        return f"{_plain(value / 60)} min" if value < 7200 else f"{_plain(value / 3600)} h"
    return _plain(value, among) + (" s" if unit == "s" else "")


def _plain(value: float, among: Sequence[float] = ()) -> str:
    size = max([abs(value), *map(abs, among)])
    if value == 0:
        return "0"
    if size >= 10_000:
        short, letter = (value / 1e6, "M") if size >= 1e6 else (value / 1e3, "k")
        return f"{short:.4g}{letter}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if len(among) > 1:
        gap = min(abs(a - b) for a, b in zip(among, among[1:], strict=False))
        digits = max(0, -math.floor(math.log10(gap) + 1e-9))
        return f"{value:.{min(digits, 6)}f}"
    return f"{value:.4g}" if size >= 100 else f"{value:.3g}"

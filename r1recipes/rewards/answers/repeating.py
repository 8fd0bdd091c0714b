r"""Reads decimals without an end: 0.\overline{3}, 0.(3) and 0.333... are 1/3.

Limits: before dots a single digit must be written three times and a longer period twice, since
3.14... is not repeating.
"""

import re
from fractions import Fraction

MAX_DIGITS = 100
"""Digits before the period; assumed, as for any number."""

_BARRED = re.compile(r"(\d*)\.(\d*)(?:\\overline\s*\{(\d{1,20})\}|\((\d{1,20})\))")
_DOTTED = re.compile(r"(\d{1,20})\.(\d{3,40})\s?\.\.\.(?![.\d])")
_PERIOD = re.compile(r"(\d*?)(?:(\d)\2{2,}|(\d{2,10}?)\3+)")


def read_repeating(text: str) -> tuple[Fraction, str] | None:
    """The repeating decimal that a clean text begins with, and the rest of the text."""
    if barred := _BARRED.match(text):
        whole, start, period = barred[1], barred[2], barred[3] or barred[4]
        if len(whole + start) > MAX_DIGITS or not whole and barred[4]:
            return None
        return _value(whole, start, period), text[barred.end() :]
    dotted = _DOTTED.match(text)
    digits = _PERIOD.fullmatch(dotted[2]) if dotted else None
    if dotted is None or digits is None or digits[2] == "0":
        return None  # 42.000... is rounded
    return _value(dotted[1], digits[1], digits[2] or digits[3]), text[dotted.end() :]


def _value(whole: str, start: str, period: str) -> Fraction:
    nines = (10 ** len(period) - 1) * 10 ** len(start)
    return Fraction(f"{whole or 0}.{start or 0}") + Fraction(int(period), nines)

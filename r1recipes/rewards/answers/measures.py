"""Reads bounds, ranges, compound measures, times of day and remainders, which have many spellings.

Each has a value that all its spellings share: "at least 3" and "x >= 3", "1 to 2" and "1-2",
"5 hr 30 min" and "5 hours and 30 minutes", "3:30 PM" and "15:30". Limits: nothing is converted, so
5.5 hours is not 5 hours 30 minutes; a time without AM or PM is only read from 13:00 to 23:59.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from r1recipes.rewards.answers.numbers import Quantity, read_quantity
from r1recipes.rewards.answers.units import same_unit

MAX_CHARS = 100
"""Characters of a bound, a range or a measure; assumed."""


class Bound(NamedTuple):
    """One side of a range: x >= 3, where the name may be missing."""

    sign: str
    limit: Quantity
    name: str = ""


class Bounds(NamedTuple):
    """Bounds of which at least one holds ("x < 1 or x > 2"), or a single one."""

    options: tuple[Bound, ...]


class Range(NamedTuple):
    """From one number to another."""

    low: Quantity
    high: Quantity


class Compound(NamedTuple):
    """A measure in several units, the largest first: 5 h, 30 min."""

    parts: tuple[tuple[Fraction, str], ...]


class Clock(NamedTuple):
    """A time of day."""

    minutes: int


class Division(NamedTuple):
    """A quotient and its remainder: 42 R 3."""

    quotient: int
    remainder: int


Measure = Bounds | Range | Compound | Clock | Division

_SIGNS = {
    "\u2265": "at least|no less than|no fewer than|not less than|not fewer than|\u2265",
    "\u2264": "at most|no more than|not more than|up to|\u2264",
    ">": "more than|greater than|larger than|>",
    "<": "less than|fewer than|smaller than|<",
}
_SIGN_OF = {spelled: sign for sign, all_of in _SIGNS.items() for spelled in all_of.split("|")}
_SIGN = "|".join(_SIGN_OF)
_FLIPPED = {"<": ">", ">": "<", "\u2264": "\u2265", "\u2265": "\u2264"}
_BOUND = re.compile(rf"(?:([^\W\d_])\s?(?:is\s)?)?({_SIGN})\s?(.+)", re.IGNORECASE)
_TURNED = re.compile(r"([^<>\u2264\u2265]+)([<>\u2264\u2265])\s?([^\W\d_])")
_PART = r"-?\s?[$\u20ac\u00a3]?\s?-?\.?\d[^-]*?"
_RANGE = re.compile(
    rf"(?:from\s|(between)\s)?({_PART})\s?(-|\bto\b|\band\b|(?<=%\s)(?:to|and)\b)\s?({_PART})",
    re.IGNORECASE,
)
_FAMILIES = (
    ("yr", "mo", "wk", "d", "h", "min", "s"), ("mi", "yd", "ft", "in"), ("km", "m", "cm", "mm"),
    ("t", "kg", "g", "mg"), ("lb", "oz"), ("L", "mL"), ("dollar", "\u00a2"), ("$", "\u00a2"),
)  # fmt: skip
_FEET = re.compile(r"(\d{1,3})\s?'\s?(\d{1,2}(?:\.\d)?)\s?(?:\"|'')")
_HOURS = re.compile(r"(\d{1,4})\s?h\s?(\d{1,2})\s?m")
_COMPONENT = re.compile(
    r"(\d{1,9}(?:\.\d{1,6})?)\s?([A-Za-z$\u00a2]{1,9})\.?(?:,?\sand\s|,?\s?(?=\d)|$)"
)
_CLOCK = re.compile(r"(\d{1,2})(?:[:.](\d\d))?\s?([ap])\.?\s?m\b\.?", re.IGNORECASE)
_AFTERNOON = re.compile(r"(1[3-9]|2[0-3]):([0-5]\d)")
_DIVISION = re.compile(
    r"(\d{1,15}),?\s?(?:R|r|rem\.?|(?:with\s)?(?:an?\s)?remainder(?:\sof)?)\s?(\d{1,15})"
)


@lru_cache(maxsize=4096)
def read_measure(text: str) -> Measure | None:
    """The bound, range, compound measure, time or division that a clean text is, or None."""
    if len(text) > MAX_CHARS or not any(character.isdigit() for character in text):
        return None
    return (
        _read_clock(text)
        or _read_division(text)
        or _read_compound(text)
        or _read_bounds(text)
        or _read_range(text)
    )


def same_measure(left: Measure, right: Measure) -> bool:
    """Whether two measures are equal; a missing unit or name agrees with any."""
    if isinstance(left, Range) and isinstance(right, Range):
        return _same_number(left.low, right.low) and _same_number(left.high, right.high)
    if isinstance(left, Bounds) and isinstance(right, Bounds):
        others = list(right.options)
        for bound in left.options:
            equal = [other for other in others if _same_bound(bound, other)]
            if not equal:
                return False
            others.remove(equal[0])
        return not others
    return left == right


def _same_number(left: Quantity, right: Quantity) -> bool:
    same_form = left.value == right.value and left.is_percent == right.is_percent
    return same_form and same_unit(left.unit, right.unit)


def _same_bound(left: Bound, right: Bound) -> bool:
    same_name = left.name == right.name or not left.name or not right.name
    return left.sign == right.sign and same_name and _same_number(left.limit, right.limit)


def _number(text: str) -> Quantity | None:
    """A number that begins with its digits; neither a code such as 0101 nor 2h, maybe a product."""
    text = text.strip()
    if not re.match(r"-?\s?[$\u20ac\u00a3]?\s?-?\.?\d", text) or re.match(r"-?0\d", text):
        return None
    if re.search(r"\d[A-Za-z]$|[,;:]$", text):
        return None
    quantity = read_quantity(text)
    return quantity if isinstance(quantity, Quantity) and quantity.is_worked else None


def _read_bounds(text: str) -> Bounds | None:
    options = [_read_bound(part.strip()) for part in re.split(r"\sor\s|\u2228", text)]
    bounds = tuple(bound for bound in options if bound is not None)
    if len(bounds) < len(options):
        return None
    is_named = all(bound.name for bound in bounds) and len({bound.name for bound in bounds}) == 1
    return Bounds(bounds) if len(bounds) == 1 or is_named else None


def _read_bound(text: str) -> Bound | None:
    if turned := _TURNED.fullmatch(text):  # 3 <= x
        limit = _number(turned[1])
        return Bound(_FLIPPED[turned[2]], limit, turned[3]) if limit else None
    match = _BOUND.fullmatch(text)
    limit = _number(match[3]) if match else None
    if match is None or limit is None:
        return None
    return Bound(_SIGN_OF[match[2].casefold()], limit, match[1] or "")


def _read_range(text: str) -> Range | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    if (match[3].casefold() == "and") != bool(match[1]):
        return None
    low, high = _number(match[2]), _number(match[4])
    if low is None or high is None or match[1] and low.value > high.value:
        return None
    if low.is_percent and not high.is_percent or not same_unit(low.unit, high.unit):
        return None
    unit = low.unit or high.unit  # 10-20 km, $10-20
    both = [side._replace(unit=unit, is_percent=high.is_percent) for side in (low, high)]
    return Range(*both)


def _read_compound(text: str) -> Compound | None:
    if feet := _FEET.fullmatch(text):
        return Compound(((Fraction(feet[1]), "ft"), (Fraction(feet[2]), "in")))
    if hours := _HOURS.fullmatch(text):  # here m is not the metre
        return Compound(((Fraction(hours[1]), "h"), (Fraction(hours[2]), "min")))
    parts: list[tuple[Fraction, str]] = []
    position = 0
    while position < len(text):
        match = _COMPONENT.match(text, position)
        quantity = _number(f"{match[1]} {match[2]}") if match else None
        if match is None or quantity is None:
            return None
        parts.append((quantity.value, quantity.unit))
        position = match.end()
    for family in _FAMILIES:
        places = [family.index(unit) for _, unit in parts if unit in family]
        if len(places) == len(parts) > 1 and places == sorted(set(places)):
            return Compound(tuple(parts))
    return None


def _read_clock(text: str) -> Clock | None:
    if match := _AFTERNOON.fullmatch(text):
        return Clock(60 * int(match[1]) + int(match[2]))
    match = _CLOCK.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 12 or int(match[2] or 0) > 59:
        return None
    hour = int(match[1]) % 12 + 12 * (match[3] in "pP")
    return Clock(60 * hour + int(match[2] or 0))


def _read_division(text: str) -> Division | None:
    match = _DIVISION.fullmatch(text)
    return Division(int(match[1]), int(match[2])) if match else None

r"""Reads an answer that is one number, and explains why any other answer is not one.

It reads thousands separators, decimals, exponents, fractions, mixed fractions, percent, a currency
or a unit, words for numbers, the last side of an equation, and a short phrase around the number. It
refuses arithmetic that is left to do (47 + 38, 84/2, 2^3 and every operation with a whole value),
ranges, bounds, estimates, negations and two candidates. Values are exact. Limits: nothing is
converted between units; a decimal comma is not understood, since 3,5 may be two numbers.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from r1recipes.rewards.answers import number_words
from r1recipes.rewards.answers.repeating import read_repeating
from r1recipes.rewards.answers.text import (
    HEDGES,
    NEGATIONS,
    clean,
    doubts,
    unwrap,
    without_lead,
    words,
)
from r1recipes.rewards.answers.units import CURRENCY, read_unit, same_unit

MAX_NUMBER_CHARS = 100
"""Characters of a number; assumed. It keeps int() below Python's limit of 4300 digits."""
MAX_READ_CHARS = 500
"""Characters of a phrase with a number in it; assumed. References of GSM8K and MATH are shorter."""
MAX_EXPONENT = 64
"""Exponent of a power such as 2^{-3}; assumed. That of a power of ten may have three digits."""


class Quantity(NamedTuple):
    """One number: 50% is 50 with `is_percent`; `unit` is in its canonical spelling or ""."""

    value: Fraction
    is_percent: bool = False
    unit: str = ""
    form: str = "whole"
    """How it is written: whole, decimal, fraction or power."""
    is_worked: bool = True
    """False where a division or power with a whole value is left to do: 84/2, 42/1, 2^3."""


class NoNumber(NamedTuple):
    """Why a text is not one number."""

    why: str


_INTEGER = (
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:[ ]\d{3})+|\d{1,3}(?:'\d{3})+"
    r"|\d{1,3}(?:_\d{3})+|\d+)(?!\d)"
)
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d+|\.(?![\d.]))?|\.\d+)(?![.,'_]?\d)"
_EXPONENT = r"(?:\{{\s*(?P<{0}1>{1})\s*\}}|\((?P<{0}2>{1})\)|(?P<{0}3>{1}))"
_BASE_EXPONENT = _EXPONENT.format("e", r"[+-]?\s?\d{1,3}")
_TEN_EXPONENT = _EXPONENT.format("t", r"[+-]?\s?\d{1,3}")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_OVER = re.compile(r"\{\s*(\d+)\s*\\over\s*(\d+)\s*\}")
_NUMERAL = re.compile(
    rf"""(?P<mixed>{_INTEGER})(?:[ ]+|[ ]and[ ])(?P<over>\d+)\s?/\s?(?P<under>\d+)(?![\d.,/])
    | (?P<top>{_INTEGER})\s?/\s?(?P<bottom>-?\s?{_INTEGER})(?![.,]?\d)(?!\s?/)
    | (?P<base>{_DECIMAL})\s?(?:\^|\*\*)\s?{_BASE_EXPONENT}(?![\d.])
    | (?P<plain>{_DECIMAL})(?:[eE](?P<e>[+-]?\d{{1,3}})(?!\w)
      | \s?[\u00d7x*\u00b7]\s?10\s?(?:\^|\*\*)\s?{_TEN_EXPONENT}(?![\d.]))?
    """,
    re.VERBOSE,
)
_SIGN = re.compile(r"(?:(-)|\+|(minus|negative|neg)\b)\s*", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:%|percent\b|per cent\b|pct\b)", re.IGNORECASE)
_FAST = re.compile(r"-?(?:\d{1,15}|\d{1,3}(?:,\d{3}){1,4})(?:\.\d{1,15})?", re.ASCII)
_BRACKETED = re.compile(r"\s*\(([^()]*)\)")


def read_quantity(text: str, *, unit: str = "") -> Quantity | NoNumber:
    """The one number that a text is, or why it is not one. Never raises; linear in the text.

    `unit` is that of the reference, which counts as a unit even where it is not a known one.
    """
    if len(text) > MAX_READ_CHARS:
        return NoNumber(f"more than {MAX_READ_CHARS} characters, not a number")
    short = text.strip()
    if _FAST.fullmatch(short):
        return Quantity(
            Fraction(short.replace(",", "")), form="decimal" if "." in short else "whole"
        )
    plain = clean(short)
    for candidate in _candidates(plain):
        quantity = _one_number(candidate, unit)
        if quantity is not None:
            return quantity
    return NoNumber(why_no_number(plain))


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number; None for anything else, such as 47 + 38.

    "18%" is 18; `read_quantity` keeps the sign and the unit. A number has at most
    `MAX_NUMBER_CHARS` characters.
    """
    quantity = read_quantity(text)
    return quantity.value if isinstance(quantity, Quantity) and quantity.is_worked else None


def _one_number(text: str, unit: str) -> Quantity | None:
    """A text that is a number from its first character to its last."""
    text = unwrap(text, brackets=True)
    text = _FRACTION.sub(_plain_fraction, _OVER.sub(r"\1/\2", text)).strip()
    text, is_negative, currency = _without_sign(text)
    numeral = _read_numeral(text)
    if numeral is None:
        return None
    quantity, rest = numeral
    factor, addend, rest = number_words.read_magnitude(rest, after_digit=text[:1] in "0123456789.")
    percent = _PERCENT.match(rest)
    rest = rest[percent.end() :] if percent else rest
    value = (quantity.value * factor + addend) * (-1 if is_negative else 1)
    quantity = quantity._replace(value=value, is_percent=percent is not None)
    return _with_unit(quantity, rest, currency, unit)


def _without_sign(text: str) -> tuple[str, bool, str]:
    """The number in "-$5", whether it is negative, and the currency, which may come first."""
    is_negative, currency = False, ""
    if sign := _SIGN.match(text):
        is_negative, text = not sign[0].startswith("+"), text[sign.end() :]
    if symbol := CURRENCY.match(text):
        currency, text = symbol[0].strip(), text[symbol.end() :]
        if sign is None and (sign := _SIGN.match(text)):
            is_negative, text = not sign[0].startswith("+"), text[sign.end() :]
    return text, is_negative, currency


def _plain_fraction(match: re.Match[str]) -> str:
    """\\frac{1}{2} as 1/2 if both are whole numbers, with spaces, as a number may come before."""
    top, bottom = ((match[i] or match[i + 1] or "").strip() for i in (1, 3))
    whole = re.compile(rf"-?\s?{_INTEGER}")
    is_plain = whole.fullmatch(top) and whole.fullmatch(bottom)
    return f" {top}/{bottom} " if is_plain else match[0]


def _read_numeral(text: str) -> tuple[Quantity, str] | None:
    """The number that a text begins with, and the rest of the text."""
    if repeating := read_repeating(text):
        return Quantity(repeating[0], form="fraction"), repeating[1]
    match = _NUMERAL.match(text)
    if match is None:
        spelled = number_words.read_words(text)
        return (Quantity(spelled[0], form=_form(spelled[0])), spelled[1]) if spelled else None
    if match.end() > MAX_NUMBER_CHARS:
        return None
    quantity = _numeral_quantity({k: v for k, v in match.groupdict().items() if v is not None})
    return (quantity, text[match.end() :]) if quantity else None


def _form(value: Fraction) -> str:
    return "whole" if value.denominator == 1 else "fraction"


def _numeral_quantity(parts: dict[str, str]) -> Quantity | None:
    """The value of a matched numeral by its form; None for 3/0, 1 3/2 and a power too large."""
    if "mixed" in parts:
        over, under = int(parts["over"]), int(parts["under"])
        if not 0 < over < under:
            return None
        return Quantity(_exact(parts["mixed"]) + Fraction(over, under), form="fraction")
    if "top" in parts:
        top, bottom = _exact(parts["top"]), _exact(parts["bottom"])
        if not bottom:
            return None
        value = top / bottom
        return Quantity(value, form="fraction", is_worked=value.denominator > 1)
    exponents = [int(parts[k].replace(" ", "")) for k in parts if k[1:].isdigit()]
    if "base" in parts:
        return _power(_exact(parts["base"]), exponents[0])
    exponent = int(parts["e"]) if "e" in parts else exponents[0] if exponents else 0
    form = "power" if exponent else "decimal" if "." in parts["plain"] else "whole"
    return Quantity(_exact(parts["plain"]) * Fraction(10) ** exponent, form=form)


def _power(base: Fraction, exponent: int) -> Quantity | None:
    """10^3 and 2^{-3} are ways to write a number; 2^3 is left to be worked out."""
    if base != 10 and (abs(exponent) > MAX_EXPONENT or base > 10**6) or not base and exponent < 0:
        return None
    value = base**exponent
    is_notation = base == 10 or exponent < 0 and base.denominator == 1 and value.denominator > 1
    return Quantity(value, form="power", is_worked=is_notation)


def _exact(text: str) -> Fraction:
    return Fraction(re.sub("[, '_]", "", text).rstrip("."))


def _with_unit(quantity: Quantity, rest: str, currency: str, expected: str) -> Quantity | None:
    """The number with the text behind it, if that is a unit or repeats the number."""
    if (again := _BRACKETED.fullmatch(rest)) and again[1].strip():
        inner = read_quantity(again[1])
        return quantity if isinstance(inner, Quantity) and inner[:2] == quantity[:2] else None
    prefix = read_unit(currency, quantity.value, is_glued=False) or currency
    is_glued = bool(rest) and not rest[0].isspace()
    if prefix and rest.lstrip(" -")[:1] in "/pae":  # $36 per hour, $36/hour, $36 an hour, $36 each
        both = read_unit(f"{currency} {rest}", quantity.value, is_glued=False)
        if both is not None:
            return quantity._replace(unit=both)
    unit = read_unit(rest, quantity.value, is_glued=is_glued, expected=expected)
    if unit is None or not same_unit(prefix, unit):
        return None
    return quantity._replace(unit=prefix or unit)


_CHANGES = frozenset(
    """half twice double triple thrice squared cubed plus minus times reciprocal inverse opposite
    negative divided multiplied quarter third fifth""".split()
)
_ARITHMETIC = _CHANGES | frozenset(
    """and of the by sum difference product quotient total added to subtracted from square root
    x percent so thus therefore hence we have get cents dollars if then""".split()
)
_BOUNDS = frozenset(
    """least most than over under above below exceeding maximum max minimum min within until before
    after fewer less more greater smaller bigger larger beyond up""".split()
)
_NOT_BEFORE_COLON = _BOUNDS | frozenset(
    """step option choice case page question problem part line room exercise example figure chapter
    section item row column level""".split()
)
_PLAIN_SUBJECT = re.compile(r"(?:[\w\s'\",.:()$%&\u2220\u25b3]|(?<=\w)-(?=\w))*")
_FUNCTIONS = frozenset(
    """sqrt log ln sin cos tan exp abs sum product difference quotient plus minus times divided
    multiplied root squared cubed half twice double triple thrice factorial""".split()
)
_VERB = re.compile(
    r"\b(?:is equal to|is|are|was|were|will be|would be|must be|equals|has|have|had|costs?|gives|"
    r"gets?|got|makes|made|needs?|comes to|adds up to|amounts to|it's|that's|totals|becomes|takes|"
    r"took|sold|spent|earned|paid|contains|weighs|earns|saves|saved|travels|travell?ed)"
    r"\b\s*:?\s*(?:a total of\s+)?",
    re.IGNORECASE,
)
_DISCOURSE = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|exactly|just|only|precisely|simply|a total of|in total|ok|"
    r"altogether|is|=|:|\u2192|we get|i got|i get|there are|there is)[,:]?\s*)+(?![^\s\d$.+-])",
    re.IGNORECASE,
)
_NAME = re.compile(r"[^\W\d_][\w' ]*(?:_\{?\w{1,5}\}?)?'*(?:\([\w, .-]{0,20}\))?")
_OPERATION = re.compile(r"[-+*/^!|\u00d7\u00b7\u00f7\u221a\\(]|\d\s*[a-z]\b")
_NUMBER_LIKE = re.compile(r"\d+(?:[.,]\d+)*")


def _candidates(plain: str) -> list[str]:
    """The parts of a text that may be its number: the last side of an equation, or all of it."""
    whole = unwrap(plain, brackets=True).lstrip("\u2192 ")
    *sides, last = whole.split("=")
    if sides and not all(_is_left_side(side) for side in sides):
        return []
    texts = [text for text in (last, *without_lead(last)) if text.strip()]
    texts += _without_discourse(last)
    for text in list(texts):
        verbs = list(_VERB.finditer(text))
        colon = text.rfind(":")
        if verbs and _is_subject(text[: verbs[-1].start()], is_verb=True):
            texts.append(text[verbs[-1].end() :])
            texts += _without_discourse(texts[-1])
        elif colon > 0 and _is_subject(text[:colon], is_verb=False):
            texts.append(text[colon + 1 :])
    return texts


def _without_discourse(text: str) -> list[str]:
    """The text without a first "so", "exactly" and the like; empty where it has none."""
    match = _DISCOURSE.match(text.strip())
    return [text.strip()[match.end() :]] if match else []


def _is_left_side(side: str) -> bool:
    """Whether the text before "=" names or works out the number: x, Total cost, 75 + 36.

    In 2x, -x or x/2 it does not: there the number is the value of something else. Nothing is
    computed.
    """
    side = side.strip()
    if not side:
        return True
    spelled = set(words(side))
    if doubts(side) or re.search("[<>\u2264\u2265\u2260~\u2261\u00b1]", side):
        return False
    if not re.search(r"\d", side) or _NAME.fullmatch(side):
        is_plain = _NAME.fullmatch(side) or re.fullmatch(r"\\?\w+|[\u2220\u25b3]\s?\w+", side)
        return is_plain is not None and not spelled & (_CHANGES | _FUNCTIONS)
    return not _has_unknown(side)


def _has_unknown(side: str) -> bool:
    """Whether a single letter is part of arithmetic; the x of 6 x 7 is a sign."""
    unknowns = re.sub(r"(?<=[\d)])\s*x\s*(?=[\d($])", " ", side)
    unknowns = re.sub(r"\\[A-Za-z]+", " ", unknowns)
    return re.search(r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])", unknowns) is not None


def _is_subject(subject: str, *, is_verb: bool) -> bool:
    """Whether words may come before a number: "She has", "The sum of 7 and 3 is", not "half of"."""
    spelled = words(subject)
    if len(spelled) > 25 or doubts(subject) or re.search("[<>\u2264\u2265\u2260~|^]", subject):
        return False
    if re.search(r"\d", subject):
        is_sum = all(word in _ARITHMETIC for word in spelled)
        return is_verb and is_sum and not _has_unknown(subject)
    if not is_verb and (not spelled or not _NOT_BEFORE_COLON.isdisjoint(spelled)):
        return False
    return _CHANGES.isdisjoint(spelled) and _PLAIN_SUBJECT.fullmatch(subject) is not None


def why_no_number(plain: str) -> str:
    """Why a clean text is not one number, in a few words."""
    spelled = set(words(plain))
    count = len(_NUMBER_LIKE.findall(plain))
    if not plain:
        return "no answer"
    if spelled & NEGATIONS or "\u2260" in plain:
        return "a negation, not a number"
    if spelled & {"or", "either"} or "\u00b1" in plain:
        return "two candidates"
    if re.search("[<>\u2264\u2265]", plain) or spelled & _BOUNDS or plain.endswith("+"):
        return "a bound, not a number"
    if spelled & HEDGES or plain[-1:] == "?" or "~" in plain:
        return "an estimate, not a number"
    if spelled & {"between"} or _is_range(plain):
        return "a range, not a number"
    if spelled & _FUNCTIONS or _OPERATION.search(plain):
        return "an expression, not worked out" if count else "an expression, not a number"
    if count > 1:
        return "several numbers"
    if count:
        return "a number among other words" if spelled else "not written as one number"
    return "no number"


def _is_range(plain: str) -> bool:
    match = re.fullmatch(r"\D{0,40}?(\d{1,15})\s*(?:-|to)\s*(\d{1,15})\D{0,40}", plain)
    return match is not None and int(match[1]) < int(match[2])

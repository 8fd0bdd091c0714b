"""Judges an answer: it must be of the same kind as its reference, and equal to it.

A number must be one number and a choice one choice; an expression with the value of the number is
not the number. A pair of expressions that has to be computed is returned as `Undecided`, because
that needs a process that can be killed. Every verdict has a reason. Nothing here raises or takes
more than milliseconds.
"""

import re
from collections.abc import Hashable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from r1recipes.rewards.answers import forms
from r1recipes.rewards.answers.expressions import (
    Pair,
    compare_expressions,
    is_expression,
    normal_form,
    right_side,
)
from r1recipes.rewards.answers.kinds import Kind, Reference
from r1recipes.rewards.answers.measures import Bounds, read_measure, same_measure
from r1recipes.rewards.answers.numbers import NoNumber, Quantity, read_quantity
from r1recipes.rewards.answers.text import clean, remainders, same_text, unwrap
from r1recipes.rewards.answers.units import same_unit

MAX_ANSWER_CHARS = 500
"""Characters of an answer, plus twice the length of its reference for long texts and JSON; assumed.
The references of GSM8K and MATH are far shorter."""


class Judgement(NamedTuple):
    """Whether an answer is right, and why, in a few words for people."""

    right: bool
    why: str


class Undecided(NamedTuple):
    """Right if all `pairs` are equal expressions."""

    pairs: tuple[Pair, ...]


def compare(answer: str | None, reference: Reference) -> Judgement | Undecided:
    """Compare an answer with one reference."""
    if reference.fault:
        return Judgement(False, f"the reference is {reference.fault}")
    if answer is None or not answer.strip():
        return Judgement(False, "no answer")
    limit = MAX_ANSWER_CHARS + 2 * len(reference.raw)
    if len(answer) > limit:
        return Judgement(False, f"more than {limit} characters")
    if answer.strip() == reference.raw:
        return Judgement(True, "the same text")
    if reference.kind is Kind.NUMBER:
        return _number(answer, reference)
    is_group = reference.kind in (Kind.LIST, Kind.SET)
    text = clean(forms.one_line(answer) if is_group else answer)
    if unwrap(text) == reference.text:
        return Judgement(True, "the same text")
    if _is_empty_set(text) and _is_empty_set(reference.text):
        return Judgement(True, "the empty set")
    if reference.kind in _MEASURED and _is_same_measure(text, reference.text):
        return Judgement(True, "the same measure")
    match reference.kind:
        case Kind.CHOICE:
            return _choice(answer, reference)
        case Kind.BOOLEAN:
            return _boolean(answer, reference)
        case Kind.DATE:
            return _date(answer, reference)
        case Kind.LIST:
            return _first(_list(candidate, reference) for candidate in remainders(text))
        case Kind.SET:
            return _first(_set(candidate, reference) for candidate in remainders(text))
        case Kind.JSON:
            return _json(answer, reference)
        case Kind.EXPRESSION:
            return _first(_expression(candidate, reference.text) for candidate in remainders(text))
    return _text(text, reference)


_MEASURED = (Kind.EXPRESSION, Kind.TEXT, Kind.SET)
"""The kinds that bounds, ranges and the like are read as."""


def _is_same_measure(text: str, reference: str) -> bool:
    """Whether both are the same bound, range, compound measure, time or division."""
    expected = read_measure(reference)
    if expected is None or is_expression(reference) and not isinstance(expected, Bounds):
        return False  # 2 - 3g is a difference
    measures = (read_measure(candidate) for candidate in remainders(text))
    return any(measure and same_measure(measure, expected) for measure in measures)


def _is_empty_set(text: str) -> bool:
    bare = re.sub(r"[\s\\]", "", unwrap(text)).casefold()
    return bare in ("{}", "\u2205", "emptyset", "theemptyset")


def _first(verdicts: Iterator[Judgement | Undecided]) -> Judgement | Undecided:
    """The first verdict that may be right, else the last: that of the text without its phrase."""
    verdict: Judgement | Undecided = Judgement(False, "no answer")
    for verdict in verdicts:
        if isinstance(verdict, Undecided) or verdict.right:
            return verdict
    return verdict


def _number(answer: str, reference: Reference) -> Judgement:
    expected: Quantity = reference.value
    quantity = read_quantity(answer, unit=expected.unit)
    if isinstance(quantity, NoNumber):
        if unwrap(clean(answer)) == reference.text:
            return Judgement(True, "the same text")
        return Judgement(False, quantity.why)
    if not quantity.is_worked and expected.is_worked:
        return Judgement(False, "an expression, not worked out")
    if quantity.is_percent and expected.unit:
        return Judgement(False, f"{expected.unit} expected, a percentage given")
    if not _same_value(quantity, expected):
        return Judgement(False, f"{show(expected)} expected, {show(quantity)} given")
    if not same_unit(quantity.unit, expected.unit):
        return Judgement(False, f"{expected.unit} expected, {quantity.unit} given")
    return Judgement(True, "the same number")


def _same_value(left: Quantity, right: Quantity) -> bool:
    """18% equals 18 and 0.18; 5% is not 0.05%."""
    if left.value == right.value:
        return True
    if left.is_percent == right.is_percent:
        return False
    percent, plain = (left, right) if left.is_percent else (right, left)
    return percent.value == 100 * plain.value


def show(quantity: Quantity) -> str:
    """A number as people write it: 1,200, 0.5, 1/3, 50%."""
    value = quantity.value
    if value.denominator == 1:
        text = f"{value.numerator:,}"
    else:
        decimal = Fraction(round(value * 10**6), 10**6)
        text = f"{float(value):g}" if decimal == value else f"{value.numerator}/{value.denominator}"
    text = text if len(text) < 40 else text[:36] + " ..."
    return text + "%" * quantity.is_percent


def _choice(answer: str, reference: Reference) -> Judgement:
    expected: forms.Choice = reference.value
    choice = forms.read_choice(answer)
    letters = ", ".join(sorted(expected.letters))
    if choice is None:
        if expected.text and any(same_text(t, expected.text) for t in remainders(clean(answer))):
            return Judgement(True, f"the text of choice {letters}")
        return Judgement(False, f"not one choice; {letters} expected")
    chosen = ", ".join(sorted(choice.letters))
    if choice.letters != expected.letters:
        return Judgement(False, f"{letters} expected, {chosen} chosen")
    if choice.text and expected.text and not same_text(choice.text, expected.text):
        return Judgement(False, f"the letter {chosen}, but the text of another choice")
    return Judgement(True, "the same choice")


def _boolean(answer: str, reference: Reference) -> Judgement:
    value = forms.read_boolean(answer)
    if value is None:
        return Judgement(False, "neither yes nor no")
    if value is not reference.value:
        return Judgement(False, f"{reference.text} expected, the opposite given")
    return Judgement(True, "the same")


def _date(answer: str, reference: Reference) -> Judgement:
    expected: forms.Date = reference.value
    date = forms.read_date(answer, day_first=reference.day_first)
    if date is None:
        return Judgement(False, "not a date")
    turned = (expected.year, expected.day, expected.month)
    if date.is_ambiguous != expected.is_ambiguous and date[:3] in (expected[:3], turned):
        return Judgement(False, "day and month may be the other way round")
    if date[:3] != expected[:3]:
        return Judgement(False, "another date")
    return Judgement(True, "the same date")


def _json(answer: str, reference: Reference) -> Judgement:
    value = forms.read_json(answer)
    if value is None:
        return Judgement(False, "not JSON")
    is_same = forms.same_json(value, reference.value)
    return Judgement(is_same, "the same value" if is_same else "another value")


def _list(text: str, reference: Reference) -> Judgement | Undecided:
    is_simple = all(" " not in item.text for item in reference.items)
    text = _both_signs(forms.without_member(text), reference)
    if re.search(r"\sor\s", text):
        return Judgement(False, "alternatives, where a list in its order is expected")
    items = forms.read_items(text, spaces=is_simple)
    texts = items.texts if items else (text,)
    if len(reference.items) > 1 and all(len(item.text) == 1 for item in reference.items):
        texts = tuple(re.sub(r"\A\((\w)\)\Z", r"\1", item) for item in texts)
        texts = forms.letters_in_order(text) or texts  # AC and (A)(C) for A, C
    brackets = items.opening + items.closing if items else ""
    if len(texts) != len(reference.items):
        return Judgement(False, f"{len(reference.items)} items expected, {len(texts)} given")
    if brackets == "{}" or reference.brackets and brackets not in ("", reference.brackets):
        return Judgement(False, f"{reference.brackets or 'no brackets'} expected, {brackets} given")
    if brackets and len(set(brackets)) == 2 and not reference.brackets and brackets in ("(]", "[)"):
        return Judgement(False, "an interval, not a list")
    is_interval = reference.brackets in ("(]", "[)") or "\u2208" in reference.text
    if is_interval and not brackets:
        return Judgement(False, "the brackets of the interval are missing")
    return _all_items(texts, reference.items)


def _both_signs(text: str, reference: Reference) -> str:
    """\u00b13 as the two numbers of the reference 3, -3; any other text unchanged."""
    both = re.fullmatch(r"\u00b1\s?(\d[\d.,]{0,20})", text)
    texts = [item.text for item in reference.items]
    if both is None or reference.brackets or set(texts) != {both[1], f"-{both[1]}"}:
        return text
    return ", ".join(texts) if len(texts) == 2 else text


def _names(texts: Iterable[str]) -> list[str]:
    """The names in "x = 2, y = 3"; empty where not every item has one."""
    names = [re.match(r"\s*(\w)\s*=", text) for text in texts]
    return [name[1] for name in names if name] if all(names) else []


def _all_items(texts: tuple[str, ...], items: tuple[Reference, ...]) -> Judgement | Undecided:
    named, expected = _names(texts), _names(item.text for item in items)
    if len(set(named)) > 1 and named != (expected or sorted(named)):
        if sorted(named) != sorted(expected) or len(set(named)) < len(named):
            return Judgement(False, "other names, or in another order")
        texts = tuple(texts[named.index(name)] for name in expected)  # y = 3, x = 2
    pairs: list[Pair] = []
    for number, (text, item) in enumerate(zip(texts, items, strict=True), 1):
        verdict = compare_item(text, item)
        if isinstance(verdict, Undecided):
            pairs += verdict.pairs
        elif not verdict.right:
            return Judgement(False, f"item {number}: {verdict.why}")
    return Undecided(tuple(pairs)) if pairs else Judgement(True, "the same items in the same order")


def compare_item(text: str, item: Reference) -> Judgement | Undecided:
    """Compare one item of a list as an answer, but the zeros of a code such as 0101 count."""
    if text == item.text:
        return Judgement(True, "the same text")
    if item.kind is Kind.TEXT:
        return _text(text, item)
    return compare(text, item)


def _set(text: str, reference: Reference) -> Judgement | Undecided:
    is_simple = all(" " not in item.text for item in reference.items)
    if both := re.fullmatch(r"(?:\w\s?=\s?)?\u00b1\s?(.+)", text):
        text = f"{both[1]}, -{both[1]}"
    text = forms.without_member(text)
    items = forms.read_items(text, spaces=is_simple, joined="and|or")
    if items and items.opening + items.closing not in ("", "{}"):
        return Judgement(False, f"a set expected, {items.opening}{items.closing} given")
    answered = {_key(item): item for item in (items.texts if items else (text,))}
    expected = {_key(item.text): item.text for item in reference.items}
    if answered.keys() == expected.keys():
        return Judgement(True, "the same set")
    if reference.text.startswith(("{", "\\{")) and any(is_expression(t) for t in expected.values()):
        return _expression(text, reference.text)
    missing = [item for key, item in expected.items() if key not in answered]
    extra = [item for key, item in answered.items() if key not in expected]
    difference = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in it"
    return Judgement(False, f"another set: {difference}")


def _key(item: str) -> Hashable:
    """A key that equal items share: the value of a number, else one spelling of the text."""
    quantity = read_quantity(item)
    if isinstance(quantity, Quantity):
        return quantity.value, quantity.is_percent, quantity.is_worked
    return normal_form(item) if is_expression(item) else item.casefold()


_BUILDER = re.compile(r"\\?\{\s*(\w(?:\s*\u2208[^|:]{1,20})?)\s*(?:[|:\u2223]|\\mid\b)(.+?)\\?\}")


def _expression(text: str, reference: str) -> Judgement | Undecided:
    builder, expected = _BUILDER.fullmatch(text), _BUILDER.fullmatch(reference)
    if builder and expected:  # {x | x > 2} and {x : x > 2}
        if normal_form(builder[1]) != normal_form(expected[1]):
            return Judgement(False, "another set")
        text, reference = builder[2].strip(), expected[2].strip()
    same = compare_expressions(*right_side(text, reference))
    if same is True:
        return Judgement(True, "the same expression")
    if isinstance(same, Pair):
        return Undecided((same,))
    return Judgement(False, same or "another expression")


def _text(text: str, reference: Reference) -> Judgement:
    if any(same_text(candidate, reference.text) for candidate in remainders(text)):
        return Judgement(True, "the same text")
    return Judgement(False, "another text")

"""Detects the kind of each reference, such as number or choice, with the help of its whole column.

"5/1/2024" is a day in January where another row has "25/1/2024", "AC" is two choices where the
others are letters, "100 200" is a list where the others are lists. Where the column does not
decide, the most common reading is taken. `judge` compares the answers.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from r1recipes.rewards.answers import forms
from r1recipes.rewards.answers.expressions import is_expression
from r1recipes.rewards.answers.measures import Clock, Compound, Division, read_measure
from r1recipes.rewards.answers.numbers import Quantity, read_quantity
from r1recipes.rewards.answers.text import clean, unwrap
from r1recipes.rewards.answers.units import is_known_unit

MAX_REFERENCE_CHARS = 20_000
"""Characters of a reference, some pages of text; assumed. No answer matches a longer one."""

DOMINANT = 0.9
"""Share of a column from which on a kind decides its doubtful rows; assumed. In a mixed column each
row is read by itself."""
MIN_SELECTIONS = 3
"""Different references such as "A, C", all in alphabetical order, from which on they are read as
choices and not as sequences; assumed."""

MAX_LOOKED_AT, MAX_LOOKED_AT_CHARS = 20_000, 500_000
"""Different references of a column, and characters in them, that are read to know the column; those
of MATH have 100,000. Reading takes up to 5 us for a character (measured)."""

Value = str | bool | int | float | Decimal | None
"""A reference in a data set; where several answers are accepted, a list of these."""


class Kind(StrEnum):
    """The kind of a reference, which the answer must have too."""

    NUMBER = "number"
    CHOICE = "choice"
    BOOLEAN = "boolean"
    DATE = "date"
    LIST = "list"
    SET = "set"
    JSON = "json"
    EXPRESSION = "expression"
    TEXT = "text"


@dataclass(frozen=True)
class Reference:
    """One accepted answer, read as its kind. `fault` is why no answer can match it, or ""."""

    raw: str
    text: str
    """Cleaned by `text.clean`."""
    kind: Kind
    value: Any = None
    """A Quantity, Choice, bool, Date or JSON value; None for the other kinds."""
    items: tuple["Reference", ...] = ()
    """The items of a list or set."""
    brackets: str = ""
    """The two brackets around a list, or ""."""
    day_first: bool | None = None
    """Whether the column writes the day of a date first, where that is known."""
    fault: str = ""

    @property
    def label(self) -> str:
        """The kind for a summary, in the plural: whole numbers, choices ..."""
        if self.fault:
            return self.fault
        if self.kind is Kind.NUMBER:
            return _number_label(self.value)
        return _LABELS[self.kind]


_LABELS = {
    Kind.CHOICE: "choices",
    Kind.BOOLEAN: "yes or no",
    Kind.DATE: "dates",
    Kind.LIST: "ordered lists",
    Kind.SET: "sets",
    Kind.JSON: "JSON values",
    Kind.EXPRESSION: "expressions",
    Kind.TEXT: "texts",
}


def _number_label(quantity: Quantity) -> str:
    if quantity.is_percent:
        return "percentages"
    if quantity.value.denominator == 1:
        return "whole numbers"
    return "fractions" if quantity.form == "fraction" else "decimals"


def reference_text(value: Any) -> str | None:
    """A value of a data set as text: 72.0 as "72", Decimal("1E+3") as "1000", True as "true".

    None for null and NaN, which are not references. `value` is not a list.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # 72.0 in a column where another row has 0.5
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else None
    return str(value).strip()


def spread(lengths: Sequence[int], max_texts: int, max_chars: int) -> list[int]:
    """The indices of texts of these lengths that stand for a column: all, where they are within
    both limits, else as many as are, spread evenly over the column."""
    step = max(1, -(-len(lengths) // max_texts), -(-sum(lengths) // max_chars))
    chosen, num_chars = [], 0
    for index in range(0, len(lengths), step):
        num_chars += lengths[index]
        if num_chars > max_chars:  # the long ones are at these places
            break
        chosen.append(index)
    return chosen


class Detector:
    """Reads references with the help of their column: its usual kinds, and the order in its dates.

    `kind` is the kind that the user has set for all of them; a reference that cannot be read as
    that kind is read by itself. `are_selections`: "A, C" is two choices, not a list in its order.
    """

    def __init__(
        self,
        usual: Mapping[Kind, int] | None = None,
        *,
        day_first: bool | None = None,
        are_selections: bool = False,
        kind: Kind | None = None,
    ):
        self.usual = usual or {}
        self.day_first = day_first
        self.are_selections = are_selections
        self.kind = kind
        self._readings: dict[str, dict[Kind, Reference]] = {}

    @classmethod
    def of_column(cls, texts: Iterable[str], kind: Kind | None = None) -> "Detector":
        """The detector for a column with these references."""
        usual: Counter[Kind] = Counter()
        orders: set[bool] = set()
        selections: dict[bool, set[str]] = {True: set(), False: set()}
        alone, readings = cls(), dict[str, dict[Kind, Reference]]()
        for text, count in Counter(texts).items():
            if len(text) > MAX_REFERENCE_CHARS:
                continue
            readings[text] = alone.readings(text)
            usual[next(iter(readings[text]))] += count
            if slashed := _SLASHED_DAY.fullmatch(text.strip()):
                first, second = int(slashed[1]), int(slashed[3])
                orders |= {first > 12} if max(first, second) > 12 else set()
            if letters := _several_letters(text):
                selections[letters == sorted(set(letters))].add(text)
        made = cls(
            usual,
            day_first=orders.pop() if len(orders) == 1 else None,
            are_selections=len(selections[True]) >= MIN_SELECTIONS and not selections[False],
            kind=kind,
        )
        if made.day_first is None and not made.are_selections:  # it reads as one without a column
            made._readings = readings
        return made

    def read(self, raw: str | None) -> Reference:
        """A reference as its kind."""
        if not raw:
            return Reference("", "", Kind.TEXT, fault="missing")
        if len(raw) > MAX_REFERENCE_CHARS:
            fault = f"too long (over {MAX_REFERENCE_CHARS:,} characters)"
            return Reference(raw, "", Kind.TEXT, fault=fault)
        readings = self.readings(raw)
        if self.kind is not None:
            forced = self._forced(raw, self.kind)
            if forced is not None:
                return forced
        for kind, reading in readings.items():
            if self.usual.get(kind, 0) >= DOMINANT * sum(self.usual.values()) > 0:
                return reading
        return next(iter(readings.values()))

    def readings(self, raw: str) -> dict[Kind, Reference]:
        """The kinds that a reference may have, the more usual first; never empty."""
        if raw in self._readings:
            return self._readings[raw]
        if _PLAIN_NUMBER.fullmatch(raw):
            return {Kind.NUMBER: Reference(raw, raw, Kind.NUMBER, read_quantity(raw))}
        text = unwrap(clean(raw))
        as_text = Reference(raw, text, Kind.TEXT)
        made: dict[Kind, Reference] = {}
        for reading in (*_plain_readings(raw, text, self), *self._groups(raw, text)):
            made.setdefault(reading.kind, reading)
        if not made and is_expression(text):
            made[Kind.EXPRESSION] = Reference(raw, text, Kind.EXPRESSION)
        if not made:
            return {Kind.TEXT: as_text}
        is_selection = self.are_selections and Kind.CHOICE in made
        if not is_selection and _is_rather_text(text, made):
            return {Kind.TEXT: as_text} | made
        return made | {Kind.TEXT: as_text} if _may_be_text(text) else made

    def _groups(self, raw: str, text: str) -> list[Reference]:
        """The reading as a set or an ordered list; empty if it is neither."""
        if isinstance(read_measure(text), Clock | Compound | Division):
            return []  # 10 AM, and 5 hours, 30 minutes
        if re.match(r"\u00b1\s?[\d.$]", text):
            sides = (text[1:].strip(), "-" + text[1:].strip())
            return [Reference(raw, text, Kind.SET, items=self._items(sides))]
        inner = forms.without_member(text)
        joined = forms.read_items(inner, spaces=False, joined="and|or|&")
        if joined and joined.opening == "{" and joined.closing == "}":
            return [Reference(raw, text, Kind.SET, items=self._items(joined.texts))]
        items = forms.read_items(inner, spaces=bool(_TOKENS.fullmatch(inner)), joined="(?!)")
        if joined and len(joined.texts) > 1 and all(map(_is_number, joined.texts)):
            if items is None or len(items.texts) < len(joined.texts):
                kind = Kind.LIST if "," in text else Kind.SET  # x = 1 or x = 2
                return [Reference(raw, text, kind, items=self._items(joined.texts))]
        if items is None or not items.opening and not all(map(_is_item, items.texts)):
            return []
        if len(items.texts) < 2 and items.opening != "[":
            return []
        brackets = items.opening + items.closing
        read = self._items(items.texts)
        return [Reference(raw, text, Kind.LIST, items=read, brackets=brackets)]

    def _items(self, texts: Iterable[str]) -> tuple[Reference, ...]:
        alone = Detector(day_first=self.day_first)
        return tuple(alone._item(text) for text in texts)

    def _item(self, text: str) -> Reference:
        """Items are numbers, expressions or texts; a list in a list is compared as a text."""
        readings = self.readings(text)
        first = next(iter(readings.values()))
        if first.kind in (Kind.NUMBER, Kind.EXPRESSION, Kind.DATE):
            return first
        return Reference(text, text, Kind.TEXT)

    def _forced(self, raw: str, kind: Kind) -> Reference | None:
        """The reading as the kind that the user asks for, or None."""
        text = unwrap(clean(raw))
        readings = self.readings(raw)
        if kind in readings:
            return readings[kind]
        if kind in (Kind.LIST, Kind.SET):
            joined = "and|&" if kind is Kind.LIST else "and|or|&"
            items = forms.read_items(text, spaces=True, joined=joined)
            texts = items.texts if items else (text,)
            brackets = items.opening + items.closing if items and kind is Kind.LIST else ""
            return Reference(raw, text, kind, items=self._items(texts), brackets=brackets)
        if kind is Kind.EXPRESSION:
            return readings.get(Kind.NUMBER) or Reference(raw, text, kind)
        if kind is Kind.TEXT:
            return Reference(raw, text, kind)
        if kind is Kind.CHOICE and (choice := forms.read_choice(raw)):
            return Reference(raw, text, kind, choice)
        if kind is Kind.JSON and (value := forms.read_json(raw)) is not None:
            return Reference(raw, text, kind, value)
        return None


_TOKENS = re.compile(
    r"(?:(?:-?\d[\d.,/]*|[A-Za-z]|[A-Z]{1,2}['2]?|[a-h][1-8])\s+)+"
    r"(?:-?\d[\d.,/]*|[A-Za-z]|[A-Z]{1,2}['2]?|[a-h][1-8])"
)
_LONE_LETTER = re.compile(r"\(?[A-J]\)?[.)]?")
_SEVERAL_LETTERS = re.compile(r"\(?[A-J]\)?(?:\s?[,;&]\s?\(?[A-J]\)?)+|[A-J]{2,10}")
_AND_LETTERS = re.compile(r"\(?[A-J]\)?(?:,\s?\(?[A-J]\)?)*,?\s?(?:and|&)\s?\(?[A-J]\)?")
_SLASHED_DAY = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2\d{4}")
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?", re.ASCII)
_BRACKETED_LETTER = re.compile(r"(?:\([A-J]\)|[A-J]\))\s*\S.*", re.DOTALL)
_POINTED_LETTER = re.compile(r"[A-J]\s?[.:]\s+\S.*", re.DOTALL)


def _plain_readings(raw: str, text: str, detector: Detector) -> list[Reference]:
    """The readings as everything but lists, sets and expressions."""
    made: list[Reference] = []
    value = forms.read_json(raw)
    if isinstance(value, dict) or isinstance(value, list) and _is_nested(value):
        return [Reference(raw, text, Kind.JSON, value)]
    if text.casefold() in ("yes", "no", "true", "false"):
        made.append(Reference(raw, text, Kind.BOOLEAN, forms.read_boolean(text)))
    is_choice = _LONE_LETTER.fullmatch(text) or _BRACKETED_LETTER.fullmatch(text)
    is_choice = is_choice or _POINTED_LETTER.fullmatch(text) or re.fullmatch("[A-J]{2,5}", text)
    is_choice = is_choice or _AND_LETTERS.fullmatch(text)
    if is_choice or detector.are_selections and _several_letters(text):
        if choice := forms.read_choice(text):
            made.append(Reference(raw, text, Kind.CHOICE, choice))
    if date := forms.read_date(text, day_first=detector.day_first):
        made.append(Reference(raw, text, Kind.DATE, date, day_first=detector.day_first))
    quantity = read_quantity(raw)
    if isinstance(quantity, Quantity):
        made.append(Reference(raw, text, Kind.NUMBER, quantity))
    return made


def _is_nested(values: list[Any]) -> bool:
    return any(isinstance(value, dict | list) for value in values)


def _several_letters(text: str) -> list[str]:
    """The letters of "A, C", "(B); (D)" or "AC"; empty for anything else."""
    return re.findall("[A-J]", text) if _SEVERAL_LETTERS.fullmatch(text.strip()) else []


def _is_number(text: str) -> bool:
    return isinstance(read_quantity(text), Quantity)


def _is_item(text: str) -> bool:
    """Whether a text between commas may be an item; a clause of a sentence may not."""
    return " " not in text or _is_number(text) or is_expression(text)


def _is_rather_text(text: str, made: Mapping[Kind, Reference]) -> bool:
    """Whether it is a code (0101), a title (101 Dalmatians), a word (AC) or a name (E. coli)."""
    first = next(iter(made))
    if first is Kind.CHOICE:
        return any(p.fullmatch(text) for p in (_POINTED_LETTER, re.compile("[A-J]{2,5}")))
    if first is not Kind.NUMBER:
        return False
    if re.fullmatch(r"0\d+", text):
        return True
    unit = made[first].value.unit
    return bool(re.search("[A-Z]", text) and unit and not is_known_unit(unit))


def _may_be_text(text: str) -> bool:
    """A, five and x are texts where the column has texts."""
    return re.fullmatch(r"[A-Za-z]|[A-Za-z -]+", text) is not None

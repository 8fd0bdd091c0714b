"""Reads numbers in English words, and the words and letters behind a number that multiply it.

Limits: the largest word is a trillion; of other languages only a few magnitudes are known.
"""

import re
from fractions import Fraction

_MAGNITUDE = re.compile(
    r"\s*(hundred|thousand|million|billion|trillion|mn|bn|lakh|crore|dozen)\b"
    r"|\s*([\u767e\u5343\u4e07\u842c\u4ebf\u5104])",
    re.IGNORECASE,
)
_LETTER_MAGNITUDE = re.compile(r"([kKMB])(?![\w^])")
_MAGNITUDES = {
    "hundred": 100, "thousand": 10**3, "k": 10**3, "million": 10**6, "mn": 10**6, "m": 10**6,
    "billion": 10**9, "bn": 10**9, "b": 10**9, "trillion": 10**12, "lakh": 10**5,
    "crore": 10**7, "dozen": 12, "\u767e": 100, "\u5343": 1000, "\u4e07": 10**4,
    "\u842c": 10**4, "\u4ebf": 10**8, "\u5104": 10**8,
}  # fmt: skip
_AND_PART = re.compile(r"\s+and\s+(?:a|one)\s+(half|quarter|third)\b", re.IGNORECASE)
_PART_VALUES = {"half": Fraction(1, 2), "quarter": Fraction(1, 4), "third": Fraction(1, 3)}


def read_magnitude(rest: str, *, after_digit: bool) -> tuple[int, Fraction, str]:
    """The factor and the addend that the words behind a number mean, and the rest of the text.

    Examples are 5 million, 5k, two hundred thousand, 2 and a half. A letter is a magnitude only
    directly after a digit; 5M is five million, 5m may also be metres and is refused.
    """
    factor, addend = 1, Fraction(0)
    letter = _LETTER_MAGNITUDE.match(rest) if after_digit else None
    if letter:
        factor, rest = _MAGNITUDES[letter[1].casefold()], rest[1:]
    for _ in range(2):
        if magnitude := _MAGNITUDE.match(rest):
            factor *= _MAGNITUDES[(magnitude[1] or magnitude[2]).casefold()]
            rest = rest[magnitude.end() :]
    if part := _AND_PART.match(rest):
        addend, rest = _PART_VALUES[part[1].casefold()], rest[part.end() :]
    return factor, addend, rest


_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen""".split()
_TENS = dict(
    zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10),
        strict=True)
)  # fmt: skip
SMALL_NUMBERS = {word: number for number, word in enumerate(_ONES)} | _TENS
"""The words from zero to nineteen and the tens."""
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4,
    "fourths": 4, "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7,
    "eighth": 8, "eighths": 8, "ninth": 9, "ninths": 9, "tenth": 10, "tenths": 10,
}  # fmt: skip
_SPELLED = re.compile(r"[A-Za-z]+")


def read_words(text: str) -> tuple[Fraction, str] | None:
    """The number that a text begins with in words, and the rest: "forty-two apples" is 42."""
    total, part, last, end, previous = 0, 0, "", 0, 0
    for match in _SPELLED.finditer(text[:200]):
        word, gap = match[0].casefold(), text[previous : match.start()]
        previous = match.end()
        if gap.strip(" -") or not last and match.start() > 0:
            break
        if word == "and" and last in ("hundred", *_LARGE) or word in ("a", "an") and not last:
            last = word if not last else last  # a number must follow: "one hundred and five"
            continue
        if word in SMALL_NUMBERS and _may_follow(SMALL_NUMBERS[word], part, last):
            part += SMALL_NUMBERS[word]
        elif word in _PARTS and _may_count(part, total, word, last):
            return Fraction(part or 1, _PARTS[word]), text[match.end() :]
        elif word == "hundred" and (part or last == "a") and part < 10:
            part = (part or 1) * 100
        elif word == "dozen" and (part or last == "a") and not total:
            part = (part or 1) * 12
        elif word in _LARGE and (part or last == "a") and total % (_LARGE[word] * 1000) == 0:
            total, part = total + (part or 1) * _LARGE[word], 0
        else:
            break
        last, end = word, match.end()
    return (Fraction(total + part), text[end:]) if end else None


def _may_count(part: int, total: int, word: str, last: str) -> bool:
    """Whether a word is a part: half, a third, two thirds; "third", "twenty third" are ordinals."""
    if total or last not in ("", "a", *SMALL_NUMBERS):
        return False
    is_plural = word.endswith("s") or word == "halves"
    return part > 1 if is_plural else part == 1 or last == "a" or word == "half" and not last


def _may_follow(number: int, part: int, last: str) -> bool:
    """Whether a number may follow: forty-two, one hundred five, but not two forty or five six."""
    if last in ("", "hundred", *_LARGE):
        return True
    return last in _TENS and 0 < number < 10 and part % 10 == 0

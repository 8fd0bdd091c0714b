r"""Reads answers that are neither numbers nor expressions: choices, yes or no, dates, lists, JSON.

Each reader returns the value of a text, or None if the text is something else. A date that can be
read in two ways is marked as ambiguous. Time is linear in the length of the text. Limits: JSON with
more than `MAX_DEPTH` levels is not read.
"""

import ast
import datetime
import json
import re
import warnings
from typing import Any, NamedTuple

from r1recipes.rewards.answers.text import clean, doubts, remainders, tidy, unwrap, words

MAX_DEPTH = 50
"""Levels of brackets in JSON; assumed. More of them would exhaust the parser's recursion."""
MAX_ITEMS = 1000
"""Items of a list or set; assumed."""


class Choice(NamedTuple):
    """The letters that are chosen, from A to J, and the text of a single choice: "B) Paris".

    Ten letters are assumed to be enough: MMLU has four choices, MMLU-Pro ten.
    """

    letters: frozenset[str]
    text: str = ""


_LABEL = r"(?:option|choice|answer|letter|alternative|statement)\s*:?\s*"
_ONE_LETTER = re.compile(rf"(?:{_LABEL})?[(\[{{]?\s*([A-J])\s*[)\]}}]?\s*[.:,)]*", re.IGNORECASE)
_WITH_TEXT = re.compile(
    rf"(?:{_LABEL})?(?:[(\[]\s*([A-J])\s*[)\]]\s*[.:,-]?\s*|([A-J])\s*[).:\]]+\s*|([A-J])\s+-\s+"
    r"|([A-J])\s*(?=\())(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_TEXT_FIRST = re.compile(r"([^()]{1,200}?)\s*\(([A-J])\)")
_IS_RIGHT = re.compile(
    rf"(?:{_LABEL})?\(?([A-J])\)?\s+is\s+(?:correct|right|true|the\s+(?:correct|right|best)\s+"
    r"(?:answer|option|choice|one))",
    re.IGNORECASE,
)
_CHOOSE = re.compile(
    r"(?:i\s+)?(?:would\s+)?(?:choose|pick|select|chose|picked|selected|go with|went with)\s+",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\s*(?:,\s*and|,|;|/|&|\band\b|\s)\s*", re.IGNORECASE)


def read_choice(text: str) -> Choice | None:
    """The choice that a text makes: B, "(B)", "Option B", "B) Paris", "A, C". None for "B or C"."""
    for candidate in remainders(clean(text)):
        candidate = _CHOOSE.sub("", candidate.rstrip("! "), count=1)
        if one := _ONE_LETTER.fullmatch(candidate) or _IS_RIGHT.fullmatch(candidate):
            return Choice(frozenset(one[1].upper()))
        if several := _read_letters(candidate):
            return several
        if match := _WITH_TEXT.fullmatch(candidate):
            letter = next(group for group in match.groups()[:4] if group)
            described = unwrap(match[5], brackets=True)
            is_joined = len(described) == 1 and not match[0][: match.start(5)].endswith(" ")
            if is_joined or not words(described) and "?" in described:
                return None  # B:C and "B)?"
            if _names_another(described, letter):
                return None
            return Choice(frozenset(letter.upper()), described)
        match = _TEXT_FIRST.fullmatch(candidate)
        if match and not doubts(match[1]) and not re.search(r"\b[A-J]\b(?! \w)|[?;]", match[1]):
            return Choice(frozenset(match[2].upper()), match[1])
    return None


def _read_letters(text: str) -> Choice | None:
    """A, C and AC and (A), (C): distinct letters and nothing else."""
    bare = re.sub(r"[()\[\]{}]", "", text).strip()
    if re.fullmatch(r"[A-J]{2,10}", bare):
        letters = list(bare)
    else:
        letters = [part.upper() for part in _SEVERAL.split(bare)]
        if len(letters) < 2 or not all(re.fullmatch("[A-J]", letter) for letter in letters):
            return None
    return Choice(frozenset(letters)) if len(set(letters)) == len(letters) else None


_DOUBTS = frozenset(
    "maybe perhaps probably possibly wrong incorrect not sure or but think guess i".split()
)
_TAKEN_BACK = re.compile(
    r"(?i:is|isn't|or|but|maybe|perhaps|probably|wrong|incorrect)\b|(?:and|not|/|,)\s*\(?[A-J]\b(?!['\w])"
)
_ANOTHER = re.compile(
    r"\b(?:or|but|not|no|then|maybe|actually|wait|rather)\b[^.]{0,20}?\b[B-J]\b(?!['\w])"
    r"|\b(?:no|not|or|but)\b[ ,:]*\(?A\b\W*$"
)


def _names_another(described: str, letter: str) -> bool:
    """Whether a text takes its choice back or adds another: B) or C), B) maybe, (B) or (C)."""
    spelled = words(described)
    if _TAKEN_BACK.match(described) or _ANOTHER.search(described):
        return True
    if spelled and _DOUBTS.issuperset(spelled) and not re.search(r"\d", described):
        return True
    more = re.findall(r"\(?\b([A-J])\s*\)", described)
    return any(other != letter.upper() for other in more)


_YES = {"yes": True, "true": True, "correct": True, "no": False, "false": False, "y": True,
        "n": False, "t": True, "f": False, "incorrect": False, "\u662f": True, "\u5426": False,
        "\u5bf9": True, "\u9519": False, "si": True, "s\u00ed": True, "oui": True, "non": False,
        "ja": True, "nein": False}  # fmt: skip


def read_boolean(text: str) -> bool | None:
    """Yes or no, true or false; "No, it is not." is no, and "yes and no" is neither."""
    for candidate in remainders(clean(text)):
        spelled = words(candidate)
        if not spelled or spelled[0] not in _YES:
            continue
        answer = _YES[spelled[0]]
        if len(spelled) == 1 and re.fullmatch(r"[\s\"'(]*\w+[\s\"').,!]*", candidate):
            return answer
        if "?" in candidate:
            return None
        rest = spelled[1:]
        others = {"or", "and", "but", "maybe", "perhaps", "however", "unless", "if", "yes", "true"}
        if re.match(r"\w+\s*[,.;:-]", candidate) and len(spelled[0]) > 1 and len(rest) < 30:
            denies = {"not", "no", "never", "false", "isn't", "doesn't", "incorrect", "wrong"}
            if not others.intersection(rest) and (not answer or not denies.intersection(rest)):
                return answer
        return None
    return None


class Date(NamedTuple):
    """A day; `year` is 0 where the text has none, and `day` is 0 for a month.

    `is_ambiguous`: day and month may be the other way round, as in 5/1/2024.
    """

    year: int
    month: int
    day: int
    is_ambiguous: bool = False


_MONTHS = "january february march april may june july august september october november december"
_MONTH = "|".join(f"{name}|{name[:3]}" for name in _MONTHS.split()) + "|sept"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?(?:the\s+)?"
_ORDINAL = r"(?:st|nd|rd|th)?"
_DATES = [
    re.compile(r"(?P<y>\d{4})(?P<sep>[-/.])(?P<m>\d{1,2})(?P=sep)(?P<d>\d{1,2})"),
    re.compile(r"(?P<y>\d{4})\s*\u5e74\s*(?P<m>\d{1,2})\s*\u6708\s*(?P<d>\d{1,2})\s*\u65e5"),
    re.compile(r"(?P<d>\d{1,2})\.\s?(?P<m>\d{1,2})\.\s?(?P<y>\d{4})"),
    re.compile(
        rf"{_WEEKDAY}(?P<d>\d{{1,2}})\s?{_ORDINAL}[\s-]+(?:of\s+)?(?P<name>{_MONTH})\b\.?"
        r"(?:,?[\s-]+(?P<y>\d{4}))?"
    ),
    re.compile(
        rf"{_WEEKDAY}(?P<name>{_MONTH})\b\.?\s+(?:the\s+)?(?P<d>\d{{1,2}})\s?{_ORDINAL}"
        r"(?:,?\s+(?P<y>\d{4}))?"
    ),
    re.compile(rf"(?P<y>\d{{4}})[\s-]+(?P<name>{_MONTH})\b\.?[\s-]+(?P<d>\d{{1,2}})"),
    re.compile(rf"(?P<name>{_MONTH})\b\.?,?\s+(?P<y>\d{{4}})"),
]
_SLASHED = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4})")


def read_date(text: str, *, day_first: bool | None = None) -> Date | None:
    """The date that a text is. Without `day_first` a date such as 5/1/2024 is ambiguous."""
    for candidate in remainders(clean(text)):
        lowered = candidate.casefold().replace("\u2013", "-")
        if slashed := _SLASHED.fullmatch(lowered):
            first, second, year = int(slashed[1]), int(slashed[3]), int(slashed[4])
            is_ambiguous = day_first is None and max(first, second) <= 12 and first != second
            if day_first or first > 12:
                first, second = second, first
            return _valid(Date(year, first, second, is_ambiguous))
        for pattern in _DATES:
            if match := pattern.fullmatch(lowered):
                parts = {"y": "0", "d": "0", "m": "0"} | match.groupdict()
                if name := match.groupdict().get("name"):
                    parts["m"] = str([m[:3] for m in _MONTHS.split()].index(name[:3]) + 1)
                year, month, day = (int(parts[key] or 0) for key in "ymd")
                return _valid(Date(year, month, day))
    return None


def _valid(date: Date) -> Date | None:
    try:
        datetime.date(date.year or 2000, date.month, date.day or 1)  # 2000 has a 29 February
    except ValueError:
        return None
    return date


_MEMBER = re.compile(r"\w\s*\u2208\s*(?=\S)")


def without_member(text: str) -> str:
    """The set or interval of "x \\in {1, 2}" in a clean text."""
    match = _MEMBER.match(text)
    return text[match.end() :] if match else text


class Items(NamedTuple):
    """The items of a list or set, as texts, and its brackets ("" for none)."""

    texts: tuple[str, ...]
    opening: str = ""
    closing: str = ""


_CLOSING = {"(": ")", "[": "]", "{": "}"}
_BRACKETS = re.compile(r"(\\?\{|\(|\[)(.*?)(\\?\}|\)|\])", re.DOTALL)


def read_items(text: str, *, spaces: bool, joined: str = "and|&") -> Items | None:
    """A clean text, split at its commas, semicolons or arrows, else (`spaces`) at its spaces.

    `joined` has the words that separate items as a comma does, such as "and|or". Brackets around
    the whole text are removed and returned; they need not match, as in (0, 1]. None for a single
    item without brackets.
    """
    opening = closing = ""
    match = _BRACKETS.fullmatch(text)
    if match and _is_one_group(text.replace("\\", "")):
        opening, text, closing = match[1][-1], match[2].strip(), match[3][-1]
        if not text:
            return Items((), opening, closing)
    texts = _split(re.sub(rf",?\s(?:{joined})\s", ", ", text))
    if len(texts) == 1 and spaces:
        texts = text.split()
    if len(texts) == 1 and not opening or len(texts) > MAX_ITEMS or not all(texts):
        return None
    return Items(tuple(unwrap(item) for item in texts), opening, closing)


_BULLET = re.compile(r"(?:[-*\u2022]\s+(?![\d.$])|(\d{1,3})[.)]\s+)(\S.*)")


def one_line(text: str) -> str:
    """A Markdown list with one item a line as items between commas; any other text unchanged.

    "- 3" may be a negative number, so such a line is no item. The numbers of items must count.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    bullets = [_BULLET.fullmatch(line) for line in lines]
    items = [bullet[2] for bullet in bullets if bullet and not re.search("[,;]", bullet[2])]
    numbers = [bullet[1] for bullet in bullets if bullet and bullet[1]]
    if len(items) < max(2, len(lines)) or len(lines) > MAX_ITEMS:
        return text
    if numbers and numbers != [str(number) for number in range(1, len(lines) + 1)]:
        return text
    return ", ".join(items)


_LETTERS = re.compile(r"(?i:\(?[A-J]\)[\s,;&]*(?:and\s+)?){2,10}")


def letters_in_order(text: str) -> tuple[str, ...]:
    """The letters of AC, (A)(C) or "a) and c)", in capitals and in their order; else empty."""
    if text.isalpha() and text.isupper():
        return tuple(text)
    if ")" not in text or not _LETTERS.fullmatch(text):
        return ()
    return tuple(re.findall("[A-J]", text.replace("and", "").upper()))


def _is_one_group(text: str) -> bool:
    """Whether the first bracket closes at the end; in "(1, 2) and (3, 4)" it does not."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def _split(text: str) -> list[str]:
    """Split outside brackets; in "1,234, 5,678" the commas without a space belong to numbers."""
    inner = {match.start() for match in _THOUSANDS.finditer(text)} if ", " in text else set()
    pieces, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character in ",;\u2192" and depth == 0 and index not in inner:
            pieces.append(text[start:index].strip())
            start = index + 1
    pieces.append(text[start:].strip())
    return pieces


def read_json(text: str) -> Any:
    """The object or array that a text is, also as Python writes it; None for anything else."""
    text = tidy(text).rstrip(".")
    if text[:1] not in ("{", "[") or _depth(text) > MAX_DEPTH:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # about text such as 1or 2
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return (
        type(left) is type(right)
        and left == right
        or (isinstance(left, int | float) and isinstance(right, int | float) and left == right)
    )

"""TOML text to plain data; a text that is not TOML is reported with its place and a way out.

tomli parses and stops at the first mistake, so a text that is not TOML gives one problem. The place
that it reports is behind a value or behind the text; here it is that of the mistake itself.
"""

import re
from pathlib import Path
from typing import Any

import tomli

from r1recipes.config.render import dotted, show
from r1recipes.errors import Problem, RecipeError, shorten

MAX_DEPTH = 16
"""Levels of sections and lists. A file needs 3; Python's recursion limit is far above. Assumed."""
CURLY = ("\u201c", "\u201d", "\u2018", "\u2019")
STRAIGHT = 'use straight quotes: `"`'
_LONG_NUMBER = re.compile(r"(?<![0-9_])(?:[0-9]_?){4300}")


def parse(text: str, path: Path | str, example: str = "") -> dict[str, Any]:
    """TOML text to plain data. `example` says where a valid file of this kind can be seen.

    Raises: RecipeError at the line and column of the mistake.
    """
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise _not_toml(error, text, path, example) from error
    except RecursionError as error:
        raise _too_deep(text, path) from error
    except ValueError as error:  # Python refuses to read integers of more than 4300 digits
        number = _LONG_NUMBER.search(text)
        where = f"{path}:{_line_column(text, number.start() if number else 0)}"
        message = "not valid TOML: a number has too many digits"
        raise RecipeError.at(where, message, "write fewer") from error
    if _depth(data) > MAX_DEPTH:
        raise _too_deep(text, path)
    return data


def _depth(data: Any) -> int:
    """Levels of nested data, counted up to one more than MAX_DEPTH."""
    depth, level = 0, [data]
    while level and depth <= MAX_DEPTH:
        depth += 1
        tables = [item for item in level if isinstance(item, dict | list)]
        level = [x for item in tables for x in (item.values() if isinstance(item, dict) else item)]
    return depth


def _too_deep(text: str, path: Path | str) -> RecipeError:
    """The error for nested data, at the line with the most brackets and dots."""
    line = max(text.split("\n"), key=lambda line: len(re.findall(r"[\[{.]", line)))
    at = text.index(line)
    where = f"{path}:{_line_column(text, at)}"
    hint = "write keys in sections, and lists of plain values"
    return RecipeError.at(where, "nested too deeply", hint)


def _not_toml(
    error: tomli.TOMLDecodeError, text: str, path: Path | str, example: str
) -> RecipeError:
    """The error of tomli with a better place, the text there, and a hint."""
    if "Cannot" in error.msg or "Duplicate" in error.msg:
        if problem := _given_twice(text, path):
            return RecipeError(problems=[problem])
    at = min(error.pos, len(text))
    if "Unterminated" in error.msg:
        at = max(text.rfind('"""'), text.rfind("'''"), 0)
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[start : end if end >= 0 else len(text)]
    rest = line[at - start :]
    message = error.msg[0].lower() + error.msg[1:]
    if message == "invalid value" and rest.strip():
        message += f" {show(rest.split('#')[0].strip())}"
    hint = _hint(error.msg, line.strip(), rest)
    if hint is None:
        hint = "; ".join(filter(None, ("write `key = value`", example)))
    return RecipeError.at(f"{path}:{_line_column(text, at)}", f"not valid TOML: {message}", hint)


def _given_twice(text: str, path: Path | str) -> Problem | None:
    """The problem of the first key or section that is given a second time."""
    from r1recipes.config.places import Positions

    for loc, first, second in Positions(text).repeated:
        name = shorten(dotted(loc))
        name = f"section [{name}]" if second.key == second.value else f"`{name}`"
        line, column = second.key
        message = f"{name} is given twice, first on line {first.key[0]}"
        return Problem(message, f"{path}:{line}:{column}", "keep one")
    return None


def _hint(message: str, line: str, rest: str) -> str | None:
    """A change that works, from tomli's message, the line, and its rest from the mistake on."""
    word = rest.split("#")[0].strip()
    if line.startswith(("//", "--", ";", "/*", "%")):
        return "a comment begins with `#`"
    if message == "Invalid value":
        return _value_hint(word)
    if message.startswith(("Expected '='", "Invalid statement")):
        return _key_hint(line, rest)
    if message.startswith("Expected ']'"):
        return "write `[section]` or `[section.name]`, without a space in the name"
    if message.startswith("Expected newline"):
        return "put a text in quotes, a comment behind `#`, and the next key on the next line"
    for part, hint in _HINTS:
        if part in message:
            return hint
    return None


_HINTS = (
    ("Unescaped '\\'", "write `\\\\`, or put the text in single quotes"),
    ("Unterminated string", "close the text with the three quotes that it begins with"),
    ("Expected '", "close the text with the quote that it begins with"),
    ('Expected "', "close the text with the quote that it begins with"),
    ("Illegal character '\\n'", "close the text with the quote that it begins with"),
    ("Illegal character", "remove the control character; a text of several lines needs `" + '"""`'),
    ("Unclosed array", "close the list with `]`"),
    ("Unclosed inline table", "close it with `}`"),
    ("Cannot", "keep one of the two"),
    ("Duplicate", "keep one of the two"),
)


def _key_hint(line: str, rest: str) -> str | None:
    """How to write a line whose key is no key: in quotes, such as the name of a reward of one's
    own, or with `=` in place of the `:` of YAML."""
    before = re.split(r"[{,]", line.removesuffix(rest.rstrip()))[-1]
    after, equals, value = rest.partition("=")
    name = (before + after).strip()
    if name[:1] in CURLY:
        return STRAIGHT
    if equals and name and not re.search(r"[\"'#\[\]{}]", name):
        value = re.split(r"[#,}]", value)[0].strip()
        if re.fullmatch(r"[a-z_]+( +[a-z_]+){1,3}", name):
            return f"write `{re.sub(' +', '_', name)} = {value}`: a key has no spaces"
        quote = "'" if "\\" in name else '"'
        return f"put the name in quotes: `{quote}{name}{quote} = {value}`"
    key, comment = r"([A-Za-z0-9_.-]+)", r"\s*(?:#.*)?"
    if pair := re.fullmatch(rf"{key}\s*:\s*([^#{{\[\s][^#]*?){comment}", line):
        return f"write `{pair[1]} = {_as_value(pair[2])}`, with `=` in place of `:`"
    if pair := re.fullmatch(rf"{key}\s+(\S+){comment}", line):
        return f"write `{pair[1]} = {_as_value(pair[2])}`"
    return None


def _as_value(text: str) -> str:
    """A text as the value of a key: as it is where TOML reads it, or else in quotes."""
    text = text.lower() if text in ("True", "False") else text
    try:
        tomli.loads(f"value = {text}")
    except ValueError:
        return show(text)
    return text


def _value_hint(word: str) -> str:
    if word.lower() in ("true", "false"):
        return f"write `{word.lower()}`"
    if word.lower() in ("none", "null", "nil", "default"):
        return "remove this line: a key that is left out has its default"
    if re.fullmatch(r"[+-]?\.\d.*", word):
        return f"write `{word.replace('.', '0.', 1)}`"
    if word[:1] in CURLY:
        return STRAIGHT
    if not word:
        return "write a value behind the `=`, or remove the line"
    return f'write a text in quotes: `"{word[:60]}"`'


def _line_column(text: str, at: int) -> str:
    """`line:column`, both from 1; behind the last line break, the end of the last line."""
    end = len(text.rstrip("\n"))
    while at > 0 and at >= end and text[at - 1 : at] == "\n":
        at -= 1
    line = text.count("\n", 0, at) + 1
    return f"{line}:{at - (text.rfind(chr(10), 0, at) + 1) + 1}"

"""Turn the errors of pydantic into messages with a place, what was expected, and a way out.

The time is linear in the errors: of a kind that a file can have without limit, such as unknown
keys, the first ones of the file get a message and the others are counted.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from r1recipes.config.render import Loc, dotted, header, show
from r1recipes.config.section import NamedSections, Section
from r1recipes.config.suggest import (
    example,
    is_section,
    models_in,
    nearest,
    nearest_key,
    nearest_literal,
    nearest_name,
    section_at,
    type_hint,
)
from r1recipes.errors import Problem, shorten

MAX_UNKNOWN = 10
"""Unknown keys, sections or names that get a message each: for each the nearest name is sought."""
MAX_ALIKE = 100
"""Problems of another kind that get a message each."""
MAX_MISSPELT = 100
"""With more unknown keys in one section none is taken for a misspelt one that is missing."""
Error = dict[str, Any]
Words = tuple[str, str | None]
"""Message and hint."""
Where = Callable[[Loc, bool], str | None]
"""Path of a key -> `file:line:column` of the key or, where the second argument is False, of its
value."""


@dataclass(frozen=True)
class _Mistake:
    """An error that is not worded yet."""

    loc: Loc
    at_key: bool
    """Whether it is about the key and not about the value."""
    kind: str
    """Mistakes of one kind are counted together."""
    limit: int
    words: Callable[[], Words]


def explain(error: ValidationError, model: type[Section], where: Where) -> list[Problem]:
    """One Problem for each error of a validation of `model`, in the order of the file."""
    errors = [dict(detail) for detail in error.errors(include_url=False)]
    mistakes = [m for e in _without_echoes(errors, model) for m in _mistakes(e, model)]
    placed = [(where(mistake.loc, mistake.at_key), mistake) for mistake in mistakes]
    return _in_order(_worded(sorted(placed, key=lambda pair: _line_column(pair[0]))))


def _worded(placed: Iterable[tuple[str | None, _Mistake]]) -> Iterator[Problem]:
    """The first mistakes of each kind as problems, and one that counts the rest of a kind."""
    shown: dict[str, set[Any]] = {}
    rest: dict[str, dict[Any, str | None]] = {}
    for where, mistake in placed:
        # One flag may set a key in several sections; that is one mistake.
        place = (where, mistake.loc[-1:])
        places = shown.setdefault(mistake.kind, set())
        if place not in places and len(places) >= mistake.limit:
            rest.setdefault(mistake.kind, {})[place] = where
            continue
        places.add(place)
        message, hint = mistake.words()
        yield Problem(message, where, hint)
    for kind, others in rest.items():
        noun = kind if kind.startswith("unknown") else "problems like this"
        hint = "correct the others first; the next check shows more"
        yield Problem(f"and {len(others):,} more {noun}", next(iter(others.values())), hint)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, in the order of the file."""
    return sorted(dict.fromkeys(problems), key=lambda problem: _line_column(problem.where))


def _line_column(where: str | None) -> tuple[int, int]:
    try:
        line, column = (where or "").rsplit(":", 2)[-2:]
        return int(line), int(column)
    except ValueError:  # a flag
        return 0, 0


def _mistakes(error: Error, model: type[Section]) -> Iterator[_Mistake]:
    """The mistakes of one error: several where the schema words its problems itself."""
    loc = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "refused":
        for key, message, hint in error["ctx"]["problems"]:
            words = _fixed(message, hint)
            yield _Mistake(path_of(loc, key), False, _without_names(message), MAX_ALIKE, words)
        return
    is_name = "[key]" in error["loc"]
    kind, limit = error["type"], MAX_ALIKE
    if error["type"] == "extra_forbidden":
        is_table = isinstance(error.get("input"), dict)
        kind, limit = f"unknown {'sections' if is_table else 'keys'}", MAX_UNKNOWN
    elif error["type"] == "unknown_name":
        kind, limit = f"{error['ctx']['what']}s", MAX_UNKNOWN
    elif is_name:
        limit = MAX_UNKNOWN
    at_key = is_name or error["type"] == "extra_forbidden"
    yield _Mistake(loc, at_key, kind, limit, partial(_words, error, loc, model))


def _fixed(message: str, hint: str) -> Callable[[], Words]:
    return lambda: (message, hint)


def _without_names(message: str) -> str:
    return re.sub(r"`[^`]*`|\"[^\"]*\"", "_", message)[:60]


def path_of(loc: Loc, key: str | Loc) -> Loc:
    """The path of a key of the section at `loc`, in one of the forms of `section.KeyProblems`."""
    if isinstance(key, tuple):
        return (*loc, *key)
    parts = tuple(part for part in key.lstrip("/").split(".") if part)
    return parts if key.startswith("/") else (*loc, *parts)


def _without_echoes(errors: list[Error], model: type[Section]) -> list[Error]:
    """Leave out errors that only follow from another one.

    A misspelt key is unknown, and the key that was meant is missing. Settings right below a key
    with named sections are wrong as names and as values, however many there are.
    """
    misnamed = {error["loc"][:2] for error in errors if "[key]" in error["loc"]}
    valueless = {
        error["loc"]
        for error in errors
        if error["type"] == "model_type" and error["loc"][0] in model.named_sections
    }
    unknown: dict[Loc, list[str]] = {}
    for error in errors:
        if error["type"] == "extra_forbidden":
            unknown.setdefault(error["loc"][:-1], []).append(str(error["loc"][-1]))
    remaining: list[Error] = []
    nameless: set[str] = set()
    for error in errors:
        loc, place = error["loc"], error["loc"][:2]
        if error["type"] == "missing" and _is_misspelt(loc, unknown):
            continue
        if error["type"] == "refused":
            remaining += _without_misspelt(error, unknown)
        elif loc in misnamed and isinstance(error["input"], dict):
            continue
        elif place in misnamed & valueless:
            if place[0] not in nameless:
                remaining.append(error | {"type": "nameless", "loc": (*place, "[key]")})
            nameless.add(place[0])
        else:
            remaining.append(error)
    return remaining


def _without_misspelt(refused: Error, unknown: dict[Loc, list[str]]) -> list[Error]:
    """The problems of a refused section, each as an error, without misspelt keys as missing."""
    return [
        refused | {"ctx": {"problems": [problem]}}
        for problem in refused["ctx"]["problems"]
        if not problem[1].endswith("is missing")
        or not _is_misspelt(path_of(refused["loc"], problem[0]), unknown)
    ]


def _is_misspelt(missing: Loc, unknown: dict[Loc, list[str]]) -> bool:
    names = unknown.get(missing[:-1], [])
    return len(names) <= MAX_MISSPELT and nearest(str(missing[-1]), names, 0.8) is not None


def _words(error: Error, loc: Loc, model: type[Section]) -> Words:
    kind, value, ctx = error["type"], error.get("input"), error.get("ctx", {})
    key = "`" + dotted(loc) + "`"
    if kind == "extra_forbidden":
        return _unknown(loc, model, value)
    if kind == "missing":
        return f"{key} is missing", _missing_hint(loc, model, value)
    if kind == "unknown_name":
        is_key = "[key]" in error["loc"]
        name = str(loc[-1] if is_key else value)
        return f"{ctx['what']} {show(name)}", nearest_name(name, ctx["known"], model, is_key)
    if kind == "literal_error":
        expected = ctx["expected"].replace("'", '"')
        hint = nearest_literal(value, expected, loc) or f"such as {example(loc, model)}"
        return f"{key} must be {expected}, not {show(value)}", hint
    if kind == "nameless":
        return _nameless(str(loc[0]), str(loc[1]), model.named_sections[str(loc[0])])
    if kind == "worded":
        return ctx["message"], ctx["hint"]
    message = f"{key} {_expected(kind, ctx, error['msg'])}, not {show(value)}"
    return message, type_hint(kind, value, loc, model) or f"such as {example(loc, model)}"


def _missing_hint(loc: Loc, model: type[Section], section: Any) -> str:
    parts = section.values() if isinstance(section, Mapping) else ()
    if len(loc) > 1 and isinstance(loc[-2], int):
        return f"add {example(loc, model)} below `{header(loc[:-1])}`"
    if len(loc) > 1 and parts and all(isinstance(part, Mapping) for part in parts):
        # [a.b] alone makes [a], and a line below its header would belong to [a.b]
        return f"add `{header(loc[:-1])}` with {example(loc, model)}"
    return f"add {example(loc, model)}"


def _nameless(key: str, setting: str, words: NamedSections) -> Words:
    message = f"`{setting}` stands in [{key}] itself, which has {words.meaning}"
    return message, f"write `[{key}.{words.example}]`, {words.naming}, above its settings"


def _unknown(loc: Loc, model: type[Section], value: Any) -> Words:
    if not isinstance(value, dict):
        return f"unknown key `{dotted(loc)}`", nearest_key(loc, model)
    sections = [name for name in model.model_fields if is_section(name, model)]
    parent = section_at(loc[:-1], model)
    fields = parent.model_fields.items() if parent and len(loc) > 1 else ()
    inner = [header((*loc[:-1], name)) for name, f in fields if models_in(f.annotation)]
    meant = nearest(header(loc), inner, 0.5)
    if meant is None and (top := nearest(str(loc[-1]), sections, 0.5)):
        meant = f"[{top}]"
    hint = f"did you mean `{meant}`?" if meant else "remove it; known: " + ", ".join(sections)
    return f"unknown section [{shorten(dotted(loc))}]", hint


_EXPECTED = {
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text in quotes",
    "list_type": "must be a list in brackets",
    "dict_type": "must be a section",
    "model_type": "must be a section",
    "finite_number": "must be a finite number",
    "string_too_short": "must have a character",
    "string_pattern_mismatch": "must be one line of text without spaces around it",
    "too_short": "must have an entry",
}


def _expected(kind: str, ctx: dict[str, Any], fallback: str) -> str:
    if "must" in ctx:
        return f"must {ctx['must']}"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    for name, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if name in ctx:
            return f"must be {word} {ctx[name]:.15g}"
    return f"is not valid ({fallback})"

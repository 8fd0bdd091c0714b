"""Turn what pydantic found wrong into messages that say where, what was expected, and a way out."""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from r1recipes.config.render import Loc, dotted, show
from r1recipes.config.section import Section
from r1recipes.config.suggest import (
    example,
    is_section,
    models_in,
    nearest_key,
    nearest_literal,
    nearest_name,
    section_at,
    type_hint,
)
from r1recipes.errors import Problem


def explain(
    errors: list[dict[str, Any]],
    model: type[Section],
    where: Callable[[Loc, bool], str | None],
) -> list[Problem]:
    """One Problem for each error of a validation of `model`, in the order of the file.

    `where(path, at_key)` gives `file:line:column` of a key or, with at_key False, of its value.
    """
    problems = []
    for error in _without_echoes(errors):
        loc = tuple(part for part in error["loc"] if part != "[key]")
        if error["type"] == "refused":
            problems += _refused(error, loc, where)
            continue
        at_key = error["type"] == "extra_forbidden" or "[key]" in error["loc"]
        message, hint = _message(error, loc, model)
        problems.append(Problem(message, where(loc, at_key), hint))
    problems = list(dict.fromkeys(_once_a_flag(problem) for problem in problems))
    return sorted(problems, key=lambda problem: _order(problem.where))


def _refused(
    error: dict[str, Any], loc: Loc, where: Callable[[Loc, bool], str | None]
) -> list[Problem]:
    """Problems that the schema words itself; a key with a leading `/` is counted from the top, one
    with dots in a part is a tuple of its parts."""
    problems = []
    for key, message, hint in error["ctx"]["problems"]:
        if isinstance(key, tuple):
            problems.append(Problem(message, where((*loc, *key), False), hint))
            continue
        start = () if key.startswith("/") else loc
        path = start + tuple(part for part in key.lstrip("/").split(".") if part)
        problems.append(Problem(message, where(path, False), hint))
    return problems


def _without_echoes(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out errors that only follow from another one.

    A misspelt key is unknown, and the one that was meant is missing. Settings right below [preset]
    are wrong as names and as values, however many there are.
    """
    in_preset = [error for error in errors if error["loc"][:1] == ("preset",)]
    misnamed = {error["loc"][:2] for error in errors if "[key]" in error["loc"]}
    valueless = {error["loc"] for error in in_preset if error["type"] == "model_type"}
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]

    def echo(refused: dict[str, Any], problem: tuple[str, str, str]) -> bool:
        key = problem[0] if isinstance(problem[0], tuple) else problem[0].split(".")
        path = (*refused["loc"], *key)
        return problem[1].endswith("is missing") and _misspelt(path, unknown)

    kept, nameless = [], False
    for error in errors:
        place = error["loc"][:2]
        if error["type"] == "missing" and _misspelt(error["loc"], unknown):
            continue
        if error["type"] == "refused":
            found = error.get("ctx", {}).get("problems", [])
            kept += [error | {"ctx": {"problems": [p]}} for p in found if not echo(error, p)]
            continue
        if error["loc"] in misnamed and isinstance(error["input"], dict):
            continue
        if place in misnamed & valueless:
            if not nameless:
                kept.append(error | {"type": "nameless_preset", "loc": (*place, "[key]")})
            nameless = True
        else:
            kept.append(error)
    return kept


def _misspelt(missing: Loc, unknown: list[Loc]) -> bool:
    near = [str(loc[-1]) for loc in unknown if loc[:-1] == missing[:-1]]
    return bool(difflib.get_close_matches(str(missing[-1]), near, 1, 0.8))


def _once_a_flag(problem: Problem) -> Problem:
    """`--set preset.KEY=..` is wrong in every preset alike: leave the presets' names out."""
    flag = re.match(r"--set preset\.([a-z_0-9]+)=", problem.where or "")
    if not flag:
        return problem
    nameless = [
        re.sub(r"`preset\.\w+\.(\w+)`", r"`preset.\1`", text or "")
        for text in (problem.message, problem.hint)
    ]
    return Problem(nameless[0], problem.where, nameless[1])


def _message(error: dict[str, Any], loc: Loc, model: type[Section]) -> tuple[str, str | None]:
    kind, given, ctx = error["type"], error.get("input"), error.get("ctx", {})
    key = "`" + dotted(loc) + "`"
    if kind == "extra_forbidden":
        return _unknown(loc, model, given)
    if kind == "missing":
        parts = given.values() if isinstance(given, Mapping) else ()
        if len(loc) > 1 and parts and all(isinstance(part, Mapping) for part in parts):
            # [data.problems] alone makes [data], and a line below its header would be its own
            return f"{key} is missing", f"add `[{dotted(loc[:-1])}]` with {example(loc, model)}"
        return f"{key} is missing", f"add {example(loc, model)}"
    if kind == "unknown_name":
        is_key = "[key]" in error["loc"]
        name = str(loc[-1] if is_key else given)
        return f"{ctx['what']} {show(name)}", nearest_name(name, ctx["known"], model, is_key)
    if kind == "literal_error":
        expected = ctx["expected"].replace("'", '"')
        hint = nearest_literal(given, expected, loc) or f"such as {example(loc, model)}"
        return f"{key} must be {expected}, not {show(given)}", hint
    if kind == "nameless_preset":
        message = f"`{loc[1]}` stands in [preset] itself, which has a section for each size of card"
        return message, "write `[preset.24GB]`, by the memory of the card, above its settings"
    if kind == "worded":
        return ctx["message"], ctx["hint"]
    message = f"{key} {_expected(kind, ctx, error['msg'])}, not {show(given)}"
    return message, type_hint(kind, given, loc, model) or f"such as {example(loc, model)}"


def _unknown(loc: Loc, model: type[Section], given: Any) -> tuple[str, str]:
    if isinstance(given, dict):
        known = [name for name in model.model_fields if is_section(name, model)]
        section = section_at(loc[:-1], model)
        fields = section.model_fields.items() if section and len(loc) > 1 else ()
        inner = [dotted((*loc[:-1], name)) for name, f in fields if models_in(f.annotation)]
        close = difflib.get_close_matches(dotted(loc), inner, 1, 0.5)
        close = close or difflib.get_close_matches(str(loc[-1]), known, 1, 0.5)
        hint = f"did you mean `[{close[0]}]`?" if close else "remove it; known: " + ", ".join(known)
        return f"unknown section [{dotted(loc)}]", hint
    return f"unknown key `{dotted(loc)}`", nearest_key(loc, model)


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


def _order(where: str | None) -> tuple[int, int]:
    try:
        line, column = (where or "").rsplit(":", 2)[-2:]
        return int(line), int(column)
    except ValueError:
        return 0, 0

"""A change that works, for each kind of mistake in a recipe: a near name, a valid line, a home.

A value is proposed only when it is valid for its key; whether it suits the rest of the recipe is
not looked at.
"""

import difflib
import json
import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from r1recipes.config.render import Loc, dotted
from r1recipes.config.section import Section


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The section models that an annotation such as `dict[str, Preset]` or `Eval | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for arg in typing.get_args(annotation) for found in models_in(arg)]


def section_at(path: Loc, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the section at `path`, or None where keys are free."""
    current: type[BaseModel] | None = model
    is_table = False
    for part in path:
        if is_table:  # this part is the free name of a table such as [preset.8GB]
            is_table = False
            continue
        field = current.model_fields.get(str(part)) if current else None
        inner = models_in(field.annotation) if field else []
        is_table = bool(field) and typing.get_origin(field.annotation) is dict
        current = inner[0] if inner else None
    return None if is_table else current


def field_at(loc: Loc, model: type[BaseModel]) -> FieldInfo | None:
    """The field of the key at `loc`, or None where names are free."""
    names = [part for part in loc if not isinstance(part, int)]
    section = section_at(tuple(names[:-1]), model)
    return section.model_fields.get(str(names[-1])) if section else None


def example(loc: Loc, model: type[Section]) -> str:
    """A line that is valid for the key at `loc`: its default, or the schema's example."""
    names = [part for part in loc if not isinstance(part, int)]
    field = field_at(loc, model)
    if field is None:
        return f"`{dotted(names[-1:])} = 1.0`"  # a reward
    if len(names) == 1 and names[0] in model.section_examples:
        return model.section_examples[str(names[0])]
    value = field.examples[0] if field.examples else field.default
    return f"`{names[-1]} = {json.dumps(value)}`"


def type_hint(kind: str, given: Any, loc: Loc, model: type[Section]) -> str | None:
    """How a value of the wrong type becomes one of the right type, where that is plain."""
    if kind in ("int_type", "float_type", "bool_type") and isinstance(given, str):
        try:
            value = json.loads(given)
        except (ValueError, RecursionError):
            return None
        return f"remove the quotes: `{given}`" if _fits(value, loc, model) else None
    if kind == "bool_type" and isinstance(given, int | float) and given in (0, 1):
        return f"write `{'true' if given else 'false'}`"
    if kind == "int_type" and isinstance(given, float) and abs(given) < 1e15:
        return f"write `{round(given)}`" if _fits(round(given), loc, model) else None
    if kind == "list_type" and given == "all-linear":
        return "remove this line: all linear layers are the default"
    if kind in ("dict_type", "model_type"):
        single = isinstance(given, list) and given and isinstance(given[0], dict)
        how = " in single brackets" if single else ", with its keys below"
        return f"write `[{dotted(loc)}]`{how}"
    return None


def _fits(value: Any, loc: Loc, model: type[BaseModel]) -> bool:
    field = field_at(loc, model)
    if field is None:
        return isinstance(value, int | float) and 0 <= value <= 1000  # a reward's weight
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = typing.Annotated[kind, constraint]
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def nearest_literal(given: Any, expected: str, loc: Loc) -> str | None:
    """The nearest of the quoted words in `expected`, if one is near."""
    known = re.findall(r'"([^"]*)"', expected)
    close = difflib.get_close_matches(given, known, 1, 0.5) if isinstance(given, str) else []
    if isinstance(given, bool) and "none" in known and not given:
        close = ["none"]
    if close:
        return f'did you mean "{close[0]}"?'
    return f'write "{known[0]}"' if isinstance(loc[-1], int) else None  # an entry of a list


def nearest_key(loc: Loc, model: type[Section]) -> str:
    """What was meant by an unknown key: another home, another spelling, another tool's word."""
    key, section = str(loc[-1]), section_at(loc[:-1], model)
    if is_section(key, model):
        return f"`{key}` is a section of its own: write `[{key}]`"
    homes = [path for path, name in _all_keys(model) if name == key and path != loc[:-1]]
    if homes:
        return f"`{key}` belongs " + " or ".join(_home(path) for path in homes)
    known = list(section.model_fields) if section else []
    close = difflib.get_close_matches(key, known, 1, 0.6)
    if close:
        return f"did you mean `{dotted((*loc[:-1], close[0]))}`?"
    if key in model.foreign_keys:
        return model.foreign_keys[key]
    everywhere = {name: path for path, name in _all_keys(model)}
    close = difflib.get_close_matches(key, everywhere, 1, 0.75)
    if close:
        return f"did you mean `{close[0]}`? It belongs {_home(everywhere[close[0]])}"
    listed = ", ".join(known)
    return f"remove it; known here: {listed}" if known and len(listed) < 120 else "remove it"


def is_section(name: str, model: type[BaseModel]) -> bool:
    """Whether `name` is a section at the top of `model`."""
    field = model.model_fields.get(name)
    is_table = field is not None and typing.get_origin(field.annotation) is dict
    return is_table or (field is not None and bool(models_in(field.annotation)))


def nearest_name(name: str, known: list[str], model: type[BaseModel], is_key: bool) -> str:
    """The nearest of the known names, as a key or as a value."""
    if is_key and is_section(name, model):
        return f"`{name}` is a section of its own: write `[{name}]`"
    close = difflib.get_close_matches(name, known, 1, 0.5)
    if not close:
        return "known: " + ", ".join(known)
    return f"did you mean `{close[0]}`?" if is_key else f'did you mean "{close[0]}"?'


def _home(path: Loc) -> str:
    if not path:
        return "at the top of the file, above the first [section]"
    return "in each [preset.24GB]" if path[0] == "preset" else f"in [{dotted(path)}]"


def _all_keys(model: type[BaseModel], prefix: Loc = ()) -> Iterator[tuple[Loc, str]]:
    for name, field in model.model_fields.items():
        yield prefix, name
        for inner in models_in(field.annotation):
            is_table = typing.get_origin(field.annotation) is dict
            yield from _all_keys(inner, (*prefix, name, "NAME") if is_table else (*prefix, name))

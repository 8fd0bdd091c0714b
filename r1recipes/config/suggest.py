"""A change that works, for each kind of mistake in a file: a near name, a valid line, a home.

A value is proposed only if it is valid for its key; whether it suits the rest of the file is not
looked at.
"""

import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from r1recipes.config.render import Loc, dotted, header
from r1recipes.config.section import Section

MAX_WORD = 100
"""Characters of a word for which a near one is sought: names in a file's model are shorter, and the
time for a comparison grows with the square."""
_FREE = "NAME"
"""Stands in a path for the free name of a section."""


def nearest(word: str, names: Iterable[str], cutoff: float) -> str | None:
    """The name that is most like `word`, if they agree in a share `cutoff` (difflib's ratio)."""
    if len(word) > MAX_WORD:
        return None
    short = [name for name in names if len(name) <= MAX_WORD]
    close = difflib.get_close_matches(word, short, 1, cutoff)
    return close[0] if close else None


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation such as `dict[str, Server]` or `Server | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in typing.get_args(annotation) for model in models_in(arg)]


def section_at(path: Loc, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the section at `path`, or None where keys are free."""
    current: type[BaseModel] | None = model
    is_table = False
    for part in path:
        if isinstance(part, int):  # one of a list of sections
            continue
        if is_table:  # this part is the free name of a section
            is_table = False
            continue
        field = current.model_fields.get(str(part)) if current else None
        inner = models_in(field.annotation) if field else []
        is_table = field is not None and typing.get_origin(field.annotation) is dict
        current = inner[0] if inner else None
    return None if is_table else current


def field_at(loc: Loc, model: type[BaseModel]) -> FieldInfo | None:
    """The field of the key at `loc`, or None where names are free."""
    names = [part for part in loc if not isinstance(part, int)]
    section = section_at(tuple(names[:-1]), model)
    return section.model_fields.get(str(names[-1])) if section else None


def example(loc: Loc, model: type[Section]) -> str:
    """A line that is valid for the key at `loc`, with its example or its default.

    A key that must be there has an example in the model.
    """
    names = [part for part in loc if not isinstance(part, int)]
    field = field_at(loc, model)
    if field is None:
        return f"`{dotted(names[-1:])} = 1.0`"  # free names in a file are those of numbers
    if len(names) == 1 and names[0] in model.section_examples:
        return model.section_examples[str(names[0])]
    value = field.examples[0] if field.examples else field.default
    return f"`{names[-1]} = {json.dumps(value)}`"


def type_hint(kind: str, value: Any, loc: Loc, model: type[Section]) -> str | None:
    """How a value of the wrong type becomes one of the right type, if that is obvious."""
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        try:
            unquoted = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return f"remove the quotes: `{value}`" if _fits(unquoted, loc, model) else None
    if kind == "bool_type" and isinstance(value, int | float) and value in (0, 1):
        return f"write `{'true' if value else 'false'}`"
    if kind == "int_type" and isinstance(value, float) and abs(value) < 1e15:
        return f"write `{round(value)}`" if _fits(round(value), loc, model) else None
    if kind == "list_type" and isinstance(value, str):
        return model.foreign_values.get(value)
    if kind == "list_type" and isinstance(value, dict) and section_at(loc, model):
        return f"write `[[{dotted(loc)}]]`, in double brackets"
    if kind in ("dict_type", "model_type"):
        is_list = isinstance(value, list) and value and isinstance(value[0], dict)
        how = " in single brackets" if is_list else ", with its keys below"
        return f"write `{header(loc)}`{how}"
    return None


def _fits(value: Any, loc: Loc, model: type[BaseModel]) -> bool:
    """Whether a value is valid for the key at `loc`."""
    field = field_at(loc, model)
    if field is None:
        kind = _free_type(loc, model)
    else:
        kind = field.annotation
        for constraint in field.metadata:
            kind = typing.Annotated[kind, constraint]
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _free_type(loc: Loc, model: type[BaseModel]) -> Any:
    """The type of the values of a table with free names: `float` of `dict[str, float]`."""
    table = field_at(loc[:-1], model) if len(loc) > 1 else None
    arguments = typing.get_args(table.annotation) if table else ()
    return arguments[1] if len(arguments) == 2 else Any


def nearest_literal(value: Any, expected: str, loc: Loc) -> str | None:
    """The nearest of the quoted words in `expected`, if one is near."""
    words = {_plain(word): word for word in re.findall(r'"([^"]*)"', expected)}
    near = nearest(_plain(value), words, 0.5) if isinstance(value, str) else None
    meant = words[near] if near else None
    if value is False and "none" in words:
        meant = "none"
    if meant:
        return f'did you mean "{meant}"?'
    if not isinstance(loc[-1], int):
        return None
    return f'write "{next(iter(words.values()))}"'  # an entry of a list


def nearest_key(loc: Loc, model: type[Section]) -> str:
    """What an unknown key is likely to mean: a key of another section, a key of another tool or
    algorithm, or a misspelt one."""
    key, section = str(loc[-1]), section_at(loc[:-1], model)
    if is_section(key, model):
        return f"`{key}` is a section of its own: write `[{key}]`"
    inner = _all_keys(section, loc[:-1]) if section else ()
    homes = [path for path, name in inner if name == key and path != loc[:-1]]
    homes = homes or [path for path, name in _all_keys(model) if name == key and path != loc[:-1]]
    if homes:
        return f"`{key}` belongs " + " or ".join(_home(path, model) for path in homes)
    if key in model.foreign_keys:
        return model.foreign_keys[key]
    keys_here = list(section.model_fields) if section else []
    if meant := nearest(_plain(key), keys_here, 0.6):
        return f"did you mean `{dotted((*loc[:-1], meant))}`?"
    everywhere = {name: path for path, name in _all_keys(model)}
    if meant := nearest(_plain(key), everywhere, 0.75):
        return f"did you mean `{meant}`? It belongs {_home(everywhere[meant], model)}"
    names = ", ".join(keys_here)
    return f"remove it; known here: {names}" if names and len(names) < 120 else "remove it"


def is_section(name: str, model: type[BaseModel]) -> bool:
    """Whether `name` is a section at the top of `model`."""
    field = model.model_fields.get(name)
    is_table = field is not None and typing.get_origin(field.annotation) is dict
    return is_table or (field is not None and bool(models_in(field.annotation)))


def nearest_name(name: str, names: list[str], model: type[BaseModel], is_key: bool) -> str:
    """A hint with the nearest of the names that are allowed, as a key or as a value."""
    if is_key and is_section(name, model):
        return f"`{name}` is a section of its own: write `[{name}]`"
    by_plain = {_plain(known): known for known in names}
    near = nearest(_plain(name), by_plain, 0.5)
    if near is None:
        return "known: " + ", ".join(names)
    meant = by_plain[near]
    return f"did you mean `{meant}`?" if is_key else f'did you mean "{meant}"?'


def _plain(name: str) -> str:
    """A name for a comparison: `Online-DPO` is near `online_dpo`."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _home(path: Loc, model: type[Section]) -> str:
    """Where the keys of the section at `path` are written."""
    if not path:
        return "at the top of the file, above the first [section]"
    if _FREE not in path:
        return f"in {header(path)}"
    words = model.named_sections.get(str(path[0]))
    name = words.example if words else _FREE
    return f"in each [{dotted([name if part == _FREE else part for part in path])}]"


def _all_keys(model: type[BaseModel], prefix: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Section and name of every key that a file of this model can have; without those of lists of
    sections, whose keys belong elsewhere too."""
    for name, field in model.model_fields.items():
        yield prefix, name
        if typing.get_origin(field.annotation) is list:
            continue
        for inner in models_in(field.annotation):
            is_table = typing.get_origin(field.annotation) is dict
            yield from _all_keys(inner, (*prefix, name, _FREE) if is_table else (*prefix, name))

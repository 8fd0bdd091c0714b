"""Write TOML: keys, values and whole sections, so that they are read again as the same data."""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

Loc = tuple[str | int, ...]
"""Path of a key, such as ("lora", "target_modules", 0)."""
OriginOf = Callable[[Loc], str | None]
"""Path of a key -> where its value came from, None for the file itself."""


def dotted(path: Sequence[str | int]) -> str:
    """A path as TOML writes it: `train.beta`, `lora.target_modules[0]`, `rewards."a b"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + toml_key(part)
    return text


def toml_key(name: str) -> str:
    """A key as TOML writes it: bare, or quoted with JSON's escapes, which TOML has too."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def show(value: Any) -> str:
    """A value for a message, as it stands in the file but at most 60 characters long."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a section" if value else "an empty section"
    elif isinstance(value, list):
        text = "a list" if value else "an empty list"
    elif isinstance(value, int) and value.bit_length() > 200:
        text = f"a number of {value.bit_length()} bits"
    elif isinstance(value, str):
        text = json.dumps(value[:80], ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@runtime_checkable
class Written(Protocol):
    """A section that stands in a file under other keys than those that it has."""

    def written(self) -> dict[str, Any]:
        """The keys of the file, with their values."""


def render(file: BaseModel, origin: OriginOf | None = None) -> str:
    """A file's model as TOML that loads to the same model.

    `origin(path)` may give a comment that is written behind each value. A key whose value is
    None is left out, since TOML has no null.
    """
    lines = []
    for key, value in file:
        if not isinstance(value, BaseModel | dict | None) and not _has_sections(value):
            lines += _render_value(key, value, origin, (key,))
    for key, value in file:
        if isinstance(value, BaseModel):
            lines += render_section((key,), value, origin)
        elif isinstance(value, dict):
            lines += _render_table((key,), value, origin)
        elif _has_sections(value):
            for number, section in enumerate(value):
                lines += render_section((key, number), section, origin)
    return "\n".join(lines) + "\n"


def _has_sections(value: Any) -> bool:
    """Whether a value is a list of sections, `[[key]]`."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel)


def header(path: Loc) -> str:
    """`[train]`, `[[stage]]`, `[stage.train]`: TOML counts the sections of a list by itself."""
    name = dotted([part for part in path if not isinstance(part, int)])
    return f"[[{name}]]" if isinstance(path[-1], int) else f"[{name}]"


def _render_table(path: Loc, table: dict[str, Any], origin: OriginOf | None) -> list[str]:
    """A table with free names, which has either values or sections."""
    values = {name: v for name, v in table.items() if not isinstance(v, BaseModel)}
    lines = ["", header(path)] if values else []
    for name, value in values.items():
        lines += _render_value(name, value, origin, (*path, name))
    for name, section in table.items():
        if isinstance(section, BaseModel):
            lines += render_section((*path, name), section, origin)
    return lines


def render_section(path: Loc, section: BaseModel, origin: OriginOf | None = None) -> list[str]:
    """The lines of a section and of those within it; an empty line comes first."""
    lines = ["", header(path)]
    inner: list[str] = []
    items = section.written().items() if isinstance(section, Written) else section
    for key, value in items:
        if isinstance(value, BaseModel):
            inner += render_section((*path, key), value, origin)
        elif isinstance(value, dict):
            inner += _render_table((*path, key), value, origin)
        elif value is not None:
            lines += _render_value(key, value, origin, (*path, key))
    return lines + inner


def _render_value(key: str, value: Any, origin: OriginOf | None, path: Loc) -> list[str]:
    line = f"{toml_key(key)} = {toml_value(value)}"
    comment = origin(path) if origin else None
    return [f"{line:<48}  # {comment}" if comment and "\n" not in line else line]


def toml_value(value: Any) -> str:
    """A value as TOML text on one line, or a multi-line text."""
    import tomli_w

    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, float) and math.isfinite(value) and 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return short if float(short) == value else repr(value)
    # A multi-line text would lose its carriage returns: TOML lets a reader normalise line ends.
    has_lines = isinstance(value, str) and "\n" in value and "\r" not in value
    text = tomli_w.dumps({"v": value}, multiline_strings=has_lines)
    return text.partition("=")[2].strip()

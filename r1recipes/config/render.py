"""Write TOML: keys, values and whole sections, so that they are read again as the same data."""

import json
import math
import re
from typing import Any

from pydantic import BaseModel

Loc = tuple[str | int, ...]
"""Path of a key, such as ("lora", "target_modules", 0)."""


def dotted(path: Loc | list[str | int]) -> str:
    """`train.beta`, `lora.target_modules[0]`; a part that is no bare TOML key is quoted."""
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
    """A given value as it stood in the file, cut to a line."""
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


def render(recipe: BaseModel, origin: Any = None) -> str:
    """The resolved recipe as TOML that loads to the same recipe.

    `origin(path)` may give a comment that is written behind each value. A key whose value is
    None is left out, since TOML has no null.
    """
    lines = []
    for key, value in recipe:
        if not isinstance(value, BaseModel | dict | None):
            lines += _render_value(key, value, origin, (key,))
    for key, value in recipe:
        if isinstance(value, BaseModel):
            lines += _render_section((key,), value, origin)
        elif key == "rewards":
            lines += ["", "[rewards]"]
            for name, weight in value.items():
                lines += _render_value(name, weight, origin, ("rewards", name))
        elif isinstance(value, dict):
            for name, section in value.items():
                lines += _render_section((key, name), section, origin)
    return "\n".join(lines) + "\n"


def _render_section(path: Loc, section: BaseModel, origin: Any) -> list[str]:
    lines = ["", f"[{dotted(path)}]"]
    inner = []
    for key, value in section:
        if isinstance(value, BaseModel):
            inner += _render_section((*path, key), value, origin)
        elif value is not None:
            lines += _render_value(key, value, origin, (*path, key))
    return lines + inner


def _render_value(key: str, value: Any, origin: Any, path: Loc) -> list[str]:
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
    several = isinstance(value, str) and "\n" in value and "\r" not in value
    text = tomli_w.dumps({"v": value}, multiline_strings=several)
    return text.partition("=")[2].strip()

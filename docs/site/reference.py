"""The reference pages: every command, from the parser, and every key of a recipe, from its schema.

    python docs/site/reference.py            write docs/commands.md and docs/recipe.md
    python docs/site/reference.py --check    exit code 1 if they are not what the code says

The site is built with what the code says; the files are for readers of the repository.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r1recipes import cli
from r1recipes.recipe import schema as recipe_schema

DOCS = Path(__file__).parents[1]
NOTE = "<!-- written by docs/site/reference.py, not by hand -->\n"
PATTERNS = {r"\.py:": '"FILE.py:FUNCTION"', "cpu": "NAME"}
"""Part of a pattern of keys -> how such a key is shown."""
LONGEST_DEFAULT = 60
"""Characters of a default that a table still shows."""


def pages() -> dict[str, str]:
    """Name of each page -> its text."""
    return {"commands.md": commands(), "recipe.md": keys()}


def commands() -> str:
    """A section for each command: what it does, its form, and its arguments."""
    lines = [
        "# Commands",
        "",
        NOTE,
        "`r1recipes COMMAND --help` prints the same. `python -m r1recipes` works too.",
        "",
        "| command | |",
        "| --- | --- |",
    ]
    sections: list[str] = []
    for name, text, command in _commands():
        lines.append(f"| [{name}](#{name}) | {_cell(text)} |")
        sections += ["", f"## {name}", "", _sentence(text), "", *_usage(command), *_table(command)]
    return "\n".join([*lines, *sections]) + "\n"


def _commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of each command, in the order of `--help`."""
    for action in cli.parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, text in helps.items():
                yield name, text, action.choices[name]


def _usage(command: argparse.ArgumentParser) -> list[str]:
    """The form of a command, on one line."""
    command.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=10_000)
    usage = command.format_usage().removeprefix("usage: ").replace("[-h] ", "").strip()
    example = [command.epilog.replace("example:", "# such as", 1)] if command.epilog else []
    return ["```text", usage, *example, "```", ""]


def _table(command: argparse.ArgumentParser) -> list[str]:
    rows = [
        f"| {_argument(action)} | {_cell(_help(action, command))} |"
        for action in command._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]
    return ["| argument | |", "| --- | --- |", *rows] if rows else []


def _argument(action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter("")
    if not action.option_strings:
        return _code(str(action.metavar or action.dest))
    value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    value = "" if action.nargs == 0 else f" {value}"
    return ", ".join(_code(f"{option}{value}") for option in action.option_strings)


def _help(action: argparse.Action, command: argparse.ArgumentParser) -> str:
    text = (action.help or "") % {**vars(action), "prog": command.prog}
    choices = ", ".join(map(str, action.choices or ()))
    return text or (f"one of {choices}" if choices else "")


def keys() -> str:
    """A section for each section of a recipe, with type, default and meaning of its keys."""
    schema = recipe_schema.for_editors()
    lines = [
        "# Recipe keys",
        "",
        NOTE,
        "Every key that a recipe may have. `r1recipes show RECIPE` prints the values that a recipe "
        "has, with their origin, and `r1recipes schema FILE` writes this as a JSON Schema: with "
        "`#:schema ./recipe.schema.json` as its first line, a recipe is completed and checked by "
        "editors (tombi, Even Better TOML).",
        "",
        "## At the top",
        "",
    ]
    plain = {name: node for name, node in schema["properties"].items() if not _section(node)}
    lines += _keys(plain, set(schema.get("required", ())))
    for name, node in schema["properties"].items():
        if _section(node):
            lines += _of_section(name, node)
    return "\n".join(lines) + "\n"


def _section(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object that a node holds, itself or in a list; None of a plain value."""
    inner: Mapping[str, Any] = node.get("items", node) if node.get("type") == "array" else node
    return inner if "properties" in inner or "patternProperties" in inner else None


def _of_section(name: str, node: Mapping[str, Any]) -> list[str]:
    """The heading and the keys of a section, and the sections in it."""
    section = _section(node)
    assert section is not None
    properties = dict(section.get("properties", {}))
    patterns = dict(section.get("patternProperties", {}))
    inner = {key: value for key, value in properties.items() if _section(value)}
    inner |= {_shown(key): value for key, value in patterns.items() if _section(value)}
    plain = {key: value for key, value in properties.items() if key not in inner}
    plain |= {_shown(key): value for key, value in patterns.items() if not _section(value)}
    brackets = "[[{}]]" if node.get("type") == "array" else "[{}]"
    lines = ["", f"## {brackets.format(name)}", "", _sentence(node.get("description", "")), ""]
    lines += _keys(plain, set(section.get("required", ())))
    for key, value in inner.items():
        lines += _of_section(f"{name}.{key}", value)
    return lines


def _shown(pattern: str) -> str:
    """How a key of a pattern is shown."""
    return next((text for part, text in PATTERNS.items() if part in pattern), "KEY")


def _keys(nodes: Mapping[str, Any], required: set[str]) -> list[str]:
    if not nodes:
        return []
    rows = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    for name, node in nodes.items():
        default = "required" if name in required else _default(node)
        text = _cell(node.get("description", ""))
        rows.append(f"| {_code(name)} | {_cell(_values(node))} | {default} | {text} |")
    return rows


def _values(node: Mapping[str, Any]) -> str:
    """What a key takes: the listed values, or its type and range."""
    if "enum" in node:
        return ", ".join(_code(_toml(value)) for value in node["enum"])
    types = node.get("type", "any")
    names = [types] if isinstance(types, str) else types
    if "array" in names and "items" in node:
        return f"list of {_values(node['items'])}"
    if "auto" in node.get("pattern", ""):
        names = [name if name != "string" else '`"auto"`' for name in names]
    low = node.get("minimum", node.get("exclusiveMinimum"))
    high = node.get("maximum", node.get("exclusiveMaximum"))
    least = f"from {low:,}" if low is not None else ""
    most = f"to {high:,}" if high is not None else ""
    return " ".join(filter(None, [" or ".join(names), least, most]))


def _default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return ""
    text = _toml(node["default"])
    return _code(text) if len(text) <= LONGEST_DEFAULT else "see `show`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    """Text for a cell of a table: on one line, and its tags are no markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _sentence(text: str) -> str:
    one = _cell(text)
    return one[:1].upper() + one[1:] + ("" if not one or one.endswith(".") else ".")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    old = [name for name, text in pages().items() if _read(DOCS / name) != text]
    if not args.check:
        for name in old:
            (DOCS / name).write_text(pages()[name], encoding="utf-8")
    return int(args.check and bool(old))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())

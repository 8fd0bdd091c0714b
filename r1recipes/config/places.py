"""Line and column of every key and value of a TOML text, for error messages.

Parsing is tomli's; this only says where things stand. It reads the concrete syntax tree of
tree-sitter-toml, which is TOML 1.0: in a text that uses more, a place can be missing, and the
message then names the nearest enclosing one.
"""

from dataclasses import dataclass
from typing import Any

import tomli

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Line and column of a key and of its value; both count characters from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


class Positions:
    """Where each key of one TOML text stands, by its path such as ("train", "beta")."""

    def __init__(self, text: str):
        import tree_sitter
        import tree_sitter_toml

        self._lines = text.encode().split(b"\n")
        self._places: dict[Path, Place] = {}
        self.repeated: list[tuple[Path, Place, Place]] = []
        """Keys and sections that are given again: the path, the first place, the other one."""
        self._given: dict[Path, Place] = {}
        self._array_tables: dict[Path, int] = {}
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
        for node in parser.parse(text.encode()).root_node.named_children:
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def find(self, path: Path) -> Place | None:
        """Place of the longest known prefix of `path`; parts that are no keys are skipped."""
        known: Path = ()
        best = None
        for part in path:
            if (*known, part) in self._places:
                known = (*known, part)
                best = self._places[known]
        return best

    def exact(self, path: Path) -> Place | None:
        """Place of exactly this key, or None."""
        return self._places.get(path)

    def _table(self, node: Any) -> None:
        keys = [child for child in node.named_children if child.type in _KEYS]
        if not keys:
            return
        path = self._resolve(_key_parts(keys[0]))
        if node.type == "table_array_element":
            index = self._array_tables[path] = self._array_tables.get(path, -1) + 1
            path = (*path, index)
        self._note(path, keys[0], keys[0])
        for child in node.named_children:
            if child.type == "pair":
                self._pair(child, path)

    def _pair(self, node: Any, prefix: Path) -> None:
        children = [child for child in node.named_children if child.type != "comment"]
        if len(children) < 2 or children[0].type not in _KEYS:
            return
        key, value = children[0], children[-1]
        path = (*prefix, *_key_parts(key))
        self._note(path, key, value)
        self._value(value, path)

    def _value(self, node: Any, path: Path) -> None:
        if node.type == "inline_table":
            for child in node.named_children:
                if child.type == "pair":
                    self._pair(child, path)
        elif node.type == "array":
            items = [child for child in node.named_children if child.type != "comment"]
            for index, item in enumerate(items):
                self._note((*path, index), item, item)
                self._value(item, (*path, index))

    def _resolve(self, parts: Path) -> Path:
        """`[a.b]` after `[[a]]` is a table of the last element of `a`."""
        path: Path = ()
        for part in parts:
            path = (*path, part)
            if path in self._array_tables and path != parts:
                path = (*path, self._array_tables[path])
        return path

    def _note(self, path: Path, key: Any, value: Any) -> None:
        place = Place(self._point(key.start_point), self._point(value.start_point))
        for length in range(1, len(path)):
            self._places.setdefault(path[:length], place)
        self._places[path] = place
        if path in self._given:
            self.repeated.append((path, self._given[path], place))
        self._given.setdefault(path, place)

    def _point(self, point: tuple[int, int]) -> tuple[int, int]:
        row, column = point
        return row + 1, len(self._lines[row][:column].decode(errors="replace")) + 1


_KEYS = ("bare_key", "quoted_key", "dotted_key")


def _key_parts(node: Any) -> Path:
    if node.type == "dotted_key":
        parts: Path = ()
        for child in node.named_children:
            parts += _key_parts(child)
        return parts
    text = node.text.decode(errors="replace")
    if node.type == "bare_key":
        return (text,)
    try:
        return tuple(tomli.loads(f"{text} = 0"))
    except ValueError:  # part of a text that is no TOML
        return (text[1:-1],)

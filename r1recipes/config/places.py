"""Line and column of every key and value of a TOML text, for error messages.

tomli parses; this module only finds places. It reads the concrete syntax tree of tree-sitter-toml,
which is TOML 1.0: in a text that uses more a place can be missing, and the nearest enclosing one is
taken then. The time is linear in the text.
"""

from dataclasses import dataclass
from typing import Any

import tomli

Path = tuple[str | int, ...]
MAX_PARTS = 64
"""Parts of a path that are looked at. Deeper data is refused anyway (toml.MAX_DEPTH)."""


@dataclass(frozen=True)
class Place:
    """Line and column of a key and of its value; both count characters from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


class Positions:
    """The places of all keys of one TOML text, by paths such as ("train", "beta")."""

    def __init__(self, text: str):
        import tree_sitter
        import tree_sitter_toml

        self._lines = text.encode().split(b"\n")
        self._places: dict[Path, Place] = {}
        self.repeated: list[tuple[Path, Place, Place]] = []
        """Keys and sections that are given again: path, first place, other place."""
        self._first: dict[Path, Place] = {}
        self._counted = (0, 0, 0)
        self._array_tables: dict[Path, int] = {}
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
        for node in parser.parse(text.encode()).root_node.named_children:
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def find(self, path: Path) -> Place | None:
        """Place of the longest prefix of `path` that has one; other parts are skipped."""
        prefix: Path = ()
        place = None
        for part in path:
            if (*prefix, part) in self._places:
                prefix = (*prefix, part)
                place = self._places[prefix]
        return place

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
        if len(path) > MAX_PARTS:
            return
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
        if path in self._first:
            self.repeated.append((path, self._first[path], place))
        self._first.setdefault(path, place)

    def _point(self, point: tuple[int, int]) -> tuple[int, int]:
        """Line and column, in characters from 1, of a row and a column in bytes from 0.

        Counts on from the place before, since one line may be the whole text.
        """
        row, column = point
        last_row, start, characters = self._counted
        if row != last_row or column < start:
            start = characters = 0
        characters += len(self._lines[row][start:column].decode(errors="replace"))
        self._counted = (row, column, characters)
        return row + 1, characters + 1


_KEYS = ("bare_key", "quoted_key", "dotted_key")


def _key_parts(node: Any) -> Path:
    """The parts of a key, at most MAX_PARTS; a dotted key is nested as deeply as it has parts."""
    parts: list[str] = []
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if node.type == "dotted_key":
            nodes += reversed(node.named_children)
        else:
            parts.append(_key_name(node))
    return tuple(parts[:MAX_PARTS])


def _key_name(node: Any) -> str:
    text = node.text.decode(errors="replace")
    if node.type == "bare_key":
        return text
    try:
        (name,) = tomli.loads(f"{text} = 0")
        return name
    except ValueError:  # part of a text that is not TOML
        return text[1:-1]

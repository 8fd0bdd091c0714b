"""Finds the commands in the texts of the program, by its syntax tree.

A command is what `errors.command`, `errors.program` and `packages.extra` write, and a piece of a
text between backticks that begins with a flag or with the name of a program. Limits: a command that
is put together from variables alone is not seen; docstrings and the help of flags are no messages.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import r1recipes

SOURCE = Path(r1recipes.__file__).parent
PROGRAMS = (
    "apt-get",
    "chmod",
    "conda",
    "docker",
    "export",
    "git",
    "hf",
    "kill",
    "modprobe",
    "nvidia-smi",
    "pip",
    "powershell.exe",
    "ps",
    "python",
    "r1recipes",
    "rm",
    "systemctl",
    "ulimit",
    "unset",
    "wandb",
    "wsl.exe",
)
"""Programs that a message may tell the user to start."""
HOLE = "\0"
"""Stands for what a message is filled with."""
_PIECE = re.compile(rf"`((?:--[a-z]|(?:{'|'.join(map(re.escape, PROGRAMS))}) )[^`]*)`?")
_BARE = re.compile(
    rf"(?!r1recipes|wandb|export [^=]*$)(?:{'|'.join(map(re.escape, PROGRAMS))}) \S.*", re.DOTALL
)


@dataclass(frozen=True)
class Command:
    """A command in a text of the program, with holes where the text is filled in."""

    file: str
    line: int
    text: str

    def matches(self, printed: str) -> bool:
        """Whether a printed text has this command."""
        parts = [re.escape(part) for part in self.text.split(HOLE)]
        return re.search(r"[^`\n]*?".join(parts), printed) is not None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text.replace(HOLE, '{}')}"


@cache
def commands() -> list[Command]:
    """Every command in the source."""
    collected = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        name = str(path.relative_to(SOURCE))
        collected += [Command(name, line, text) for line, text in _commands_in(tree)]
    return collected


def _commands_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    skipped = set(_no_messages(tree))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Call) and (made := _made(node)):
            yield node.lineno, made
        elif isinstance(node, ast.JoinedStr | ast.Constant):
            yield from ((node.lineno, text) for text in _pieces(_text(node)))


def _no_messages(tree: ast.Module) -> Iterator[int]:
    """Docstrings, the parts of f-strings, and the words about flags in `--help`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield id(node.value)
        elif isinstance(node, ast.JoinedStr):
            yield from (id(value) for value in node.values if isinstance(value, ast.Constant))
        elif isinstance(node, ast.keyword) and node.arg in ("help", "description", "metavar"):
            yield from map(id, ast.walk(node.value))


def _pieces(text: str) -> list[str]:
    """The commands in a text that no function has made: what those make begins with a hole."""
    pieces = _PIECE.findall(text)
    return pieces if pieces or not _BARE.fullmatch(text) else [text]


def _text(node: ast.expr) -> str:
    """A text of the source, with holes."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return HOLE


def _made(call: ast.Call) -> str | None:
    """The command that a call makes, if it makes one."""
    function = ast.unparse(call.func)
    if function == "command" and call.args:
        words = [_text(word) if isinstance(word, ast.Constant) else HOLE for word in call.args]
        return " ".join(["r1recipes", *words])
    if function == "packages.extra" and call.args:
        return f"python -m pip install -e '.[{_text(call.args[0])}]'"
    return None

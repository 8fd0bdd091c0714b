"""In a child process: reasoning-gym's data sets and their scorers. Nothing else imports them.

A scorer gets the answer of a model, and some give it to `eval`. In a process that has called
`restrict` they get literals and formulas evaluated and nothing else, and an audit hook refuses to
write files, start processes or open connections. Limits: the hook stops what Python does, not
machine code; time and memory are limited by the parent, which can kill the child.
"""

import ast
import dataclasses
import enum
import functools
import importlib
import json
import math
import os
import re
import sys
import typing
from collections.abc import Mapping
from typing import Any

Settings = dict[str, Any]
"""Name -> value of the fields of a data set's configuration, as TOML has them."""
Field = tuple[str, Any]
"""Name and type of a field of a data set's configuration."""

REFUSED = {
    "composite": "it mixes other data sets: name one of them",
    "codeio": "it runs programs from the internet to make its problems",
}
"""Data sets that are not used, with the reason."""
OWN_FIELDS = ("seed", "size")
"""Fields that the recipe's `seed` and `data.size` decide."""
PROBLEM_IS_CODE = ("reasoning_gym.arithmetic.bitwise_arithmetic",)
"""Modules whose scorer evaluates the text of the problem, not an answer (reasoning-gym 0.1.25)."""
_FORMULA_FUNCTIONS = ("sqrt", "cbrt", "root")
_NAMED_BY_TEXT = ("Symbol", "Integer", "Float", "Function")
_FORBIDDEN = (
    "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess.", "pty.",
    "socket.", "shutil.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.kill", "ctypes.dlopen",
)  # fmt: skip
"""Beginnings of audit events (Python's table of audit events)."""


def names() -> list[str]:
    """The data sets of the installed reasoning-gym, also those that are refused."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS.keys() | REFUSED)


def fields(name: str) -> list[Field]:
    """The fields of a data set's configuration that a recipe may set."""
    from reasoning_gym.factory import DATASETS

    config = DATASETS[name][1]
    hints = typing.get_type_hints(config)
    return [(f.name, hints[f.name]) for f in dataclasses.fields(config) if f.name not in OWN_FIELDS]


def converted(hint: Any, value: Any) -> Any:
    """A value of TOML as a field's type: a list as a tuple, a text as a date or a member of an
    enum. Raises: pydantic.ValidationError."""
    from pydantic import TypeAdapter

    if typing.get_origin(hint) is tuple and len(typing.get_args(hint)) == 1:
        # Written as `tuple[str]`, and meant as any number of them.
        hint = tuple.__class_getitem__((*typing.get_args(hint), ...))
    return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)


def type_name(hint: Any) -> str:
    """A type as one reads it: `int | None`, `list[str]`, or the names of an enum's members."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(json.dumps(member.value) for member in hint)
    if type(hint) is type:
        return hint.__name__
    return re.sub(r"\b(?:[a-z_]+\.)+", "", str(hint))


def make(name: str, settings: Settings, *, seed: int, size: int) -> Any:
    """A data set of reasoning-gym. Raises: AssertionError, ValueError for what it refuses."""
    import reasoning_gym

    hints = dict(fields(name))
    values = {key: converted(hints[key], value) for key, value in settings.items()}
    return reasoning_gym.create_dataset(name, seed=seed, size=size, **values)


def packed(name: str, settings: Settings, metadata: Any) -> str:
    """What a scorer needs beside question and answer, as a Python literal: JSON has no tuples."""
    return repr((name, settings, _literal(metadata)))


def _literal(value: Any) -> Any:
    """The value in the types that Python has literals for."""
    if isinstance(value, Mapping):
        return {_literal(key): _literal(inner) for key, inner in value.items()}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(_literal(inner) for inner in value)
    if isinstance(value, bool | int):
        return bool(value) if isinstance(value, bool) else int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "item"):  # a scalar of numpy
        return _literal(value.item())
    return None if value is None else str(value)


@functools.lru_cache(maxsize=4)
def _scorer(name: str, settings: str) -> Any:
    return make(name, json.loads(settings), seed=0, size=1)


def score(answer: str, question: str, reference: str, pack: str) -> float:
    """What the data set's own scorer pays for an answer, 0 to 1.

    An answer that the scorer cannot read, so that it raises, is paid 0.
    """
    name, settings, metadata = ast.literal_eval(pack)
    scorer = _scorer(name, json.dumps(settings))
    entry = {"question": question, "answer": reference, "metadata": metadata}
    try:
        paid = float(scorer.score_answer(answer, entry))
    except (Exception, SystemExit):  # scorers read answers with `int`, `split` and worse
        return 0.0
    return min(1.0, max(0.0, paid)) if math.isfinite(paid) else 0.0


def score_restricted(answer: str, question: str, reference: str, pack: str) -> float:
    """`score` in a process that is restricted from its first call on."""
    restrict()
    return score(answer, question, reference, pack)


@functools.cache
def restrict() -> None:
    """Let nothing be evaluated but literals and formulas, and nothing be written or started.

    It holds for the rest of the process.
    """
    importlib.import_module("reasoning_gym")  # its modules are changed below
    import sympy.parsing.sympy_parser as parser

    for name, module in list(sys.modules.items()):
        if name.startswith("reasoning_gym.") and name not in PROBLEM_IS_CODE:
            module.__dict__["eval"] = ast.literal_eval
    evaluate = parser.eval_expr

    def evaluate_formula(code: str, local_dict: dict[str, Any], global_dict: dict[str, Any]) -> Any:
        refuse_code(code, global_dict | local_dict)
        return evaluate(code, local_dict, global_dict)

    parser.eval_expr = evaluate_formula
    sys.dont_write_bytecode = True  # or each import would be refused below
    sys.addaudithook(_refuse)


def refuse_code(code: str, functions: Mapping[str, Any]) -> None:
    """Refuse what is no formula, of the code that sympy's parser makes of a text.

    That is Python's, with all built-in functions: `__import__('os').system(...)` would run.
    Raises: ValueError, SyntaxError.
    """
    from sympy import Basic

    texts: set[int] = set()
    tree = ast.parse(code.strip(), mode="eval")
    for node in ast.walk(tree):  # a call comes before its arguments
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            function, name = functions.get(node.func.id), node.func.id
            if not (isinstance(function, type) and issubclass(function, Basic)):
                if name not in (*_FORMULA_FUNCTIONS, *_NAMED_BY_TEXT):
                    raise ValueError(f"`{name}` is not a function of mathematics")
            if name in _NAMED_BY_TEXT:
                texts |= {id(argument) for argument in node.args}
        elif isinstance(node, ast.Constant):
            if not isinstance(node.value, int | float | complex) and id(node) not in texts:
                raise ValueError("a text is not a formula")
        elif not isinstance(node, _FORMULA_NODES):
            raise ValueError(f"{type(node).__name__} is not part of a formula")


_FORMULA_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Tuple, ast.Name, ast.Load,
    ast.keyword, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook. Raises: PermissionError."""
    if event == "open":
        _, mode, flags = arguments
        writes = bool(set(mode or "") & set("wax+"))
        writes |= isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not writes:
            return
    elif not event.startswith(_FORBIDDEN):
        return
    raise PermissionError(f"a scorer of reasoning-gym may not do this: {event}")

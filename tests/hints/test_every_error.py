"""Every error that is raised, and every problem that is listed, has a hint.

Read in the source, by its syntax tree. Limits: a hint that a variable brings is taken for one; an
error class with an `__init__` of its own makes its hint itself, or is never shown.
"""

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.hints.collect import SOURCE

ROOT = "R1RecipesError"
WITHOUT = {
    "runs/lock.py": "the last of the differences has the hint for all of them",
    "report/samples.py": "its problems are those that a model was asked",
    "study/worker.py": "a trial that was pruned is no error of the user",
    "recipe/overrides.py": "a problem is passed on as it came",
    "recipe/loading.py": "a problem is passed on as it came",
}
"""File with problems that need no hint -> why."""


@cache
def _trees() -> dict[str, ast.Module]:
    paths = sorted(SOURCE.rglob("*.py"))
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in paths}


@cache
def _error_classes() -> dict[str, bool]:
    """Name of an error class -> whether its instances are made with a message and a hint."""
    classes = {ROOT: True, "Problem": True}
    nodes = [n for tree in _trees().values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    for _ in range(4):  # the depth of the tree of classes
        for node in nodes:
            if {ast.unparse(base) for base in node.bases} & classes.keys() - {"Problem"}:
                has_init = any(
                    isinstance(n, ast.FunctionDef) and n.name == "__init__" for n in node.body
                )
                classes[node.name] = node.name == "RunError" or not has_init
    return classes


def _hints(tree: ast.Module) -> Iterator[tuple[int, ast.expr | None]]:
    """Line and hint of each error or problem that is made; None where it has no hint."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, _, method = ast.unparse(call.func).removeprefix("errors.").partition(".")
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if not _error_classes().get(name) or method not in ("", "at") or "problems" in keywords:
            continue
        if any(isinstance(argument, ast.Starred) for argument in call.args):
            continue
        has_place = method == "at" or name == "Problem"
        placed = call.args[2] if has_place and len(call.args) > 2 else None
        yield call.lineno, keywords.get("hint", placed)


def _may_be_none(hint: ast.expr | None) -> bool:
    if isinstance(hint, ast.IfExp):
        return _may_be_none(hint.body) or _may_be_none(hint.orelse)
    if isinstance(hint, ast.BoolOp):
        return _may_be_none(hint.values[-1])
    return hint is None or (isinstance(hint, ast.Constant) and not hint.value)


@pytest.mark.parametrize("file", [file for file in _trees() if file not in WITHOUT])
def test_every_error_has_a_hint(file: str) -> None:
    without = [line for line, hint in _hints(_trees()[file]) if _may_be_none(hint)]
    assert not without, f"{file}: no hint in lines {without}"


def test_the_errors_are_seen() -> None:
    assert {"RecipeError", "PlanError", "RunError", "IsStudy", "Unreachable"} <= {
        name for name, is_plain in _error_classes().items() if is_plain
    }
    assert sum(1 for tree in _trees().values() for _ in _hints(tree)) > 400


@pytest.mark.parametrize("file", WITHOUT)
def test_what_is_left_out_has_no_hint(file: str) -> None:
    assert any(_may_be_none(hint) for _, hint in _hints(_trees()[file]))

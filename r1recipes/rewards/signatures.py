"""What shows of a user's reward without running it: whether it is a function, and how it is called.

Read from the syntax of the file. Limits: a name that is imported or assigned is taken as it is, and
columns are only checked where they are known.
"""

import ast
import re
from collections.abc import Collection, Iterator

from r1recipes.errors import Problem
from r1recipes.rewards.user_code import Code

GIVEN = ("prompts", "completions", "completion_ids")
"""Arguments that a reward of TRL's form gets beside the columns of the data."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def describe(code: Code) -> str:
    """The function as it is written: `dose(completion, row)`, or its name where that is all."""
    node = _definition(code)
    if not isinstance(node, _Function):
        return code.function
    return f"{code.function}({_shown(node.args)})"


def problems(name: str, code: Code, columns: Collection[str] | None) -> list[Problem]:
    """What is wrong with a function that exists. `name` is the reward's, `columns` are those of the
    data, with question and answer, or None where they are not known."""
    node = _definition(code)
    if node is None:
        return []
    if isinstance(node, ast.ClassDef):
        message = f"reward `{name}`: `{code.function}` is a class, not a function"
        return [Problem(message, hint="name a function that makes one and calls it")]
    if isinstance(node, ast.AsyncFunctionDef):
        message = f"reward `{name}`: `{code.function}` is `async`, and a reward is called as it is"
        return [Problem(message, hint="remove `async`")]
    return list(_of_parameters(name, node, columns))


def _of_parameters(
    name: str, node: ast.FunctionDef, columns: Collection[str] | None
) -> Iterator[Problem]:
    arguments = node.args
    parameters = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    required = parameters[: len(parameters) - len(arguments.defaults)]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    required += [argument.arg for argument, default in keywords if default is None]
    parameters += [argument.arg for argument in arguments.kwonlyargs]
    if "completion" in parameters:
        if len(required) > 2:
            message = f"reward `{name}` needs {len(required)} arguments: {', '.join(required)}"
            yield Problem(message, hint=f"`def {node.name}(completion, row)`: the rest is in `row`")
        return
    if "completions" not in parameters and arguments.kwarg is None:
        yield Problem(
            f"reward `{name}` takes ({_shown(arguments)})",
            hint=f"write `def {node.name}(completion, row)`, or TRL's form "
            f"`def {node.name}(prompts, completions, **columns)`",
        )
        return
    if columns is None:
        return
    missing = [p for p in required if p not in columns and p not in GIVEN]
    if missing:
        yield Problem(
            f"reward `{name}` needs the columns {', '.join(missing)}, which the data does not have",
            hint=f"it has {', '.join(columns)}",
        )


def _shown(arguments: ast.arguments) -> str:
    """The names of the parameters; their defaults may be of any size."""
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return ", ".join(names)


def _definition(code: Code) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None:
    """The last definition of the name at the top of the file; None where it is not defined there,
    or where something else may be its value."""
    definition: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None = None
    for node in ast.parse(code.source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name == code.function:
                definition = None if node.decorator_list else node
        elif any(isinstance(n, ast.Name) and n.id == code.function for n in _targets(node)):
            definition = None
    return definition


def _targets(node: ast.stmt) -> Iterator[ast.AST]:
    """Everything that a statement assigns to."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign):
            yield from inner.targets
        elif isinstance(inner, ast.AnnAssign | ast.AugAssign):
            yield inner.target


def likely_code(name: str) -> str | None:
    """The name of user code that was meant by `law:dose`, `law.py::dose`, `law.py.dose`,
    `law.py: dose` or `law.py`; None where none was."""
    parts = re.fullmatch(
        r"([^:]*?[\w.-])(\.py)?(?:\s*::?\s*|(?<=\.py)\.)([A-Za-z_]\w*)(\(\))?", name
    )
    if parts:
        return f"{parts[1].removesuffix('.py')}.py:{parts[3]}"
    return f"{name}:function" if name.endswith(".py") else None

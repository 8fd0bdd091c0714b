"""Rewards in a user's own file, "path/file.py:function": looked up, hashed, and run in a child.

The child is killed when a call hangs, and keeps the module loaded between calls. It is not a
sandbox: the code may do whatever its user may. The names of the parameters tell two forms apart:

    def reward(completion, row)                                one number for one completion
    def reward(completions, prompts, answer, ..., **kwargs)    TRL's: a list, one number each

`completion` is the text and `row` the data set's row with its "prompt". TRL's form gets the same as
from TRL, without what cannot cross a process: trainer_state, log_extra, log_metric, environments.
"""

import ast
import hashlib
import importlib.util
import inspect
import linecache
import math
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.config.suggest import nearest
from r1recipes.errors import RecipeError, listed
from r1recipes.machine.processes import Children

LOAD_LIMIT_S = 60.0
"""Seconds for importing a user's file, beside its calls. Assumed; torch takes about ten."""
_USER_CODE = re.compile(r"(?P<path>.+\.py):(?P<function>[A-Za-z_]\w*)", re.ASCII)
_NOT_SENT = ("trainer_state", "log_extra", "log_metric", "environments")


class Failed(Exception):
    """A call, or one row of it, that gave no reward.

    `kind` is one of timeout, raised, wrong_count, not_a_number; `message` follows the reward's
    name: "raised ValueError: ...".
    """

    paid: float | None = 0.0
    """What training pays for the row."""

    def __init__(self, kind: str, message: str):
        super().__init__(kind, message)  # both, so that it can be pickled
        self.kind = kind
        self.message = message


Paid = list[float | Failed | None]
"""One entry per completion; None means no opinion, as in TRL."""


@dataclass(frozen=True)
class Code:
    """A function of a user's file, with the bytes of the file: those that are hashed are run."""

    path: str
    function: str
    source: bytes

    @property
    def sha256(self) -> str:
        """The sha256 of the bytes, in hex. Files that it imports do not count."""
        return hashlib.sha256(self.source).hexdigest()


def is_user_code(name: str) -> bool:
    """Whether a reward's name means a user's own file: "path/file.py:function"."""
    return _USER_CODE.fullmatch(name) is not None


def user_code_path(name: str, base_dir: Path) -> tuple[Path, str]:
    """File and function of a reward's name; a relative path starts at the recipe's folder.

    Raises: RecipeError when the name is not one of user code.
    """
    match = _USER_CODE.fullmatch(name)
    if match is None:
        raise RecipeError(f"`{name}` does not name user code", hint="such as `my_rewards.py:dose`")
    return (base_dir / match["path"]).resolve(), match["function"]


def file_hash(path: Path) -> str:
    """The sha256 of a file, in hex. Raises: RecipeError when it cannot be read."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        scripts = sorted(file.name for file in path.parent.glob("*.py"))
        near = nearest(path.name, scripts, 0.6)
        hint = f"did you mean `{near}`?" if near else "the path starts at the recipe's folder"
        message = f"the reward file `{path}` cannot be read ({error.strerror})"
        raise RecipeError(message, hint=hint) from error


def code_sha256(name: str, base_dir: Path) -> str:
    """The sha256 of the file of a reward's name as it is now. Files that it imports do not count.

    Raises: RecipeError when it cannot be read.
    """
    return file_hash(user_code_path(name, base_dir)[0])


def look_up(name: str, base_dir: Path) -> Code:
    """The code of a reward's name, which is read but not run.

    Raises: RecipeError for a missing file, a syntax error, or an unknown function.
    """
    path, function = user_code_path(name, base_dir)
    source = _read(path)
    try:
        body = ast.parse(source, str(path)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = f"the reward file `{path}` is not valid Python: {error}"
        raise RecipeError(message, hint=f"`python -m py_compile {path}` shows the place") from error
    functions = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    # A name that is imported or assigned may be a function too; only running the file would tell.
    others = {n.id for n in ast.walk(ast.Module(body, [])) if isinstance(n, ast.Name)}
    others |= {a.asname or a.name for n in body if isinstance(n, ast.ImportFrom) for a in n.names}
    if function not in functions and function not in others:
        meant = nearest(function, functions, 0.6)
        hint = f"did you mean `{meant}`?" if meant else f"it has: {listed(functions) or 'none'}"
        raise RecipeError(f"reward `{name}`: the file has no function `{function}`", hint=hint)
    return Code(str(path), function, source)


class UserCode:
    """A user's reward, whose calls run in a child that can be killed."""

    def __init__(self, code: Code, *, time_limit_s: float):
        self.code = code
        self._time_limit_s = time_limit_s
        self._children = Children(1, quiet_stdout=True)
        self._is_loaded = False

    def pay(
        self,
        /,
        prompts: list[Any],
        completions: list[Any],
        columns: dict[str, Any],
        time_limit_s: float | None = None,
    ) -> Paid:
        """One call. An entry is Failed when its row failed. Raises: Failed when the call failed.

        The import of the file, with the first call and after a kill, has a separate limit.
        """
        limit_s = min(time_limit_s or self._time_limit_s, self._time_limit_s)
        self.load()
        sent = {key: value for key, value in columns.items() if key not in _NOT_SENT}
        args = (self.code, prompts, completions, sent)
        return self._run(_call, args, limit_s, _plural(len(completions), "completion"))

    def load(self) -> None:
        """Import the file in the child, unless it is there. Raises: Failed."""
        if not self._is_loaded:
            self._run(_load, (self.code,), LOAD_LIMIT_S, "importing its file")
            self._is_loaded = True

    def close(self) -> None:
        """Kill the child. A later call starts a new one."""
        self._children.close()
        self._is_loaded = False

    def _run(
        self, function: Callable[..., Any], args: tuple[Any, ...], limit_s: float, task: str
    ) -> Any:
        """What a function returns in the child. Raises: Failed."""
        # Twice the limit in total leaves room for the start of a child in place of a killed one.
        total_s = 2 * limit_s + LOAD_LIMIT_S
        (outcome,) = self._children.run(function, [args], limit_s=limit_s, total_s=total_s)
        if not isinstance(outcome, BaseException):
            return outcome
        if isinstance(outcome, Failed):
            raise outcome
        self._is_loaded = False  # the child is dead, and with it the module
        if isinstance(outcome, TimeoutError):
            raise Failed("timeout", f"did not return within {limit_s:g} s ({task})")
        raise Failed("raised", f"ended its process ({type(outcome).__name__}: {outcome})")


def numbers(values: Any, num_completions: int) -> Paid:
    """The values that a reward function returned, as one entry per completion.

    Raises: Failed (wrong_count) when it is not one value per completion.
    """
    try:
        entries = None if isinstance(values, str | bytes | dict) else list(values)
        count = f"a {type(values).__name__}" if entries is None else _plural(len(entries), "value")
    except TypeError:  # one number, or None, or a tensor without a dimension
        entries, count = None, "None" if values is None else "1 value"
    if entries is None or len(entries) != num_completions:
        raise Failed(
            "wrong_count",
            f"returned {count} for {_plural(num_completions, 'completion')}: "
            "it must return one number per completion",
        )
    return [_number(value) for value in entries]


def describe(error: BaseException, path: str | None = None) -> Failed:
    """An exception of a reward, with the last line of the file `path` in its traceback."""
    text = str(error).strip().split("\n")[0][:300]
    message = f"raised {type(error).__name__}" + (f": {text}" if text else "")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is not None and frame.filename == path]
    if own:
        message += f" ({Path(path or '').name} line {own[-1].lineno}: `{own[-1].line}`)"
    elif isinstance(error, SyntaxError):
        message += f" (line {error.lineno})"
    return Failed("raised", message)


def missing_columns(function: Callable[..., Any], columns: Collection[str]) -> list[str]:
    """The parameters without a default for which the data has no column; for TRL's form."""
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    return [name for name in required if name not in columns]


def refuse_missing_columns(function: Callable[..., Any], columns: Collection[str]) -> None:
    """Raises: Failed (raised) with the names of the columns that the data does not have."""
    missing = ", ".join(f"`{name}`" for name in missing_columns(function, columns))
    if missing:
        raise Failed("raised", f"needs the columns {missing}, which the data does not have")


def completion_text(completion: Any) -> str:
    """The text of a completion: a string as it is, or the last message of a list of messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):  # parts, as models for images have them
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def _number(value: Any) -> float | Failed | None:
    """The pay for one completion, or Failed where a function returned something else."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if math.isfinite(number):
        return number
    shown = f"{value!r:.40} ({type(value).__name__})"
    return Failed("not_a_number", f"returned {shown}: it must return a finite number or None")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_loaded: dict[Code, Callable[..., Any]] = {}
"""The functions of user code; filled in the child only."""


def _load(code: Code) -> None:
    """In the child: run the file's bytes once, with its folder on the path for its imports.

    The bytes come from the parent, so that a child that replaces a killed one runs the same code
    even if the file has changed.
    """
    if code in _loaded:
        return
    path = code.path
    sys.path.insert(0, str(Path(path).parent))
    name = Path(path).stem
    # A file with the name of a library must not replace the library.
    name = f"_user_reward_{name}" if name in sys.modules else name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        lines = importlib.util.decode_source(code.source).splitlines(keepends=True)
        linecache.cache[path] = (len(code.source), None, lines, path)  # for tracebacks
        exec(compile(code.source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # also an exit, or a Ctrl-C that nobody pressed
        raise describe(error, path) from None
    function = getattr(module, code.function, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise Failed("raised", f"is not a plain function of {Path(path).name}")
    _loaded[code] = function


def _call(code: Code, prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> Paid:
    """In the child: one call, in the form that the function's parameters show."""
    _load(code)
    function, path = _loaded[code], code.path
    parameters = inspect.signature(function).parameters
    if "completion" in parameters:
        return _call_per_row(function, path, prompts, completions, columns)
    if "completions" not in parameters and not _takes_any(parameters):
        raise Failed(
            "raised",
            f"takes ({', '.join(parameters)}): it must take (completion, row), or TRL's "
            "(prompts, completions, **columns)",
        )
    arguments = {"prompts": prompts, "completions": completions, **columns}
    refuse_missing_columns(function, arguments)
    if not _takes_any(parameters):
        arguments = {key: value for key, value in arguments.items() if key in parameters}
    try:
        values = function(**arguments)
    except BaseException as error:  # also an exit, or a Ctrl-C that nobody pressed
        raise describe(error, path) from None
    return numbers(values, len(completions))


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _call_per_row(
    function: Callable[..., Any],
    path: str,
    prompts: list[Any],
    completions: list[Any],
    columns: dict[str, Any],
) -> Paid:
    """One call for each completion, with its row if the function has a second parameter."""
    takes_row = len(inspect.signature(function).parameters) > 1
    paid: Paid = []
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        row = {key: value[index] for key, value in columns.items() if isinstance(value, list)}
        row = {"prompt": prompt} | row
        try:
            value = function(completion_text(completion), *([row] if takes_row else []))
        except BaseException as error:  # also an exit, or a Ctrl-C that nobody pressed
            paid.append(describe(error, path))
        else:
            paid.append(_number(value))
    return paid

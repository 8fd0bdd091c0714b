"""The errors that a user can cause, and the exit code of each.

The command line prints them as one short message with a hint; anything else is a defect and keeps
its traceback. Exit codes: 0 done, 1 the run failed, 2 the user's input, 130 stopped by the user.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_GIVEN = 300
"""Characters that a message shows of one thing that was given to it."""
MAX_LISTED = 20
"""Names that a message lists, such as the columns of a file."""
_LONG = re.compile(rf"`[^`]{{{MAX_GIVEN + 1},}}`|\"[^\"]{{{MAX_GIVEN + 1},}}\"")


def shorten(text: str) -> str:
    """`text`, or its beginning and its end where it has more than MAX_GIVEN characters."""
    return text if len(text) <= MAX_GIVEN else f"{text[: MAX_GIVEN - 103]} ... {text[-98:]}"


def listed(names: Iterable[str]) -> str:
    """Names for a message, of many the first MAX_LISTED: `a, b, c and 17 more`."""
    shown = [shorten(name) for name in names]
    rest = len(shown) - MAX_LISTED
    more = f" and {rest:,} more" if rest > 0 else ""
    return ", ".join(shown[:MAX_LISTED]) + more


def _shorten_quoted(text: str) -> str:
    """A message in which what stands between quotes, mostly a user's text, is not too long."""
    if len(text) <= MAX_GIVEN:
        return text
    return _LONG.sub(lambda match: match[0][0] + shorten(match[0][1:-1]) + match[0][-1], text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the user's input.

    `where` is `file:line:column`, a flag, or None; `hint` is a change that works. Of a long text
    between quotes, the message and the hint show the beginning and the end.
    """

    message: str
    where: str | None = None
    hint: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _shorten_quoted(self.message))
        if self.hint is not None:
            object.__setattr__(self, "hint", _shorten_quoted(self.hint))


class R1RecipesError(Exception):
    """Root of all errors that are reported without a traceback."""

    exit_code = 1

    def __init__(
        self, message: str = "", *, hint: str | None = None, problems: list[Problem] | None = None
    ):
        self.problems = problems or [Problem(message, hint=hint)]
        super().__init__("\n".join(p.message for p in self.problems))


class RecipeError(R1RecipesError, ValueError):
    """A recipe, a flag or the data is not valid; the error carries every problem."""

    exit_code = 2

    @classmethod
    def at(cls, where: str, message: str, hint: str | None = None) -> "RecipeError":
        """One problem with its place: a file, a flag, a reference."""
        return cls(problems=[Problem(message, where, hint)])


class PlanError(R1RecipesError, ValueError):
    """The recipe is valid but cannot run on this machine."""

    exit_code = 2


class RunError(R1RecipesError, RuntimeError):
    """A run failed; `kind` is one of oom, memory, nan, reward, disk, crash."""

    exit_code = 1

    def __init__(self, message: str, *, kind: str = "crash", hint: str | None = None):
        self.kind = kind
        super().__init__(message, hint=hint)


class Stopped(R1RecipesError):
    """The user stopped a run or a study; what was done is saved."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full; safetensors raises one that is not an OSError."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return os.strerror(errno.ENOSPC) in str(error)


@contextmanager
def full_disk(folder: Path, hint: str) -> Iterator[None]:
    """Reports a full disk with the folder and another way out. Raises: RunError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, R1RecipesError) or not is_full(error):
            raise
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise unwritable(folder, full, hint) from error


def unwritable(path: Path, error: OSError, hint: str = "name another place") -> R1RecipesError:
    """The error for an OSError of a write: either the place is a bad one, or the disk is full."""
    message = f"`{path}` cannot be written: {error.strerror or error}"
    if error.errno in FULL:
        return RunError(message, kind="disk", hint=f"free some space, or {hint}")
    return RecipeError(message, hint=hint)


def disk_error(error: OSError, folder: Path) -> RunError:
    """The error for an OSError of a write into a run folder."""
    hint = "pick a folder that can be written, with `--run-dir` or R1RECIPES_RUNS_DIR"
    if error.errno in FULL:
        hint = "free some space, then go on with `run --resume`"
    reason = error.strerror or str(error)
    return RunError(f"`{folder}` cannot be written: {reason}", kind="disk", hint=hint)

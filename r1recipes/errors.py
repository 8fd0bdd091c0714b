"""The errors that a user can cause, and the exit code of each.

The command line prints them as one short message with a hint; anything else is a defect and keeps
its traceback. Exit codes: 0 done, 1 the run failed, 2 the user's input, 130 stopped by the user.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the user's input.

    `where` is `file:line:column`, a flag, or None; `hint` is a change that works.
    """

    message: str
    where: str | None = None
    hint: str | None = None


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
    """A run failed; `kind` is one of oom, nan, reward, disk, crash."""

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

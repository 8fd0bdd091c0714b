"""The errors that a user can cause, and the exit code of each.

The command line prints them as one short message with a hint; anything else is a defect and keeps
its traceback. Exit codes: 0 done, 1 the run failed, 2 the user's input, 130 stopped by the user.
"""

import errno
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""What the system says of a name that is not that of what was expected there."""
MAX_PROBLEMS = 10
"""Problems of one error that are printed; the others are counted."""
MAX_GIVEN = 300
"""Characters that a message shows of one thing that was given to it."""
MAX_LISTED = 20
"""Names that a message lists, such as the columns of a file."""
MAX_MESSAGE = 700
"""Characters of a whole message; the longest of this package's own are shorter."""
_LONG = re.compile(
    rf"`[^`]{{{MAX_GIVEN + 1},}}`|\"[^\"]{{{MAX_GIVEN + 1},}}\"|\S{{{MAX_GIVEN + 1},}}"
)
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Characters that Python calls printable and that show nothing: fillers, joiners, variation
selectors (Default_Ignorable_Code_Point of Unicode 16; without the two that emoji are written with),
and the empty Braille pattern."""
_SPACES = "\xa0\u202f\u3000"
"""Spaces that are in common use and that Python does not call printable."""


def program() -> str:
    """The program as whoever started it would type it: `r1recipes`, or `python -m r1recipes` where
    it was started so, with the name of that Python but not its folder."""
    if Path(sys.argv[0]).parts[-2:] == ("r1recipes", "__main__.py"):
        return f"{Path(sys.orig_argv[0]).name} -m r1recipes"
    return "r1recipes"


def command(*arguments: str | Path) -> str:
    """A command of this program, for a hint: what follows its name is quoted for a shell."""
    return " ".join([program(), *(shlex.quote(str(argument)) for argument in arguments)])


def visible(text: str, *, lines: bool = False) -> str:
    """Foreign text, with everything escaped that controls a terminal, turns the direction of the
    text, or shows nothing. With `lines`, line breaks and tabs stay.

    The one function for whatever is printed or written into a page; its result is left as it is.
    """
    if lines:
        return "\n".join(_escaped(line, "\t") for line in text.split("\n"))
    return _escaped(text, "")


def _escaped(text: str, allowed: str) -> str:
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(
        char
        if char in _SPACES or char in allowed or (char.isprintable() and not _UNSEEN.match(char))
        else f"\\U{ord(char):08x}"  # as in TOML
        for char in text
    )


def shorten(text: str) -> str:
    """`text`, or its beginning and its end where it has more than MAX_GIVEN characters."""
    return _middle_out(text, MAX_GIVEN)


def _middle_out(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 103]} ... {text[-98:]}"


def listed(names: Iterable[str]) -> str:
    """Names for a message, of many the first MAX_LISTED and at most MAX_GIVEN characters of them:
    `a, b, c and 17 more`."""
    every = [visible(name) for name in names]
    shown: list[str] = []
    for name in every[:MAX_LISTED]:
        if shown and sum(len(one) + 2 for one in shown) + len(name) > MAX_GIVEN:
            break
        shown.append(shorten(name))
    rest = len(every) - len(shown)
    more = f" and {rest:,} more" if rest > 0 else ""
    return ", ".join(shown) + more


def presentable(text: str) -> str:
    """A message as one line that shows all of its characters, in which what was given is not too
    long: what stands between quotes, and a word."""
    text = visible(text.replace("\n", " ") if "\n" in text else text)
    if len(text) <= MAX_GIVEN:
        return text
    return _middle_out(_LONG.sub(_shortened_match, text), MAX_MESSAGE)


def _shortened_match(match: re.Match[str]) -> str:
    text = match[0]
    is_quoted = text[0] in '`"' and text[-1] == text[0]
    return text[0] + shorten(text[1:-1]) + text[-1] if is_quoted else shorten(text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the user's input.

    `where` is `file:line:column`, a flag, or None; `hint` is a change that works. Message and hint
    are made presentable: one line each, and of a long text the beginning and the end.
    """

    message: str
    where: str | None = None
    hint: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", presentable(self.message))
        if self.where is not None:  # whole, since flags are compared; what prints it shortens it
            object.__setattr__(self, "where", visible(self.where))
        if self.hint is not None:
            object.__setattr__(self, "hint", presentable(self.hint))


def first_problems(problems: list[Problem]) -> list[Problem]:
    """The first MAX_PROBLEMS, and one that counts the others."""
    rest = len(problems) - MAX_PROBLEMS
    if rest <= 1:  # a line that counts one other says less than that one
        return problems
    hint = "correct the others first; the next check shows more"
    message = f"and {rest:,} more problems" if problems[-1].hint != hint else "and more problems"
    return [*problems[:MAX_PROBLEMS], Problem(message, problems[MAX_PROBLEMS].where, hint)]


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


def unreadable(path: Path, error: OSError) -> RecipeError:
    """The error for an OSError of a file that the user named, and that cannot be read."""
    hint = "check the disk that it is on, or put back a copy"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = f"`chmod u+r {shlex.quote(str(path))}`, or ask its owner"
    return RecipeError.at(str(path), f"cannot be read: {error.strerror or error}", hint)


def system_error(error: OSError) -> R1RecipesError:
    """The error for an OSError that nothing more is known of: of the user's input where a name is
    to blame."""
    where = f"`{error.filename}`: " if error.filename else ""
    hint = "check the disk and the memory of this machine, then give the same command again"
    if error.errno in NO_NAME:
        return RecipeError(f"{where}{error.strerror}", hint="name another file or folder")
    if error.errno in FULL:
        hint = "free some space, then give the same command again"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = "name another place, or allow that it is read and written"
    return RunError(f"{where}{error.strerror or error}", kind="disk", hint=hint)


def disk_error(error: OSError, folder: Path) -> R1RecipesError:
    """The error for an OSError of a write into a run folder."""
    if error.errno in NO_NAME:
        return unwritable(folder, error)
    hint = "pick a folder that can be written, with `--run-dir` or R1RECIPES_RUNS_DIR"
    if error.errno in FULL:
        hint = f"free some space, then go on with `{command('run', '--resume')}`"
    reason = error.strerror or str(error)
    return RunError(f"`{folder}` cannot be written: {reason}", kind="disk", hint=hint)

"""An exception of any library -> the error that tells the user what it means.

The chain of causes is read, since engines wrap what happened. Limits: of an error that nobody has
seen before, only its first line and the place of its traceback.
"""

import errno
import os
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from r1recipes.errors import R1RecipesError, RunError, disk_error, is_full
from r1recipes.planning import out_of_memory
from r1recipes.planning.doctor import texts
from r1recipes.planning.plan import Plan

DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of the operating system that mean that a disk is full or cannot be written."""
KINDS = {"numbers": "nan", "disk": "disk"}
"""Subject of a cause -> kind of the error, where it has one of its own."""
ERROR_LINE = re.compile(r"\b(?:[\w.]+(?:Error|Exception)|Triton Error[^:]*): .+")
"""The line of a log in which a traceback ends."""
MAX_LOG_BYTES = 200_000
"""How much of a log's end is read; assumed to hold the traceback of a process that ended."""
NUM_FRAMES = 3
"""Innermost lines of code that are read for what they asked for, such as `pin_memory=True`."""


def classify(
    error: Exception,
    plan: Callable[[], Plan],
    phase: out_of_memory.Phase,
    *,
    folder: Path,
    log: Path,
) -> R1RecipesError:
    """The error that tells the user what an exception means. `plan`: reads the plan that was run,
    where it is needed; `folder`: what was being written; `log`: where the traceback is."""
    if isinstance(error, R1RecipesError):
        return error
    is_elsewhere = texts.subject_of(str(error)) in ("shared memory", "cache folder")
    if isinstance(error, OSError) and error.errno in DISK_ERRNOS and not is_elsewhere:
        return disk_error(error, Path(error.filename or folder))
    if is_full(error) and not is_elsewhere:
        return disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), folder)
    for one in _with_log(list(_chain(error)), log):
        if failure := _of_memory(one, plan, phase) or _of_machine(one, log):
            return failure
    text = f"{type(error).__name__}: {out_of_memory.telling_line(str(error))}"
    return RunError(text, kind="crash", hint=f"the traceback is in {log}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, then what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _with_log(chain: list[BaseException], log: Path) -> list[BaseException]:
    """A chain of causes, and where one says only that the engine ended, the errors of the log,
    last ones first, before it."""
    ended = [one for one in chain if texts.subject_of(f"{type(one).__name__}: {one}") == "engine"]
    if not ended:
        return chain
    others = [one for one in chain if one not in ended]
    return [*others, *map(RuntimeError, _errors_in(log)), *ended]


def _errors_in(log: Path) -> list[str]:
    """The lines of a log's end that name an error with a cause, last ones first."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - MAX_LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    matches = map(ERROR_LINE.search, reversed(lines))
    named = [match[0] for match in matches if match]
    return [line for line in named if texts.subject_of(line) != "engine"]


def _of_memory(
    error: BaseException, plan: Callable[[], Plan], phase: out_of_memory.Phase
) -> R1RecipesError | None:
    name, text = type(error).__name__, str(error)
    is_card = name == "OutOfMemoryError" or out_of_memory.is_out_of_memory(text)
    if not is_card or _asks_pinned(error) or _is_of_main_memory(text):
        return None
    cause = out_of_memory.explain(text, phase, plan())
    line = out_of_memory.telling_line(text)
    return RunError(
        f"out of memory, {cause.kind}: {line}", kind="oom", hint=f"try `{cause.change}`"
    )


def _is_of_main_memory(text: str) -> bool:
    return texts.subject_of(text) in texts.OF_MAIN_MEMORY


def _asks_pinned(error: BaseException) -> bool:
    """Whether the code that failed asked for pinned memory: the text alone does not tell."""
    frames = traceback.extract_tb(error.__traceback__)[-NUM_FRAMES:]
    return any("pin_memory" in (frame.line or "") or "pin_memory" in frame.name for frame in frames)


def _of_machine(error: BaseException, log: Path) -> R1RecipesError | None:
    text = f"{type(error).__name__}: {error}"
    if _asks_pinned(error) and out_of_memory.is_out_of_memory(text):
        text = f"pinned memory: {text}"
    cause = texts.cause_of(text)
    if cause is None:
        return None
    kind = "memory" if cause.subject in texts.OF_MAIN_MEMORY else KINDS.get(cause.subject, "crash")
    line = out_of_memory.telling_line(str(error)) or type(error).__name__
    mend = cause.mend if "`" in cause.mend else f"`{cause.mend}`"
    hint = f"{mend}; the traceback is in {log}"
    return RunError(f"{cause.sentence}: {line}", kind=kind, hint=hint)

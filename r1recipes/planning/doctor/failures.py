"""An exception of any library -> the error that tells the user what it means.

The chain of causes is read, since engines wrap what happened. Limits: of an error that nobody has
seen before, only its first line and the place of its traceback.
"""

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from r1recipes.errors import R1RecipesError, RunError, disk_error, is_full
from r1recipes.planning import out_of_memory
from r1recipes.planning.doctor import texts
from r1recipes.planning.plan import Plan

DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of the operating system that mean that a disk is full or cannot be written."""
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
    if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
        return disk_error(error, Path(error.filename or folder))
    if is_full(error):
        return disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), folder)
    chain = list(_chain(error))
    for one in chain:
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
    kind = "memory" if cause.subject in texts.OF_MAIN_MEMORY else "crash"
    line = out_of_memory.telling_line(str(error)) or type(error).__name__
    hint = f"`{cause.mend}`; the traceback is in {log}" if cause.mend else f"see {log}"
    return RunError(f"{cause.sentence}: {line}", kind=kind, hint=hint)

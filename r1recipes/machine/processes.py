"""Runs functions in child processes that can be killed: the one guard against code that hangs.

A child is spawned, so it has no CUDA context and no thread of its parent. It starts with the first
call and is kept for the next. Functions and arguments must be picklable. Time is limited (wall
clock, per call and in total) and, where asked, memory, and what a call prints. The processes that a
child started are killed with it, unless the parent was killed, or the child was while one of them
had left its group. This is not a sandbox: a child may read and write what its parent may.
"""

import atexit
import importlib
import io
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TextIO

from r1recipes.errors import RunError

START_LIMIT_S = 120.0
"""Seconds in which the first child must be up; assumed: its imports take about one second on an
idle machine."""
ORPHAN_GRACE_S = 5
"""Seconds past its limit after which a call ends by itself, in case its parent was killed."""

SET_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # PR_SET_... of linux/prctl.h
MAX_PRINTED = 2**16
"""Characters that a call may print; assumed: a log of 1,000 steps then has at most 64 MB."""

log = logging.getLogger(__name__)


class _Process(SpawnProcess):
    """A child that, when it is killed or dies, takes along the processes of its group."""

    _is_group_ended = False

    def terminate(self) -> None:
        self._end_group()
        super().terminate()  # of a child so young that it has no group yet

    def is_alive(self) -> bool:
        is_alive = super().is_alive()
        if not is_alive:  # it died by itself
            self._end_group()
        return is_alive

    def _end_group(self) -> None:
        if self._is_group_ended or self.pid is None or not hasattr(os, "killpg"):
            return
        _kill_below(self.pid)
        try:
            os.killpg(self.pid, signal.SIGKILL)
            self._is_group_ended = True
        except (ProcessLookupError, PermissionError):  # macOS: the latter for a dead leader
            self._is_group_ended = not super().is_alive()  # later its number may be another's


def _kill_below(pid: int) -> None:
    """Kill every process below this one, also those that have left its group."""
    for _ in range(10):  # one of them may start another meanwhile
        below, index = [pid], 0
        while index < len(below):
            for path in Path(f"/proc/{below[index]}/task").glob("*/children"):
                with suppress(OSError):  # it has ended
                    below += map(int, path.read_text().split())
            index += 1
        if len(below) == 1:
            return
        for each in below[1:]:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        if pid == os.getpid():  # which has them as zombies else
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


class _Context(SpawnContext):
    Process = _Process


class Children:
    """A few children and the calls they make. Usable from any thread; one batch at a time."""

    def __init__(
        self,
        num_workers: int,
        *,
        imports: tuple[str, ...] = (),
        memory_bytes: int | None = None,
        quiet_stdout: bool = False,
    ):
        """`imports` are modules that each child imports at its start, outside any time limit."""
        self._num_workers = num_workers
        self._prepare_args = (imports, memory_bytes, quiet_stdout)
        self._pool: Any = None
        self._lock = threading.RLock()

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        limit_s: float,
        total_s: float,
    ) -> list[Any]:
        """Call `function(*args)` for each `args` of `calls`. Returns the outcomes, in their order.

        An outcome is the value that was returned, or the exception: TimeoutError for a call that
        was killed after `limit_s` or was not done when all had taken `total_s` seconds,
        pebble.ProcessExpired for a child that died. Raises: RunError when no child can start.
        """
        with self._lock:
            pool = self._started()
            deadline = time.monotonic() + total_s
            futures = [
                pool.schedule(_guarded, (function, args, limit_s), timeout=limit_s)
                for args in calls
            ]
            try:
                return [_outcome(future, deadline) for future in futures]
            finally:  # when the time is over, and when the user interrupts the wait
                if not all(future.done() for future in futures) or not pool.active:
                    self.close()  # kills what still runs; the next batch starts anew

    def close(self) -> None:
        """Kill and reap every child; waits for a batch that is at work in another thread.

        It may be called twice. A later `run` starts anew.
        """
        with self._lock:
            if self._pool is not None:
                self._pool.stop()
                self._pool.join()
                self._pool = None

    def _started(self) -> Any:
        from pebble import ProcessPool  # imported late: the command line must stay quick

        if self._pool is not None and not self._pool.active:
            self.close()  # every child died between two batches, for example of the OOM killer
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self._num_workers,
                initializer=_prepare,
                initargs=self._prepare_args,
                context=_Context(),
            )
            first = self._pool.schedule(_up)
            failed = _outcome(first, time.monotonic() + START_LIMIT_S)
            if failed is not None:
                self.close()
                raise RunError(
                    f"no child process can be started ({failed!r})",
                    kind="reward",
                    hint='a script of your own needs `if __name__ == "__main__":` around its calls',
                )
        return self._pool


class Stoppable:
    """One child for calls that may have no end; it starts with the first, and ends with `close`, or
    with this process."""

    def __init__(self, imports: tuple[str, ...], memory_bytes: int):
        self._arguments = (imports, memory_bytes)
        self._children: Children | None = None

    def call(
        self, function: Callable[..., Any], *arguments: Any, limit_s: float, start_s: float
    ) -> Any:
        """What `function(*arguments)` returns, or the exception, as an outcome of `Children.run`.

        `start_s` is added to the limit for the start of the child. Raises: RunError.
        """
        if self._children is None:
            imports, memory_bytes = self._arguments
            self._children = Children(
                1, imports=imports, memory_bytes=memory_bytes, quiet_stdout=True
            )
            atexit.register(self.close)
        total_s = limit_s + start_s
        (outcome,) = self._children.run(function, [arguments], limit_s=limit_s, total_s=total_s)
        return outcome

    def close(self) -> None:
        if self._children is not None:
            self._children.close()
            self._children = None
            atexit.unregister(self.close)


def _outcome(future: Any, deadline: float) -> Any:
    try:
        return future.result(timeout=max(0.0, deadline - time.monotonic()))
    except BrokenExecutor as error:
        log.warning("a child process died: %r", error)
        return error
    except Exception as error:  # whatever the function raised in the child is an outcome
        return error


def _up() -> None:
    return None


def _guarded(function: Callable[..., Any], args: tuple[Any, ...], limit_s: float) -> Any:
    """In the child: the kernel ends a call that is too long, should the parent be gone."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(limit_s) + ORPHAN_GRACE_S)
    _Brief.left = MAX_PRINTED
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:  # in the parent it would be a Ctrl-C of the user's, or an exit
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _show_exit() -> None:
    """In the child: exit with 1 instead of 0, which pebble takes for a call that still runs, and
    take along what it has started."""
    leave, own_pid = os._exit, os.getpid()

    def leave_visibly(status: int) -> NoReturn:
        if os.getpid() == own_pid:
            _kill_below(own_pid)
        leave(status or int(os.getpid() == own_pid))  # the processes it forks may end with 0

    os._exit = leave_visibly


class _Brief(io.TextIOBase):
    """In the child: Python's stdout and stderr, on which a call prints `MAX_PRINTED` characters."""

    left: ClassVar[int] = MAX_PRINTED

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        if _Brief.left > 0:
            self._stream.write(text[: _Brief.left])
            _Brief.left -= len(text)
            if _Brief.left <= 0:
                self._stream.write("\n... what else this call prints is left out\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def _prepare(imports: tuple[str, ...], memory_bytes: int | None, quiet_stdout: bool) -> None:
    """In the child, once. pebble's SIGTERM handler waits for long C calls (measured: +3 s each)."""
    if hasattr(os, "setsid"):
        os.setsid()  # a new group, which is killed as one and does not get the parent's Ctrl-C
    if sys.platform == "linux":
        _prctl(SET_CHILD_SUBREAPER, 1)  # a daemon stays below this process
    _show_exit()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if quiet_stdout:  # it belongs to the command line
        os.dup2(2, 1)
        sys.stdout = sys.stderr = _Brief(sys.stderr)
    for name in imports:
        importlib.import_module(name)
    if memory_bytes is not None and sys.platform == "linux":
        import resource

        with open("/proc/self/statm") as statm:
            now_bytes = int(statm.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = now_bytes + memory_bytes
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value)


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent dies; exit if that is dead already."""
    _prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def obey_parent() -> None:
    """In a child of multiprocessing: end with the parent, and leave Ctrl-C and stdout to it.

    Unsloth and vLLM print to stdout, which belongs to the command line.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        die_with(parent.pid)
        os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

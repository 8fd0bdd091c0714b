"""Runs functions in child processes that can be killed: the one guard against code that hangs.

A child is spawned, so it has no CUDA context and no thread of its parent. It starts with the first
call and is kept for the next. Functions and arguments must be picklable. Time is limited (wall
clock, per call and in total) and, where asked, memory. The processes that a child started are
killed with it, unless they left its group or the parent was killed. This is not a sandbox: a child
may read and write what its parent may.
"""

import atexit
import importlib
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
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NoReturn

from r1recipes.errors import RunError

START_LIMIT_S = 120.0
"""Seconds in which the first child must be up; assumed: its imports take about one second on an
idle machine."""
ORPHAN_GRACE_S = 5
"""Seconds past its limit after which a call ends by itself, in case its parent was killed."""

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
        try:
            os.killpg(self.pid, signal.SIGKILL)
            self._is_group_ended = True
        except (ProcessLookupError, PermissionError):  # macOS: the latter for a dead leader
            self._is_group_ended = not super().is_alive()  # later its number may be another's


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
    try:
        return function(*args)
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _show_exit() -> None:
    """In the child: exit with 1 instead of 0, which pebble takes for a call that still runs."""
    leave, own_pid = os._exit, os.getpid()

    def leave_visibly(status: int) -> NoReturn:
        leave(status or int(os.getpid() == own_pid))  # the processes it forks may end with 0

    os._exit = leave_visibly


def _prepare(imports: tuple[str, ...], memory_bytes: int | None, quiet_stdout: bool) -> None:
    """In the child, once. pebble's SIGTERM handler waits for long C calls (measured: +3 s each)."""
    if hasattr(os, "setsid"):
        os.setsid()  # a new group, which is killed as one and does not get the parent's Ctrl-C
    _show_exit()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if quiet_stdout:
        sys.stdout = sys.stderr  # stdout belongs to the command line
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


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent dies; exit if that is dead already."""
    import ctypes

    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
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

"""Runs functions in child processes that can be killed: the one guard against code that hangs.

A child is spawned, so it has no CUDA context and no thread of its parent; it starts with the first
call and is kept for the next. Functions and arguments must be picklable. The limits are on time
(wall clock, per call and in total) and, where asked, on memory. What a child started is killed with
it, unless it left the group or the parent was killed. Not a sandbox: a child may read and write
what its parent may.
"""

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
from typing import Any

from r1recipes.errors import RunError

START_LIMIT_S = 120.0
"""Seconds in which a first child must be up; assumed, imports take about one on an idle machine."""
ORPHAN_GRACE_S = 5
"""Seconds past its limit after which a call ends itself, in case its parent was killed."""

log = logging.getLogger(__name__)


class _Process(SpawnProcess):
    """A child that takes the processes it started, which are in its group, with it."""

    _is_group_ended = False

    def terminate(self) -> None:
        self._end_group()
        super().terminate()  # of a child so young that it has no group yet

    def is_alive(self) -> bool:
        is_alive = super().is_alive()
        if not is_alive:  # it died of itself
            self._end_group()
        return is_alive

    def _end_group(self) -> None:
        if self._is_group_ended or not hasattr(os, "killpg"):
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
        self, function: Callable, calls: Sequence[tuple], *, limit_s: float, total_s: float
    ) -> list[Any]:
        """Call `function(*args)` for each args of `calls`; what came out, in their order.

        An outcome is the value returned, or the exception instance: TimeoutError for a call that
        was killed after `limit_s` or not done when all together had taken `total_s` seconds,
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
            finally:  # at the end of the time, and when the user interrupts the wait
                if not all(future.done() for future in futures) or not pool.active:
                    self.close()  # what still runs dies; the next batch starts anew

    def close(self) -> None:
        """Kill and reap every child, after the batch at work in another thread if there is one.

        Safe to call twice; a later `run` starts anew.
        """
        with self._lock:
            if self._pool is not None:
                self._pool.stop()
                self._pool.join()
                self._pool = None

    def _started(self) -> Any:
        from pebble import ProcessPool  # imported late: the command line must stay quick

        if self._pool is not None and not self._pool.active:
            self.close()  # every child died between two batches, such as by the OOM killer
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
                    f"no child process can be started to score completions ({failed!r})",
                    kind="reward",
                    hint='a script of your own needs `if __name__ == "__main__":` around its calls',
                )
        return self._pool


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


def _guarded(function: Callable, args: tuple, limit_s: float) -> Any:
    """In the child: the kernel ends it should the parent, who kills it in time, be gone."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(limit_s) + ORPHAN_GRACE_S)
    try:
        return function(*args)
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _show_exit() -> None:
    """In the child: pebble takes an end with status 0 for a call that still runs."""
    leave, own_pid = os._exit, os.getpid()

    def leave_visibly(status: int) -> None:
        leave(status or int(os.getpid() == own_pid))  # what it forks may end with 0

    os._exit = leave_visibly


def _prepare(imports: tuple[str, ...], memory_bytes: int | None, quiet_stdout: bool) -> None:
    """In the child, once. pebble's SIGTERM handler waits for long C calls (measured: +3 s each)."""
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, to be killed as one; Ctrl-C is for the parent alone
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
    """Let the system kill this process when its parent dies, and notice if that has happened."""
    import ctypes

    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def obey_parent() -> None:
    """In a child of multiprocessing: it ends with its parent, and leaves Ctrl-C and stdout to it.

    Unsloth and vLLM print to stdout, which belongs to the command line.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        die_with(parent.pid)
        os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""The terminal of a run: libraries' output goes to a file, Ctrl-C waits for a checkpoint, and a
stage that takes too long says where it is."""

import io
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r1recipes.machine.files import no_link
from r1recipes.machine.units import duration

ANSWER_LIMIT_S = 2.0
"""Seconds that a run waits at its end for an answer that is being printed; assumed."""
ONE_PRESS_S = 1.0
"""Seconds within which signals are one request; assumed. `timeout` and launchers such as `uv run`
pass a signal on that the process has had already, as a member of its group."""
AFTER_STEP = "Stopping after this step; Ctrl-C again stops at once"
AT_ONCE = "Stopping"


class Interrupts:
    """Ctrl-C, SIGTERM, SIGHUP: a stage that can save its state does so after its step and stops,
    any other stage stops at once.

    A thread answers on the screen. Python runs a signal handler only between two bytecodes, so a
    step that spends a minute in C would delay the answer by a minute; and a handler must not print,
    because it may have interrupted a print.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.requested = False
        self._handled_at = -ONE_PRESS_S
        self._graceful = False
        self._answered = False
        self._answering = threading.Lock()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # as `nohup` asks for
            self._previous[number] = signal.signal(number, self._handle)
        self._signals, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._answer_signals, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        os.close(self._wakeup)
        self._thread.join(ANSWER_LIMIT_S)
        if not self._thread.is_alive():
            os.close(self._signals)

    def stop_if_requested(self) -> None:
        """Raises: KeyboardInterrupt after a stage that was asked to stop after its step."""
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._handled_at < ONE_PRESS_S:
            return
        self._handled_at = now
        if not self._graceful or self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def _answer_signals(self) -> None:
        """Read the number of each signal as C's handler writes it, and answer those of a stop."""
        is_first, answered_at = True, -ONE_PRESS_S
        while numbers := os.read(self._signals, 64):
            if not self._previous.keys() & set(numbers):
                continue
            now = time.monotonic()
            if now - answered_at < ONE_PRESS_S:
                continue
            if is_first and self._graceful:
                self._say_after_step()
            else:
                self.say(AT_ONCE)
            is_first, answered_at = False, now

    def _say_after_step(self) -> None:
        """Say it once: the thread and `asked` may both want to."""
        with self._answering:
            if not self._answered:
                self._answered = True
                self.say(AFTER_STEP)

    def asked(self) -> bool:
        """Whether to stop after this step."""
        if self.requested:  # the thread says it, unless a library has taken the wakeup descriptor
            self._say_after_step()
        return self.requested

    @contextmanager
    def after_this_step(self) -> Iterator[None]:
        """A stage that asks `asked` after each step, and saves its state when it stops."""
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False


@contextmanager
def warned_when_slow(
    limit_s: float, log: Path, say: Callable[[str], None], activity: str
) -> Iterator[None]:
    """Say that `activity` has taken longer than `limit_s` seconds, and write to the log where every
    thread is: code that hangs prints nothing."""

    def warn() -> None:
        with open(log, "a", opener=no_link) as file:
            file.writelines(_where_threads_are())
        say(
            f"{activity} has taken {duration(limit_s)}: it is downloading, or it hangs; "
            f"the end of {log} shows where it is"
        )

    timer = threading.Timer(limit_s, warn)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _where_threads_are() -> Iterator[str]:
    """The stack of every thread, the main one last, where the end of a log is read; `faulthandler`
    stops after 100 threads, before it comes to the main one."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sys._current_frames()
    for ident in sorted(frames, key=lambda ident: (ident == main, ident)):
        yield f"\nThread {names.get(ident, ident)} (most recent call last):\n"
        yield from traceback.format_stack(frames[ident])


class Capture:
    """Sends what libraries write to stdout and stderr, also from C, into a file."""

    _file: io.RawIOBase | io.BufferedIOBase

    def __enter__(self) -> "Capture":
        sys.stdout.flush()
        sys.stderr.flush()
        self._descriptors = [os.dup(1), os.dup(2)]
        self._streams = sys.stdout, sys.stderr
        self._file = tempfile.TemporaryFile("w+b")
        # Also Python's streams, which a notebook or a test may have replaced.
        copy = os.dup(self._file.fileno())
        sys.stdout = sys.stderr = os.fdopen(copy, "w", buffering=1, errors="replace")
        self._redirect()
        return self

    def _redirect(self) -> None:
        for number in (1, 2, sys.stdout.fileno()):
            os.dup2(self._file.fileno(), number)

    def move_to(self, path: Path) -> None:
        """Move what was captured so far to the end of `path`, and write there from now on."""
        sys.stdout.flush()
        captured = self._file
        captured.seek(0)
        self._file = open(path, "ab", buffering=0, opener=no_link)
        self._file.write(captured.read())
        self._redirect()
        captured.close()

    def __exit__(self, *exception: Any) -> None:
        stream, (sys.stdout, sys.stderr) = sys.stdout, self._streams
        for number, saved in zip((1, 2), self._descriptors, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        for file in (stream, self._file):
            with suppress(OSError):  # the rest that it writes does not fit on a full disk
                file.close()


class Screen(io.TextIOBase):
    """The real stdout, for the view of a run.

    It goes silent when it can no longer be written: a closed terminal or `| head` must not end
    hours of training.
    """

    def __init__(self) -> None:
        try:
            self._file = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
        except OSError:  # stdout is closed
            self._file = open(os.devnull, "w")

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, ValueError):
            lost, self._file = self._file, open(os.devnull, "w")
            with suppress(OSError):
                lost.close()

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()

"""The terminal of a run: libraries' output goes to a file, and Ctrl-C waits for a checkpoint."""

import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Interrupts:
    """Ctrl-C, SIGTERM, SIGHUP: training saves a checkpoint first, any other stage stops at once."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.requested = self._is_announced = False
        self._graceful = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # as `nohup` asks for
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: Any) -> None:
        if not self._graceful or self.requested:
            raise KeyboardInterrupt
        self.requested = True  # nothing is printed here: a print may just be under way

    def asked(self) -> bool:
        """Whether to stop after this step; the first time, the user is told."""
        if self.requested and not self._is_announced:
            self._is_announced = True
            self.say("Stopping after this step; Ctrl-C again stops at once")
        return self.requested

    @contextmanager
    def after_this_step(self) -> Iterator[None]:
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False


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
        self._file = open(path, "ab", buffering=0)
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

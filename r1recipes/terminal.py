"""What a run does to its terminal: libraries' output goes to a file, Ctrl-C waits for a save."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Interrupts:
    """Ctrl-C and SIGTERM: training saves a checkpoint first, any other stage stops at once."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.requested = False
        self._graceful = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: Any) -> None:
        if not self._graceful or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.say("Stopping after this step; Ctrl-C again stops at once")

    @contextmanager
    def after_this_step(self) -> Iterator[None]:
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False


class Capture:
    """Sends what libraries write to stdout and stderr, also from C, into a file."""

    def __enter__(self) -> "Capture":
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = [os.dup(1), os.dup(2)]
        self._file = tempfile.TemporaryFile("w+b")
        self._redirect(self._file.fileno())
        return self

    def _redirect(self, fd: int) -> None:
        os.dup2(fd, 1)
        os.dup2(fd, 2)

    def move_to(self, path: Path) -> None:
        """From here on write to `path`, after what was captured so far."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._file.seek(0)
        early = self._file.read()
        self._file.close()
        self._file = open(path, "ab")
        self._file.write(early)
        self._file.flush()
        self._redirect(self._file.fileno())

    def __exit__(self, *exception: Any) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        self._file.close()

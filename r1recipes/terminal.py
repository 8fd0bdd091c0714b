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
        self._descriptors = [os.dup(1), os.dup(2)]
        self._streams = sys.stdout, sys.stderr
        self._file = tempfile.TemporaryFile("w+b")
        # Python's own streams too: a notebook or a test has put its own in their place.
        own = os.dup(self._file.fileno())
        sys.stdout = sys.stderr = os.fdopen(own, "w", buffering=1, errors="replace")
        self._redirect()
        return self

    def _redirect(self) -> None:
        for number in (1, 2, sys.stdout.fileno()):
            os.dup2(self._file.fileno(), number)

    def move_to(self, path: Path) -> None:
        """From here on write to `path`, after what was captured so far."""
        sys.stdout.flush()
        early = self._file
        early.seek(0)
        self._file = open(path, "ab", buffering=0)
        self._file.write(early.read())
        self._redirect()
        early.close()

    def __exit__(self, *exception: Any) -> None:
        sys.stdout.close()
        sys.stdout, sys.stderr = self._streams
        for number, saved in zip((1, 2), self._descriptors, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        self._file.close()

"""The most memory of a card that a run took, read from the NVIDIA driver while it goes on.

A thread reads every few milliseconds how much of the card is in use; what others used before the
run began is taken off. Limits: what others take later is counted as ours; shorter peaks than a
reading are missed. Without a card nothing is measured.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from r1recipes.machine import gpu

SAMPLE_S = 0.02


class Meter:
    """Measures from `with` to its end; `peak_bytes` is what was measured so far.

    `before`: bytes that others use, where an earlier run of this process has loaded something.
    """

    def __init__(self, enabled: bool, before: int | None = None):
        self._enabled = enabled
        self.before = before
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._most = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        card = gpu.current() if self._enabled else None
        if card is None:
            return self
        try:
            read = self._stack.enter_context(gpu.memory_reader(card))
            self._most = read()
        except gpu.NoDriver:
            return self
        if self.before is None:
            self.before = self._most
        self._thread = threading.Thread(target=self._watch, args=(read,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self._thread:
            self._thread.join()
        self._stack.close()

    @property
    def peak_bytes(self) -> int | None:
        """The most that was in use so far beyond what was before; None when nothing is measured."""
        return self._most - (self.before or 0) if self._thread else None

    def _watch(self, read: Callable[[], int]) -> None:
        try:
            while not self._end.wait(SAMPLE_S):
                self._most = max(self._most, read())
        except gpu.NoDriver:  # the card was lost: what was measured stays
            return

"""What a run takes: the most memory of a card, and the time of its parts.

A thread reads every few milliseconds from the NVIDIA driver how much of the card is in use; what
others used before the run began is taken off. What others take later is counted as ours, and
`shared` says that there were others. Limits: a container may hide them; shorter peaks than a
reading are missed. Without a card no memory is measured.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

from r1recipes.machine import gpu

SAMPLE_S = 0.02
PROCESSES_S = 1.0
"""Seconds between two looks at the processes on the card (chosen: each takes about 1 ms)."""


class Meter:
    """Measures from `with` to its end; `peak_bytes` is what was measured so far.

    `before`: bytes that others use, where an earlier run of this process has loaded something.
    """

    def __init__(self, enabled: bool, before: int | None = None):
        self._enabled = enabled
        self.before = before
        self.shared = False
        """Whether a second process has computed on the card meanwhile."""
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
        self._thread = threading.Thread(target=self._watch, args=(card, read), daemon=True)
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

    def _watch(self, card: gpu.Gpu, read: Callable[[], int]) -> None:
        looked = 0.0
        try:
            while not self._end.wait(SAMPLE_S):
                self._most = max(self._most, read())
                if not self.shared and time.monotonic() - looked > PROCESSES_S:
                    looked = time.monotonic()
                    # One of them is this one, whose number in a container is another.
                    self.shared = len(gpu.processes(card)) > 1
        except gpu.NoDriver:  # the card was lost: what was measured stays
            return


TOTAL = "total"
"""The name of the whole time among those of its parts."""


class Stopwatch:
    """Seconds of the parts of a run that are named, and of the whole, over all its attempts."""

    def __init__(self, began: float | None = None):
        """`began`: reading of time.monotonic() at which the attempt began; without it, now."""
        self._began = time.monotonic() if began is None else began
        self._spent: dict[str, float] = {}

    def go_on(self, earlier: Mapping[str, float]) -> None:
        """Count on from what earlier attempts have read."""
        for name, seconds in earlier.items():
            self.add(name, seconds)

    def add(self, name: str, seconds: float) -> None:
        """Add to a part, or with `TOTAL` to the whole."""
        self._spent[name] = self._spent.get(name, 0.0) + max(0.0, seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the context to a part, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)

    def rest(self, name: str) -> None:
        """Add to a part the time of this attempt that no part has, up to now."""
        self.add(name, time.monotonic() - self._began - sum(self._spent.values()))

    def read(self) -> dict[str, float]:
        """Seconds by part, and of the whole up to now."""
        spent = {name: round(seconds, 2) for name, seconds in self._spent.items()}
        total = self._spent.get(TOTAL, 0.0) + time.monotonic() - self._began
        return spent | {TOTAL: round(total, 2)}

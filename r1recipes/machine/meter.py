"""The most memory of a card that a run took, read from the NVIDIA driver while it goes on.

A thread reads every few milliseconds how much of the card is in use; what others used before the
run began is taken off. Limits: what others take later is counted as ours; shorter peaks than a
reading are missed. Without a card nothing is measured.
"""

import ctypes
import threading
from typing import Self

from r1recipes.machine import gpu

SAMPLE_S = 0.02


class _Memory(ctypes.Structure):
    """nvmlMemory_t of nvml.h, version 1."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Meter:
    """Measures from `with` to its end, or to `peak_bytes`; `before` is what others use, where an
    earlier run of this process has loaded something."""

    def __init__(self, enabled: bool, before: int | None = None):
        self._enabled = enabled
        self.before = before
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._most = 0

    def __enter__(self) -> Self:
        used = _reader() if self._enabled else None
        if used:
            self._most = used()
            if self.before is None:
                self.before = self._most
            self._thread = threading.Thread(target=self._watch, args=(used,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    @property
    def peak_bytes(self) -> int | None:
        """The most that was in use so far beyond what was before; None when nothing is measured."""
        return self._most - (self.before or 0) if self._thread else None

    def _watch(self, used) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._most = max(self._most, used())


def _reader():
    """A function that gives the bytes in use on the card that a run takes, or None."""
    card = gpu.current_gpu()
    if card is None:
        return None
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, memory = ctypes.c_void_p(), _Memory()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(card.index, ctypes.byref(handle)):
        return None

    def used() -> int:
        nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        return memory.used

    return used

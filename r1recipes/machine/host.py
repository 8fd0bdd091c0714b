"""The processor and the main memory of this machine, and one line that says what it is."""

import os

from r1recipes.machine import gpu
from r1recipes.machine.units import gib


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> str:
    """One line such as `2 cores, 24 GiB, no GPU`."""
    card = gpu.current()
    if card:
        return f"{card.name}, {gib(card.total_bytes, 0)} GiB, driver {card.driver}"
    return f"{cores()} cores, {gib(memory_bytes(), 0)} GiB, no GPU"

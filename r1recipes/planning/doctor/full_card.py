"""The figures in a message of torch that a card is full: what was asked for, what lies unused, and
what other processes hold.

Limits: messages of torch's caching allocator (c10/cuda/CUDACachingAllocator.cpp), in the form since
2.1 and the one before. A container hides whose process is whose, so there the one whose memory is
nearest to the allocator's own counts as this one.
"""

import re
from dataclasses import dataclass

from r1recipes.machine.units import GIB

LEAST_BYTES = GIB
"""What others must hold, or pieces must sum up to, to be named as the cause; assumed. A desktop
holds less, and so do the pieces of a card that is merely full."""
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = r"([\d.]+) (bytes|[KMGT]iB)"
_TRIED = re.compile(rf"Tried to allocate {_SIZE}")
_UNUSED = re.compile(rf"{_SIZE} is reserved by PyTorch but unallocated")
_ALLOCATED = re.compile(rf"Of the allocated memory {_SIZE} is allocated by PyTorch")
_OWN = re.compile(rf"this process has {_SIZE} memory in use")
_PROCESS = re.compile(rf"Process \d+ has {_SIZE} memory in use")
_OLD_FORM = re.compile(
    rf"{_SIZE} total capacity; {_SIZE} already allocated; {_SIZE} free; {_SIZE} reserved in total"
)


@dataclass(frozen=True)
class Figures:
    """What a message says, in bytes."""

    tried_bytes: int
    unused_bytes: int
    """Reserved by torch, but in pieces that were too small."""
    others_bytes: int
    """In use by other processes."""


def read(message: str) -> Figures | None:
    """The figures of a message; None where it is not torch's."""
    tried = _bytes(_TRIED, message)
    if tried is None:
        return None
    if old := _OLD_FORM.search(message):
        total, allocated, free, reserved = (
            _size(old[i], old[i + 1]) for i in range(1, len(old.groups()), 2)
        )
        return Figures(tried, reserved - allocated, total - free - reserved)
    unused = _bytes(_UNUSED, message) or 0
    processes = sorted(_size(*match) for match in _PROCESS.findall(message))
    if not _OWN.search(message) and processes:
        own = (_bytes(_ALLOCATED, message) or 0) + unused
        processes.remove(min(processes, key=lambda size: abs(size - own)))
    return Figures(tried, unused, sum(processes))


def _bytes(pattern: re.Pattern[str], message: str) -> int | None:
    match = pattern.search(message)
    return _size(match[1], match[2]) if match else None


def _size(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])

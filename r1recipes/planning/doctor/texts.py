"""Texts of errors that are about the machine and not about the recipe: the cause, and its mend.

Texts are of torch, CUDA, Ray, glibc, numpy, pyarrow, Linux and notebook services. What is about the
memory of the card is `out_of_memory`'s; numbers, kernels and tokenizers are `software`'s, files and
the network `files`'s, drivers and packages `stack`'s, and `cause_of` reads all three. Limits:
English messages; one cause for each text, the first whose pattern it has.
"""

import re
from dataclasses import dataclass
from typing import Literal

from r1recipes.machine import host
from r1recipes.machine.units import gib
from r1recipes.planning.doctor import files, software, stack
from r1recipes.planning.doctor.words import DOCTOR, Tell, Words

Subject = Literal[
    software.SoftwareSubject,
    files.FileSubject,
    stack.StackSubject,
    "pinned memory",
    "main memory",
    "shared memory",
    "limit",
]


OF_MAIN_MEMORY = ("main memory", "pinned memory", "shared memory")


@dataclass(frozen=True)
class Cause:
    """What an error is about."""

    subject: Subject
    sentence: str
    mend: str
    """The one command that mends it; with a backtick, a sentence on what to change."""


def _main_memory() -> Words:
    total, available = host.memory_bytes(), host.available_bytes()
    limit = host.memory_limit()
    size = f"this machine has {gib(total)} GiB"
    if limit is not None and limit < total:
        size = f"this container may take {gib(limit)} GiB"
    free = "" if available is None else f", of which {gib(min(available, limit or total))} are free"
    largest = host.largest_processes(2)
    takers = " and ".join(f"{p.name} (process {p.pid}) {gib(p.used_bytes)} GiB" for p in largest)
    sentence = f"main memory is used up: {size}{free}" + (f"; {takers} take most" if takers else "")
    match host.place():
        case "wsl":
            mend = "wsl.exe --shutdown  # once %UserProfile%\\.wslconfig has a larger `memory=`"
        case "container" if limit is not None and limit < total:
            mend = "docker update --memory 64g --memory-swap 64g CONTAINER  # on the host"
        case _:
            others = [p for p in largest if not p.is_own]
            mend = "ps aux --sort=-rss | head"
            if others:
                mend = f"kill {others[0].pid}  # {others[0].name}, if it is not needed"
    return sentence, mend


def _pinned_memory() -> Words:
    available = host.available_bytes()
    free = "" if available is None else f", and {gib(available)} GiB of it are free"
    sentence = f"main memory that can be pinned for the card is short{free}"
    if host.place() == "wsl":
        mend = "wsl.exe --shutdown  # once %UserProfile%\\.wslconfig has a larger `memory=`"
        return f"{sentence}; WSL2 pins only a part of its own", mend
    return sentence, f"ulimit -l unlimited  # or end programs that {DOCTOR} shows"


def _shared_memory() -> Words:
    text = "/dev/shm, through which processes share memory, is too small"
    if host.place() == "container":
        return text, "docker run --shm-size 8g ..."
    return text, host.as_root("mount -o remount,size=8G /dev/shm")


def _limit() -> Words:
    return "a limit on threads, processes or open files is reached", "ulimit -n 65536 -u unlimited"


def _mappings() -> Words:
    text = "the limit on mapped pieces of memory is reached, which many shared tensors use up"
    return text, host.as_root("sysctl -w vm.max_map_count=1048576")


_OF_MEMORY: tuple[tuple[Subject, str, Tell], ...] = (
    (
        "pinned memory",
        r"(?:cudaHost(?:Alloc|Register|Unregister)|cudaMallocHost|cuMem(?:Host)?AllocHost|"
        r"cuMemHostAlloc|cuMemHostRegister|CachingHostAllocator|CUDA host alloc|"
        r"(?<!')pin(?:ned)?[_ ]?memory|"
        r"\bpin(?:ned|ning)? .*\b(?:host|memory)\b|host pinned|page[- ]?lock|PinnedMemory|"
        r"failed to alloc \d+ bytes on host)",
        _pinned_memory,
    ),
    (
        "shared memory",
        r"out of shared memory \(shm\)|insufficient shared memory|shared memory segment|unable to "
        r"(?:open|allocate) shared memory|torch_shm|</?torch_\d+\w*>: No space|"
        r"unable to write to file </?torch_|unable to resize file </?torch_|"
        r"posix_fallocate failed|ncclShm\w+|/dev/shm|nccl-shm|shm_(?:broadcast|open)\S* .*No space|"
        r"No space left on device:? \S*/dev/shm|/dev/shm\S*:? .*No space left|"
        r"[Bb]us error|SIGBUS|signal 7\b|(?:shm|shared memory)[^.]* is (?:full|too small)",
        _shared_memory,
    ),
    ("limit", r"unable to mmap \d+ bytes from file </?torch_|max_map_count", _mappings),
    (
        "main memory",
        r"DefaultCPUAllocator|HOST_ALLOCATION_FAILED|not enough memory: you tried to allocate|"
        r"\bbad_alloc\b(?!: cuda)|Cannot allocate memory|\b(?:Array)?MemoryError\b|"
        r"Unable to allocate .*for an array|unable to mmap|memory allocation of \d+ bytes failed|"
        r"malloc of size \d+ failed|[Oo]ut of (?:host|system|CPU) (?:memory|RAM)|"
        r"Out of memory: Killed|(?i:oom[-_ ]?kill)|\bSIGKILL\b|signal: Killed|^.*: \d+ Killed |"
        r"os error 1455|Killed signal terminated|[Pp]aging file is too small|WinError 1455|"
        r"signal 9\b|(?:^|: |\n)Killed\.?\s*$|[Kk]ernel (?:appears to have )?died|"
        r"kernel .*: Killed|[Nn]ot enough memory resources|(?i:(?:exit|return)[-_ ]?(?:code|"
        r"status)|\bstatus(?: code)?|with code)\W{0,3}(?:-9|137)\b|\bos error 12\b|\bENOMEM\b|"
        r"memory pressure|running low on memory|memory usage threshold|all available RAM|"
        r"tried to allocate more memory than is available|exceed(?:ed|s|ing) (?:the |"
        r"its )?memory limit|[Mm]emory cgroup out of memory|(?:[Ii]nsufficient|[Nn]ot enough|"
        r"low on) (?:RAM|(?:CPU|host|system|main) (?:RAM|memory))\b|"
        r"out of memory at line \d+ in file \S*pythonInterface|cudaMallocManaged|"
        r"(?<!GPU )(?:system|machine|host|node|container|pod|notebook|session)\b (?:is |was |has |"
        r"had |may have |to )?(?:be |been )?(?:ran |run(?:ning)? )?out of (?:memory|RAM)|"
        r"killed \(exit ?code:? 9\)|realloc of size \d+ failed|"
        r"[Ff]ailed to allocate .*(?:host|CPU) (?:memory|buffer)",
        _main_memory,
    ),
)
_OF_LIMITS: tuple[tuple[Subject, str, Tell], ...] = (
    (
        "limit",
        r"can't start new thread|pthread_create failed|Too many open files|"
        r"Resource temporarily unavailable|received 0 items of ancdata|"
        r"(?i:inotify watch limit|too many open files)|No file descriptors available",
        _limit,
    ),
)

_LAST: tuple[tuple[Subject, str, Tell], ...] = (
    ("shared memory", r"\bshared memory\b|\bshm\b", _shared_memory),
    (
        "main memory",
        r"(?i:\bOOM\b|(?:exhaust\w*|insufficient|enough|run(?:ning)? out|ran out|low|"
        r"exceed\w*(?! \d+%)|limit\w*)\b.{0,40}(?:\b(?:CPU|host|system|main) memory|"
        r"(?<!GPU )\bRAM\b))",
        _main_memory,
    ),
)
"""Words that tell the field alone, tried when no known message was there."""
_ALL: tuple[tuple[Subject, str, Tell], ...] = (
    *software.FIRST,
    *stack.KNOWN_FAULTS,
    *_OF_MEMORY,
    *software.PATTERNS,
    *files.PATTERNS,
    *_OF_LIMITS,
    *stack.PATTERNS,
    *software.LAST,
    *files.LAST,
    *_LAST,
    *stack.LAST,
)
"""What stands first is tried first: shared memory before NCCL, bitsandbytes before any library."""


def cause_of(text: str) -> Cause | None:
    """The cause of an error with this text; None for a text that says no more than what it says."""
    if (row := _row(text)) is None:
        return None
    subject, tell = row
    sentence, mend = tell()
    return Cause(subject, sentence, mend)


def subject_of(text: str) -> Subject | None:
    """What `cause_of` finds an error to be about, without asking the machine."""
    row = _row(text)
    return row[0] if row else None


def _row(text: str) -> tuple[Subject, Tell] | None:
    """Subject and words of the first row whose pattern the text has."""
    rows = ((subject, tell) for subject, pattern, tell in _ALL if re.search(pattern, text))
    return next(rows, None)

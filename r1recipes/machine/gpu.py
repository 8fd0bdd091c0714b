"""The NVIDIA cards of this machine, from the driver's management library (NVML).

One card is used: the first of CUDA_VISIBLE_DEVICES, or without that the one with most free memory.
An index is meant as NVML and `nvidia-smi` count, by PCI bus. Nothing here imports torch or makes a
CUDA context. Memory that a card shares with the processor (GB10, Jetson) is main memory, which the
driver does not report. Limits: Linux; whole cards, so a card in MIG slices is not used.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from r1recipes.machine import cards, host
from r1recipes.machine.units import gib

LIBRARY = "libnvidia-ml.so.1"
Fault = Literal["no library", "not loaded", "mismatch", "other"]


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA card as its driver reports it; sizes in bytes."""

    index: int
    name: str
    total_bytes: int
    """What CUDA can use: the card's memory without what the driver keeps for itself. Equals torch's
    total_memory (measured, H100, driver 580.159, 2026-11-26)."""
    free_bytes: int
    compute_capability: float
    driver: str


@dataclass(frozen=True)
class Device:
    """A card that the driver lists, also one that cannot be used."""

    uuid: str
    """Empty where the driver does not report it."""
    card: Gpu | None
    is_sliced: bool = False
    """The card is in MIG slices."""
    unknown: str | None = None
    """What the driver does not report about the card, with the reason in brackets."""


@dataclass(frozen=True)
class Process:
    """A process that computes on a card."""

    pid: int
    name: str | None
    used_bytes: int | None
    """Memory of the card that it holds; None where the driver does not report it."""


class NoDriver(Exception):
    """The driver cannot be asked."""

    def __init__(self, message: str, kind: Fault):
        super().__init__(message)
        self.kind = kind


def current() -> Gpu | None:
    """The card that a run would use, or None without an NVIDIA driver or card."""
    usable = visible()
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return usable[0] if usable else None
    return max(usable, key=lambda card: card.free_bytes, default=None)


def use(card: Gpu) -> None:
    """Let CUDA see this card alone; before torch is imported.

    CUDA counts cards in another order, and a trainer spreads its batches over all that it sees.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML counts
    os.environ["CUDA_VISIBLE_DEVICES"] = str(card.index)


def take() -> Gpu | None:
    """The card that a run uses, and from now on the only one: free memory may change in between."""
    card = current()
    if card:
        use(card)
    return card


def visible() -> list[Gpu]:
    """The usable cards that CUDA_VISIBLE_DEVICES leaves, in its order; all of them without it."""
    try:
        listed = devices()
    except NoDriver:
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = listed if names is None else _named(names, listed)
    return [device.card for device in named if device.card]


def _named(names: str, listed: list[Device]) -> list[Device]:
    """The devices that CUDA takes CUDA_VISIBLE_DEVICES to mean.

    The first name decides whether all are indexes or UUIDs; a UUID may be cut short and in any
    case. From a name that fits no device on, none is seen. A device that is named twice hides all
    (measured, driver 580.159, 2026-11-26; torch 2.13 reads it so too, torch/cuda/__init__.py). MIG
    slices are not devices here.
    """
    find = _by_uuid if names[:4].upper() == "GPU-" else _by_index
    chosen: list[Device] = []
    for name in names.split(","):
        device = find(name, listed)
        if device is None:
            break
        if device in chosen:
            return []
        chosen.append(device)
    return chosen


def _by_index(name: str, listed: list[Device]) -> Device | None:
    """What follows the digits does not count, as in C's strtoul."""
    match = re.match(r"\s*\+?(\d+)", name)
    return listed[int(match[1])] if match and int(match[1]) < len(listed) else None


def _by_uuid(name: str, listed: list[Device]) -> Device | None:
    beginning = name.upper()
    fitting = [device for device in listed if device.uuid.upper().startswith(beginning)]
    return fitting[0] if len(fitting) == 1 and len(name) > len("GPU-") else None


def devices() -> list[Device]:
    """Every card that the driver lists, by PCI bus. Raises: NoDriver."""
    with _driver() as nvml:
        driver = str(nvml.nvmlSystemGetDriverVersion())
        return [_device(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]


def _device(nvml: Any, index: int, driver: str) -> Device:
    uuid, unknown_part = "", "state"
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(nvml.nvmlDeviceGetUUID(handle))
        if _is_sliced(nvml, handle):
            return Device(uuid, None, is_sliced=True)
        name = str(nvml.nvmlDeviceGetName(handle))
        unknown_part = "memory"
        free_bytes, used_bytes = _memory(nvml, handle, name)
        unknown_part = "compute capability"
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except nvml.NVMLError as error:
        return Device(uuid, None, unknown=f"{unknown_part} ({error})")
    total_bytes, capability = free_bytes + used_bytes, float(f"{major}.{minor}")
    return Device(uuid, Gpu(index, name, total_bytes, free_bytes, capability, driver))


def _is_sliced(nvml: Any, handle: Any) -> bool:
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return False  # cards, and drivers before 450, that know no slices
    return bool(mode == nvml.NVML_DEVICE_MIG_ENABLE)


def _memory(nvml: Any, handle: Any, name: str) -> tuple[int, int]:
    """Bytes that are free and bytes in use, without what the driver keeps for itself."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError_FunctionNotFound:  # before driver 510: all that is not free is in use
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        available = host.available_bytes()
        if not is_unified(name) or available is None:
            raise
        return available, host.memory_bytes() - available
    return memory.free, memory.used


def is_unified(name: str) -> bool:
    """Whether a card of this name uses the main memory."""
    card = cards.find_gpu(name, host.memory_bytes()) or cards.find_gpu(name)
    return card is not None and card.is_unified


def describe_machine() -> str:
    """One line such as `2 cores, 24 GiB, no GPU`."""
    card = current()
    if card:
        return f"{card.name}, {gib(card.total_bytes, 0)} GiB, driver {card.driver}"
    return f"{host.cores()} cores, {gib(host.memory_bytes(), 0)} GiB, no GPU"


def processes(card: Gpu) -> list[Process]:
    """The processes that compute on a card; in a container often none is seen."""
    with suppress(NoDriver), _driver() as nvml:
        handle = nvml.nvmlDeviceGetHandleByIndex(card.index)
        return [
            Process(process.pid, _process_name(nvml, process.pid), process.usedGpuMemory)
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ]
    return []


def _process_name(nvml: Any, pid: int) -> str | None:
    try:
        return Path(nvml.nvmlSystemGetProcessName(pid)).name
    except nvml.NVMLError:  # it has ended, or belongs to another container
        return None


@contextmanager
def memory_reader(card: Gpu) -> Iterator[Callable[[], int]]:
    """A function that reads how many bytes of a card are in use. Raises: NoDriver, as it does."""
    with _driver() as nvml:
        handle = nvml.nvmlDeviceGetHandleByIndex(card.index)

        def used_bytes() -> int:
            with _as_no_driver(nvml):
                return _memory(nvml, handle, card.name)[1]

        yield used_bytes


@contextmanager
def _driver() -> Iterator[Any]:
    """The library, ready to be asked. Raises: NoDriver, also for what NVML raises within."""
    import ctypes

    try:
        ctypes.CDLL(LIBRARY)  # where it is missing, importing pynvml would take 0.1 s to say so
    except OSError as error:
        raise NoDriver(f"{LIBRARY} was not found", "no library") from error
    import pynvml

    with _as_no_driver(pynvml):
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()


@contextmanager
def _as_no_driver(nvml: Any) -> Iterator[None]:
    kinds: dict[int, Fault] = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no library",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "not loaded",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "mismatch",
    }
    try:
        yield
    except nvml.NVMLError as error:
        raise NoDriver(str(error), kinds.get(error.value, "other")) from error

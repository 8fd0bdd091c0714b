"""Stands before the real pynvml on the path: the driver says what a test wrote (tests/driver.py).

Everything but the functions below is the real module, so errors are its own, by NVML's codes.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests import real_pynvml

_real = real_pynvml.load(__file__)
globals().update({name: value for name, value in vars(_real).items() if name[0] != "_"})

_state: dict[str, Any] = {}
_open = 0


def _check(code: int | None) -> None:
    if code:
        raise _real.NVMLError(code)


def _card(index: int, function: str) -> SimpleNamespace:
    _check(None if _open else _real.NVML_ERROR_UNINITIALIZED)
    card = SimpleNamespace(**_state["cards"][index])
    _check(card.errors.get(function))
    return card


def nvmlInit() -> None:
    """Reads what the driver says from now on: the first of the states, and the last for ever."""
    global _open
    path = Path(os.environ["FAKE_DRIVER"])
    first, *rest = json.loads(path.read_text())
    if rest:
        path.write_text(json.dumps(rest))
    _check(first["init_error"])
    _state.update(first)
    _open += 1


def nvmlShutdown() -> None:
    global _open
    _check(None if _open else _real.NVML_ERROR_UNINITIALIZED)
    _open -= 1


def nvmlSystemGetDriverVersion() -> str:
    return _state["version"]


def nvmlDeviceGetCount() -> int:
    return len(_state["cards"])


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    _card(index, "nvmlDeviceGetHandleByIndex")
    return index


def nvmlDeviceGetUUID(handle: int) -> str:
    return _card(handle, "nvmlDeviceGetUUID").uuid


def nvmlDeviceGetName(handle: int) -> str:
    return _card(handle, "nvmlDeviceGetName").name


def nvmlDeviceGetMigMode(handle: int) -> list[int]:
    mode = _card(handle, "nvmlDeviceGetMigMode").mig_mode
    _check(_real.NVML_ERROR_NOT_SUPPORTED if mode is None else None)
    return [mode, mode]


def nvmlDeviceGetMemoryInfo(handle: int, version: int | None = None) -> SimpleNamespace:
    card = _card(handle, "nvmlDeviceGetMemoryInfo")
    _check(card.errors.get("nvmlDeviceGetMemoryInfo_v2") if version else None)
    if len(card.readings) > 1:
        _state["cards"][handle]["readings"] = card.readings[1:]
    used = card.readings[0] if card.readings else card.used_bytes
    _check(_real.NVML_ERROR_GPU_IS_LOST if used is None else None)
    return SimpleNamespace(
        free=card.free_bytes, used=used + (0 if version else card.reserved_bytes)
    )


def nvmlDeviceGetCudaComputeCapability(handle: int) -> tuple[int, int]:
    major, minor = _card(handle, "nvmlDeviceGetCudaComputeCapability").capability
    return major, minor


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:
    found = _card(handle, "nvmlDeviceGetComputeRunningProcesses").processes
    return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, _, size in found]


def nvmlSystemGetProcessName(pid: int) -> str:
    names = {pid: name for card in _state["cards"] for pid, name, _ in card["processes"]}
    _check(None if names.get(pid) else _real.NVML_ERROR_NOT_FOUND)
    return names[pid]

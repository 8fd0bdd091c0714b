"""An NVIDIA driver that says what a test wants, here and in the processes that it starts."""

import _ctypes
import importlib.util
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from r1recipes.machine import gpu

FOLDER = Path(__file__).parent / "fake_driver"
MIB = 2**20


@dataclass
class FakeCard:
    """What NVML says of a card; an error is its code, by the function that raises it."""

    name: str = "NVIDIA L4"
    free_bytes: int = 22000 * MIB
    used_bytes: int = 690 * MIB
    reserved_bytes: int = 300 * MIB
    capability: tuple[int, int] = (8, 9)
    uuid: str = "GPU-1"
    mig_mode: int | None = None
    """1 in slices, 0 whole, None where the card knows no slices."""
    processes: list[tuple[int, str | None, int | None]] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    readings: list[int | None] = field(default_factory=list)
    """Bytes in use at each reading after the library was opened, then the last for ever; None where
    the card is lost."""


class FakeDriver:
    """What the driver says; without a card, or with `init_error`, an NVML code, there is none."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._state = folder / "driver.json"
        (folder / "lib").mkdir()
        (folder / "lib" / gpu.LIBRARY).symlink_to(_ctypes.__file__)  # any library that loads

    def says(
        self, *cards: FakeCard, init_error: int | None = None, version: str = "580.1"
    ) -> "FakeDriver":
        self._state.write_text(json.dumps([self._say(cards, init_error, version)]))
        return self

    def then_says(self, *cards: FakeCard) -> "FakeDriver":
        """After it was asked once more."""
        states = json.loads(self._state.read_text())
        self._state.write_text(json.dumps([*states, self._say(cards, None, "580.1")]))
        return self

    def _say(self, cards: tuple[FakeCard, ...], init_error: int | None, version: str) -> object:
        said = [asdict(card) for card in cards]
        return {"cards": said, "init_error": init_error, "version": version}

    def environment(self, *path: Path) -> dict[str, str]:
        """Of a process that is to meet this driver; `path` comes after it on PYTHONPATH."""
        rest = os.environ.get("PYTHONPATH", "")
        folders = [FOLDER, *path, Path(__file__).parents[1], *filter(None, [rest])]
        return {
            "FAKE_DRIVER": str(self._state),
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "LD_LIBRARY_PATH": str(self.folder / "lib"),
        }

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For this process."""
        spec = importlib.util.spec_from_file_location("pynvml", FOLDER / "pynvml.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        monkeypatch.setattr(gpu, "LIBRARY", _ctypes.__file__)
        monkeypatch.setenv("FAKE_DRIVER", str(self._state))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

"""Fixtures for every test: a recipe that trains within seconds, and one complete run of it."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from r1recipes.runs import Run

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As in a run. Threads that spin take the core of the other worker: 54 s, not 20, for one file.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for name in [name for name in os.environ if name.startswith("R1RECIPES_")]:
    if name != "R1RECIPES_REQUIRE_GPU":  # settings of this machine must not reach a test
        del os.environ[name]

SMALL = (Path(__file__).parents[1] / "benchmarks" / "small.toml").read_text()
"""A recipe with a few steps of everything."""


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Leave what was imported by now out of garbage collections: the trainer starts one at each
    end, which takes half a second else, of the three and a half that a small run takes."""
    if "torch" in sys.modules:
        gc.collect()
        gc.freeze()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recipe file that trains within seconds."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One complete run of the small recipe, made once for all tests."""
    from tests.helpers import run_in_process

    folder = tmp_path_factory.mktemp("finished")
    path = folder / "small.toml"
    path.write_text(SMALL)
    return run_in_process(path, folder / "runs")


@pytest.fixture
def driver(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """An NVIDIA driver that says what a test wants, here and in child processes; first, no card."""
    from tests.driver import FakeDriver

    driver = FakeDriver(tmp_path_factory.mktemp("driver"))
    driver.install(monkeypatch)
    return driver.says()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the `gpu` tests where they are asked for without a GPU, or let them fail if required."""
    if "gpu" not in config.getoption("-m").replace("not gpu", ""):
        return
    from r1recipes.machine import gpu

    if gpu.current() is None and os.environ.get("R1RECIPES_REQUIRE_GPU") != "1":
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))

"""Recipes that are small enough to train within seconds."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in [name for name in os.environ if name.startswith("R1RECIPES_")]:
    if name != "R1RECIPES_REQUIRE_GPU":  # a test's runs are its own, whatever the machine says
        del os.environ[name]

SMALL = """\
format = 1
description = "a few steps of everything"
seed = 1

[model]
name = "builtin:tiny"

[data]
name = "builtin:arithmetic"
size = 64
eval_size = 6

[data.problems]
digits = 2

[prompt]
system = ""

[rewards]
correctness = 2.0
integer = 0.5
strict_format = 0.5
soft_format = 0.5
xml_tags = 0.5

[train]
max_steps = 6
learning_rate = 1e-3
save_steps = 2

[cold_start]
steps = 12
batch_size = 16
learning_rate = 3e-3
wrong = 0.3

[eval]
samples = 2

[preset.cpu]
max_seq_length = 128
max_completion_length = 40
lora_rank = 8
num_generations = 4
prompts_per_step = 4
num_threads = 1
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recipe file whose run takes some seconds."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """One complete run of the small recipe, made once."""
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
    """Without a GPU the `gpu` tests are not selected; asked for all the same, they fail or skip."""
    if "gpu" not in config.getoption("-m").replace("not gpu", ""):
        return
    from r1recipes.machine import gpu

    if gpu.current() is None and os.environ.get("R1RECIPES_REQUIRE_GPU") != "1":
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))

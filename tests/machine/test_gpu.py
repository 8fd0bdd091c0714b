"""Cards as the driver tells them, and CUDA_VISIBLE_DEVICES as CUDA reads it."""

import os
import subprocess
import sys

import pynvml
import pytest

from r1recipes.machine import gpu, host
from r1recipes.machine.gpu import Device, Gpu, Process
from tests.driver import FOLDER, MIB, FakeCard

ROOT = FOLDER.parents[1]


def test_a_card_has_the_memory_that_cuda_sees(driver):
    """Without what the driver keeps for itself: of the 15,360 MiB of a T4, 15,095."""
    driver.says(FakeCard("Tesla T4", 15000 * MIB, 95 * MIB, 265 * MIB, (7, 5)))
    assert gpu.current() == Gpu(0, "Tesla T4", 15095 * MIB, 15000 * MIB, 7.5, "580.1")
    assert gpu.describe_machine() == "Tesla T4, 15 GiB, driver 580.1"


def test_a_driver_that_does_not_tell_them_apart_counts_all_of_it(driver):
    """Before 510; too old for CUDA 13, and for the doctor to say so it must be told."""
    missing = {"nvmlDeviceGetMemoryInfo_v2": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    card = FakeCard("Tesla T4", 15000 * MIB, 95 * MIB, 265 * MIB, (7, 5), errors=missing)
    driver.says(card, version="470.82")
    assert gpu.current() == Gpu(0, "Tesla T4", 15360 * MIB, 15000 * MIB, 7.5, "470.82")


def test_memory_that_is_shared_with_the_processor_is_main_memory(driver, monkeypatch, tmp_path):
    """GB10 and Jetson: `nvidia-smi` prints `[N/A]`, and the driver says "Not Supported"."""
    missing = {
        "nvmlDeviceGetMemoryInfo_v2": pynvml.NVML_ERROR_NOT_SUPPORTED,
        "nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED,
    }
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 104857600 kB\n")
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host, "memory_bytes", lambda: int(119.7 * 2**30))
    driver.says(FakeCard("NVIDIA GB10", capability=(12, 1), errors=missing))
    card = gpu.current()
    assert card == Gpu(0, "NVIDIA GB10", int(119.7 * 2**30), 100 * 2**30, 12.1, "580.1")
    with gpu.memory_reader(card) as read:
        assert read() == int(119.7 * 2**30) - 100 * 2**30
    driver.says(FakeCard("NVIDIA L4", errors=missing))
    assert gpu.current() is None  # it has memory of its own, which must be known
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "nothing")
    driver.says(FakeCard("NVIDIA GB10", capability=(12, 1), errors=missing))
    assert gpu.current() is None


def test_the_card_with_most_free_memory_is_used(driver):
    driver.says(*(FakeCard(free_bytes=n * MIB, uuid=f"GPU-{n}") for n in (5, 9, 7)))
    card = gpu.current()
    assert card is not None and card.index == 1
    assert [card.index for card in gpu.visible()] == [0, 1, 2]


def test_a_machine_without_a_driver_or_a_card_has_none(driver, monkeypatch):
    assert (gpu.current(), gpu.visible(), gpu.devices()) == (None, [], [])
    assert gpu.describe_machine().endswith("no GPU")
    driver.says(init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert gpu.current() is None
    with pytest.raises(gpu.NoDriver, match="Driver Not Loaded") as raised:
        gpu.devices()
    assert raised.value.kind == "not loaded"
    monkeypatch.setattr(gpu, "LIBRARY", "libnothing-of-this-name.so.1")
    assert gpu.current() is None
    with pytest.raises(gpu.NoDriver, match="libnothing-of-this-name.so.1") as raised:
        gpu.devices()
    assert raised.value.kind == "no library"


@pytest.mark.parametrize(
    ("card", "device"),
    [
        (FakeCard(mig_mode=1), Device("GPU-1", None, is_sliced=True)),
        (
            FakeCard(errors={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED}),
            Device("GPU-1", None, unknown="memory (Not Supported)"),
        ),
        (
            FakeCard(
                errors={"nvmlDeviceGetCudaComputeCapability": pynvml.NVML_ERROR_NOT_SUPPORTED}
            ),
            Device("GPU-1", None, unknown="compute capability (Not Supported)"),
        ),
        (
            FakeCard(errors={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_NO_PERMISSION}),
            Device("", None, unknown="state (Insufficient Permissions)"),
        ),
    ],
)
def test_a_card_of_which_something_is_not_known_is_not_used(card, device, driver):
    driver.says(card, FakeCard(mig_mode=0, uuid="GPU-2"))
    assert gpu.devices()[0] == device
    assert [card.index for card in gpu.visible()] == [1]


@pytest.mark.parametrize(
    ("visible", "indexes"),
    [
        ("1,0", [1, 0]),
        ("0,9,1", [0]),
        ("-1,0", []),
        ("0,,1", [0]),
        ("", []),
        (" 1, +0", [1, 0]),
        ("0abc,01;5", [0, 1]),
        ("x0", []),
        ("0,1,0", []),
        ("GPU-b", [1]),
        ("GPU-B2,GPU-a", [1, 0]),
        ("GPU-c", []),
        ("GPU-c3-7,GPU-c4", [2, 3]),
        ("GPU-a,GPU-x,GPU-b", [0]),
        ("GPU-a,GPU-a1-4", []),
        ("GPU-a,1", [0]),
        ("1,GPU-a", [1]),
        ("GPU-", []),
        ("a1-4", []),
        ("MIG-GPU-a1-4/1/0", []),
        ("MIG-5a1b", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(visible, indexes, driver, monkeypatch):
    """What one card can show was read with cuInit on an H100, driver 580.159, 2026-11-26."""
    driver.says(*(FakeCard(uuid=uuid) for uuid in ("GPU-a1-4", "GPU-b2-5", "GPU-c3-7", "GPU-c4-8")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card.index for card in gpu.visible()] == indexes
    card = gpu.current()
    assert (card and card.index) == (indexes[0] if indexes else None)


def test_who_computes_on_a_card(driver):
    driver.says(FakeCard(processes=[(7, "/usr/bin/python3", MIB), (8, None, None)]))
    card = gpu.current()
    assert card is not None
    assert gpu.processes(card) == [Process(7, "python3", MIB), Process(8, None, None)]
    not_told = {"nvmlDeviceGetComputeRunningProcesses": pynvml.NVML_ERROR_NOT_SUPPORTED}
    driver.says(FakeCard(processes=[(7, "/usr/bin/python3", MIB)], errors=not_told))
    assert gpu.processes(card) == []
    driver.says(init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert gpu.processes(card) == []


def test_the_library_is_shut_down_after_the_last_question(driver):
    driver.says(FakeCard())
    card = gpu.current()
    assert card is not None
    with gpu.memory_reader(card) as read:
        assert gpu.processes(card) == [] and read() == 690 * MIB
    with pytest.raises(gpu.NoDriver, match="Uninitialized"):
        read()


def test_nothing_heavy_is_imported_where_there_is_no_driver():
    """pynvml alone takes 0.1 s; `check` and `plan --gpu` do not even look."""
    code = (
        "import sys; from r1recipes.machine import gpu; gpu.LIBRARY = 'libnothing.so.1'\n"
        "gpu.current(); print({'pynvml', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_a_card_that_is_made_old_for_tests_says_so(driver):
    """tests/old_card, before the driver of this test as otherwise before a real one."""
    driver.says(FakeCard("H100", capability=(9, 0)))
    code = "from r1recipes.machine import gpu; print(gpu.current().compute_capability)"
    environment = os.environ | driver.environment()
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "tests" / "old_card"), environment["PYTHONPATH"]]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "7.5\n", done.stderr

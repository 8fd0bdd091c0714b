"""The card: one that others hold, is hidden or too old, and a driver that does not answer."""

import os
from pathlib import Path

import pynvml
import pytest

from r1recipes import planning, recipe
from r1recipes.machine import gpu, packages
from r1recipes.planning import doctor, plan
from r1recipes.training.backends import prepare_environment
from tests.driver import MIB, FakeCard
from tests.helpers import command, in_process


def held(name: str, free_mib: int, used_mib: int) -> FakeCard:
    """A card that another process holds most of."""
    holder = (4242, "/bin/python3", (used_mib - 105) * MIB)
    return FakeCard(name, free_mib * MIB, used_mib * MIB, processes=[holder])


def test_a_card_that_another_process_holds(driver, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(packages, "examine", lambda card: [])
    driver.says(held("NVIDIA GeForce RTX 4060", 3000, 4805))
    code, out, _ = in_process("doctor", "qwen2.5-1.5b")
    assert code == 2 and "python3 (process 4242) holds 4.6 GiB" in out
    assert "GiB, 2.9 GiB are free" in out and out.rstrip().endswith("kill 4242")


def test_a_process_of_which_the_driver_tells_little(driver):
    driver.says(FakeCard(processes=[(4242, None, None), (4243, "/bin/vllm", MIB)]))
    in_use = [f.state for f in doctor.card_findings(gpu.current()) if f.subject == "GPU in use"]
    assert in_use == [
        "a program (process 4242) holds memory, how much is not known",
        "vllm (process 4243) holds 0.0 GiB",
    ]


def test_with_unsloth_too_a_card_that_others_hold_is_to_be_freed(driver, monkeypatch):
    """Its plan is refused by what is predicted."""
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    driver.says(held("NVIDIA L4", 3000, 19690))
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "does not fit" in out and out.rstrip().endswith("kill 4242")
    for flags in ([], ["--fit"]):
        code, out, err = in_process("plan", "phi4", *flags)
        assert code == 2 and "end the other processes" in out + err, flags
    driver.says(FakeCard())
    code, out, err = in_process("plan", "phi4", "--set", "preset.max_seq_length=200000")
    assert code == 2 and "end the other processes" not in out + err


def two_cards(*free_mib: int) -> list[FakeCard]:
    sizes = [(free * MIB, (22690 - free) * MIB) for free in free_mib]
    return [FakeCard("L4", *size, uuid=f"GPU-{n}a") for n, size in enumerate(sizes)]


def test_cuda_sees_the_card_that_is_planned_for_alone(driver, monkeypatch, tmp_path):
    """It counts cards in an order of its own, and a trainer takes all that it sees."""
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    driver.says(*two_cards(90, 22000))
    card = gpu.current()
    assert card is not None and card.index == 1
    here = planning.Target.here(card, 1)
    planned = planning.make(recipe.load("phi4").recipe, here, base_dir=tmp_path)
    for visible, used in ((None, "1"), ("0,1", "0"), ("GPU-1,0", "1")):
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        prepare_environment(planned, tmp_path)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == used
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        card = gpu.current()
        assert card is not None and card.index == int(used)


def test_the_card_that_was_planned_for_is_kept_when_another_has_more_free(driver, tmp_path):
    """Between plan and start, as when two runs begin at once."""
    driver.says(*two_cards(9000, 22000)).then_says(*two_cards(22000, 9000))
    code = "import os; raise ImportError('card ' + os.environ['CUDA_VISIBLE_DEVICES'])"
    for name, text in (("unsloth", code), ("vllm", "")):
        (tmp_path / f"{name}.py").write_text(text)
    done = command("run", "small", cwd=tmp_path, **driver.environment(tmp_path))
    assert done.returncode == 2 and "ImportError: card 1\n" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("unsloth", "words"),
    [
        ("raise NotImplementedError('You need a GPU.')", "NotImplementedError: You need a GPU."),
        (None, "torch cannot use the GPU of this machine"),  # a build without CUDA
    ],
)
def test_a_stack_that_cannot_use_the_card_is_one_line(unsloth, words, driver, tmp_path):
    driver.says(FakeCard())
    if unsloth:
        for name, text in (("unsloth", unsloth), ("vllm", "")):
            (tmp_path / f"{name}.py").write_text(text)
    done = command("run", "small", cwd=tmp_path, **driver.environment(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert words in done.stderr and "r1recipes doctor" in done.stderr
    assert not (tmp_path / "runs").exists()


T4 = FakeCard("Tesla T4", 15000 * MIB, 95 * MIB, capability=(7, 5))


def test_an_old_card(driver, monkeypatch):
    monkeypatch.setattr(packages, "examine", lambda card: [])
    driver.says(T4)
    assert "float16" in in_process("doctor", "phi4")[1]
    driver.says(FakeCard("Tesla V100-SXM2-16GB", 16000 * MIB, 160 * MIB, capability=(7, 0)))
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "vLLM needs 7.5 or more" in out


def test_a_card_without_memory_of_its_own(driver, monkeypatch):
    monkeypatch.setattr(packages, "examine", lambda card: [])
    missing = dict.fromkeys(
        ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"), pynvml.NVML_ERROR_NOT_SUPPORTED
    )
    driver.says(FakeCard("NVIDIA GB10", capability=(12, 1), errors=missing))
    states = [finding.state for finding in doctor.card_findings(gpu.current())]
    assert states[0].startswith("NVIDIA GB10") and "uses the main memory" in states[1]


def test_a_card_that_is_hidden(driver, monkeypatch):
    driver.says(T4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and out.rstrip().endswith("unset CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5a1b")
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "MIG slice, and slices are not supported" in out


@pytest.mark.parametrize(
    ("card", "text", "command"),
    [
        (FakeCard(mig_mode=1), "in MIG slices", "sudo nvidia-smi -mig 0"),
        (
            FakeCard(errors={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED}),
            "does not report the card's memory (Not Supported), which a run needs",
            "nvidia-smi -q -d MEMORY",
        ),
        (
            FakeCard(errors={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST}),
            "does not report the card's state (GPU is lost)",
            "nvidia-smi -q",
        ),
        (None, "lists no card", "sudo reboot"),
    ],
)
def test_why_no_card_can_be_used(card, text, command, driver):
    driver.says(*filter(None, [card]))
    (finding,) = doctor.card_findings(gpu.current())
    assert (finding.stops, finding.mend) == ("gpu", command) and text in finding.state


@pytest.mark.parametrize(
    ("error", "text", "command"),
    [
        # the usual one: a driver that was updated below a running system
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "version mismatch", "sudo reboot"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded", "sudo modprobe nvidia"),
        (pynvml.NVML_ERROR_UNKNOWN, "Unknown Error", "sudo reboot"),
    ],
)
def test_why_the_driver_cannot_be_asked(error, text, command, driver):
    driver.says(init_error=error)
    (finding,) = doctor.card_findings(gpu.current())
    assert (finding.stops, finding.mend) == ("gpu", command) and text in finding.state


def test_a_machine_without_the_drivers_library(monkeypatch):
    monkeypatch.setattr(gpu, "LIBRARY", "libnothing-of-this-name.so.1")
    monkeypatch.setattr(doctor.card, "DRIVER_RUNS", Path("/proc/self/stat"))
    (finding,) = doctor.card_findings(gpu.current())
    assert finding.stops == "gpu" and finding.mend == "sudo apt-get install libnvidia-compute-580"
    monkeypatch.setattr(doctor.card, "DRIVER_RUNS", Path("/proc/nothing"))
    monkeypatch.setattr(doctor.card, "_is_nvidia", lambda device: True)
    monkeypatch.setattr(doctor.card, "PCI_DEVICES", Path("/proc/self"))
    (finding,) = doctor.card_findings(gpu.current())
    assert finding.mend == "sudo apt-get install nvidia-driver-580"
    monkeypatch.setattr(doctor.card, "_is_nvidia", lambda device: False)
    (finding,) = doctor.card_findings(gpu.current())
    assert (finding.state, finding.level) == ("none from NVIDIA", "ok")

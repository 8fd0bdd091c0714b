"""The doctor: what it finds on this machine, and on others that a script and metadata stand for."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from r1recipes import planning, recipe
from r1recipes.machine import gpu, host, hub, packages, settings
from r1recipes.planning import disk, doctor, plan
from r1recipes.training.backends import prepare_environment
from tests.driver import MIB, FakeCard
from tests.helpers import command, in_process

H100 = FakeCard("NVIDIA H100 80GB HBM3", 81000 * MIB, 80 * MIB, capability=(9, 0))
LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
CARD = gpu.Gpu(0, "NVIDIA GeForce RTX 4060", int(7.62 * 2**30), 7 * 2**30, 8.9, "580.1")


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    """Of one user who is not root; tests/planning/test_machines.py has the others."""
    monkeypatch.setattr(host, "place", lambda: None)
    monkeypatch.setattr(host, "cluster", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Metadata of a package that is not there."""

    def install(name: str, version: str, *requires: str) -> None:
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install


def by_name(findings: list[packages.Finding]) -> dict[str, packages.Finding]:
    return {finding.subject: finding for finding in findings if finding.level != "ok"}


def mend(finding: packages.Finding) -> str:
    assert finding.mend is not None
    return finding.mend


def test_this_machine_can_run_the_tiny_recipe(tmp_path):
    done = command("doctor", "tiny", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok   tiny  cpu$", done.stdout, re.MULTILINE)
    assert "FAIL" not in done.stdout and not list(tmp_path.iterdir())


def test_a_gpu_recipe_without_a_gpu_is_exit_2(monkeypatch):
    monkeypatch.setattr(gpu, "current", lambda: None)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "needs an NVIDIA GPU of 16GB or more" in out
    code, out, _ = in_process("doctor", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["ok"]
    runs = {row["recipe"]: row["runs"] for row in shown["recipes"]}
    assert runs["tiny"] and not runs["phi4"] and set(runs) == {p.stem for p in recipe.shipped()}


def test_a_recipe_that_is_not_valid_is_an_error(small):
    small.write_text(small.read_text().replace("max_steps", "max_step"))
    assert in_process("doctor", small)[0] == 2


def test_the_packages_of_this_environment_fit():
    assert not by_name(packages.examine(None))


def test_versions_outside_the_ranges_are_named_with_reason_and_command(package):
    package("vllm", "0.29.0", "torch==2.11.0", "nothing-of-this-name>=1")
    package("unsloth", "2026.10.7")
    package("trl", "1.15.0")
    faults = by_name(packages.examine(CARD))
    assert "needs `vllm-bnb-plugin`" in faults["vllm"].state and faults["vllm"].stops == "gpu"
    assert faults["vllm"].mend == "python -m pip install 'vllm<0.27,>=0.26'"
    assert faults["unsloth-zoo"].state.startswith("not installed; needed is")
    assert "does not run on a CPU" in faults["trl"].state and faults["trl"].stops == "everything"
    assert "unsloth" not in faults and "nothing-of-this-name" not in faults


def test_what_the_packages_ask_of_each_other_is_compared(package):
    package("vllm", "0.26.0", "rich==1.0", 'rich==2.0; extra == "other"')
    conflicts = [f for f in packages.examine(None) if f.subject == "rich"]
    assert [f.mend for f in conflicts] == ["python -m pip install 'rich==1.0'"]
    assert "but vllm 0.26.0 asks for ==1.0" in conflicts[0].state


def test_a_cpu_build_of_torch_beside_a_gpu(monkeypatch, package):
    """One command mends all: the extra brings its torch, and vLLM works with one version alone."""
    monkeypatch.setattr(packages, "torch_cuda", lambda: None)
    faults = by_name(packages.examine(CARD))
    assert faults["torch"].stops == "gpu" and "'vllm<0.27,>=0.26'" in mend(faults["torch"])
    assert faults["torch"].mend == faults["extra gpu"].mend
    package("vllm", "0.26.0", "torch==2.11.0", "torchvision==0.26.0")
    assert by_name([packages._torch_build(CARD, None)[0]])["torch"].mend == (
        "python -m pip install --force-reinstall 'torch==2.11.0'"
    )


def test_an_old_cpu_build_of_torch_is_not_to_be_installed_again(monkeypatch, package):
    monkeypatch.setattr(packages, "torch_cuda", lambda: None)
    package("torch", "2.4.0")
    (fault,) = packages._torch_build(CARD, None)
    assert fault.mend == "python -m pip install --force-reinstall 'torch<2.14,>=2.11'"


def test_a_driver_that_is_too_old(monkeypatch):
    monkeypatch.setattr(packages, "torch_cuda", lambda: "13.0")
    old = gpu.Gpu(**(vars(CARD) | {"driver": "550.54"}))
    assert mend(by_name(packages.examine(old))["driver"]).endswith("nvidia-driver-580")
    assert "driver" not in by_name(packages.examine(CARD))
    monkeypatch.setattr(packages, "torch_cuda", lambda: "12.8")
    assert "driver" not in by_name(packages.examine(old))


def test_what_triton_compiles_with(package, monkeypatch, tmp_path):
    package("vllm", "0.26.0")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert by_name(packages.examine(CARD))["compiler"].mend == "sudo apt-get install gcc"
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert "compiler" not in by_name(packages.examine(CARD))
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    compiler = by_name(packages.examine(CARD))["compiler"]
    assert re.search(r"python3\.\d+-dev$", mend(compiler))


def test_the_build_of_torch_is_read_without_importing_it():
    import torch

    assert packages.torch_cuda() == torch.version.cuda


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


def test_what_is_wrong_beside_the_card_is_said_as_it_is(monkeypatch):
    monkeypatch.setattr(gpu, "current", lambda: None)
    code, out, _ = in_process("doctor", "tiny", "--set", "train.optim='paged_adamw_8bit'")
    assert code == 2 and "`train.optim" in out and "GPU of cpu" not in out


def test_a_folder_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "/proc/runs")
    code, out, _ = in_process("doctor", "tiny")
    assert code == 2 and "/proc/runs cannot be written" in out
    assert 'export R1RECIPES_RUNS_DIR="$HOME/' in out


def test_a_disk_that_is_too_small(driver, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(packages, "examine", lambda card: [])
    driver.says(H100)
    free = type("Usage", (), {"free": 20 * 10**9})()
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "needs 29.3 GB, its disk has 20.0 GB free" in out
    assert in_process("doctor", "qwen2.5-1.5b")[0] == 0


def test_what_is_to_be_downloaded_needs_a_cache_that_can_be_written(driver, monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_CACHE", "/proc/hub")
    driver.says(H100)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "no   phi4  Hub cache: /proc/hub cannot be written" in out
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    here = f"model.name='{tmp_path / 'model'}'"
    assert in_process("doctor", "phi4", "--set", here)[0] == 0


@pytest.mark.parametrize(
    ("token", "words"),
    [("", "none"), ("hf_" + "a" * 34, "present\n"), ("secret", "not of the form hf_")],
)
def test_a_token_is_judged_and_never_shown(token, words, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", token)
    for arguments in (["tiny"], ["tiny", "--json"]):
        _, out, _ = in_process("doctor", *arguments)
        assert not token or token not in out
    assert words in in_process("doctor", "tiny")[1]


def test_offline_what_is_not_cached_cannot_run(driver, monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    driver.says(H100)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "offline, and `unsloth/phi-4` is not cached" in out
    assert "HF_HUB_OFFLINE=0 hf download unsloth/phi-4 --local-dir models/phi-4" in out
    snapshot = tmp_path / "hf" / "hub" / "models--unsloth--phi-4" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert disk.has_model("unsloth/phi-4", four_bit=False)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not disk.has_model("unsloth/phi-4", four_bit=False)  # a download that was cut off
    (snapshot / "model-2.safetensors").touch()
    assert disk.has_model("unsloth/phi-4", four_bit=False)
    assert not disk.has_model("unsloth/phi-4", four_bit=True)
    for form, is_loaded in (("-unsloth-bnb-4bit", False), ("-bnb-4bit", True)):
        cached = snapshot.parents[1].with_name(f"models--unsloth--phi-4{form}") / "snapshots" / "a"
        cached.mkdir(parents=True)
        (cached / "model.safetensors").touch()
        assert disk.has_model("microsoft/phi-4", four_bit=True) == is_loaded
    assert "the data `openai/gsm8k` are not cached" in in_process("doctor", "phi4")[1]
    (tmp_path / "hf" / "datasets" / "openai___gsm8k").mkdir(parents=True)
    assert in_process("doctor", "phi4")[0] == 0


def test_files_that_a_recipe_names(small):
    text = small.read_text().replace('"builtin:arithmetic"', '"gone.jsonl"')
    small.write_text(
        text.replace("[data.problems]\ndigits = 2\n", "").replace(
            "wrong = 0.3\n", 'data = "demos.jsonl"\n'
        )
    )
    loaded = recipe.load(small)
    report = doctor.examine([loaded], settings.Settings(), offline=True)
    assert not report.ok
    assert "gone.jsonl does not exist" in (report.verdicts[0].why_not or "")


def test_the_hubs_places_and_switch_are_those_of_its_library(monkeypatch, tmp_path):
    """Read in a process of its own, since it reads the environment once, on import."""
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE, c.HF_HUB_OFFLINE)"
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name, offline in zip(names, ("1", "false", "yes", "0"), strict=True):
        for other in names:
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == [str(hub.cache()), str(hub.is_offline())], name

"""The doctor on machines of which somebody else has the driver, the rights, or the card."""

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from r1recipes.machine import gpu, host, packages
from r1recipes.machine.packages import Finding
from r1recipes.planning import doctor
from tests.driver import MIB, FakeCard

CARD = gpu.Gpu(0, "Tesla T4", int(14.74 * 2**30), 14 * 2**30, 7.5, "550.54")
LOGS_OF = ("COLAB_RELEASE_TAG", "COLAB_GPU", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A plain machine, whatever this one is."""
    for name in (*LOGS_OF, "SLURM_JOB_ID", "MODULESHOME", "LMOD_CMD", "CONDA_PREFIX", "CC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "CONTAINER_FILES", (tmp_path / "dockerenv",))
    monkeypatch.setattr(host, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(host, "VERSION", tmp_path / "version")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(doctor.card, "DRIVER_RUNS", tmp_path / "nothing")
    monkeypatch.setattr(doctor.card, "PCI_DEVICES", tmp_path)


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Makes this machine look like another."""

    def look_like(place: str) -> None:
        match place:
            case "wsl":
                text = "Linux version 6.6.87-microsoft-standard-WSL2 (gcc)"
                (tmp_path / "version").write_text(text)
            case "docker":
                (tmp_path / "dockerenv").touch()
            case "lxc":
                (tmp_path / "cgroup").write_text("1:name=systemd:/lxc/box\n")
            case "apptainer":
                monkeypatch.setenv("APPTAINER_CONTAINER", "image.sif")
            case "kubernetes":
                monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
            case "colab":
                monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260801")
                (tmp_path / "dockerenv").touch()
            case "kaggle":
                monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
                (tmp_path / "dockerenv").touch()
            case "slurm":
                monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
            case "job":
                monkeypatch.setenv("SLURM_JOB_ID", "7")
            case "modules":
                monkeypatch.setenv("MODULESHOME", "/usr/share/modules")

    return look_like


@pytest.mark.parametrize(
    ("machine", "place"),
    [
        ("plain", None),
        ("slurm", None),
        ("wsl", "wsl"),
        ("docker", "container"),
        ("lxc", "container"),
        ("apptainer", "container"),
        ("kubernetes", "container"),
        ("colab", "colab"),
        ("kaggle", "kaggle"),
    ],
)
def test_what_kind_of_machine_this_is(machine, place, at):
    at(machine)
    assert host.place() == place


@pytest.mark.parametrize(
    ("machine", "cause", "mend"),
    [
        ("plain", "needs 580 or newer", "sudo apt-get install nvidia-driver-580"),
        ("wsl", "WSL2 uses the driver of Windows", "wsl.exe --shutdown  # once driver 580"),
        ("docker", "a container uses the driver of its host", "nvidia-driver-580  # on the host"),
        ("kubernetes", "a container uses the driver of its host", "# on the host"),
        ("colab", "the service has the driver", "python -m pip uninstall -y unsloth vllm"),
        ("kaggle", "the service has the driver", "python -m pip uninstall -y unsloth vllm"),
    ],
)
def test_a_driver_that_is_too_old_is_that_of_its_owner(machine, cause, mend, at, monkeypatch):
    monkeypatch.setattr(packages, "torch_cuda", lambda: "13.0")
    at(machine)
    (finding,) = packages._torch_build(CARD, None)
    assert finding.subject == "driver" and finding.stops == "gpu"
    assert "550.54" in finding.state and cause in finding.state
    assert mend in (finding.mend or "")


def no_card(at, machine: str) -> Finding:
    at(machine)
    (finding,) = doctor.card_findings(gpu.current())
    return finding


@pytest.mark.parametrize(
    ("machine", "cause", "mend"),
    [
        ("wsl", "WSL2 sees no NVIDIA driver of Windows", "wsl.exe --shutdown"),
        ("colab", "this notebook has no GPU", "Change runtime type"),
        ("kaggle", "this notebook has no GPU", "Accelerator"),
        ("slurm", "a job of Slurm may have one", "srun --gres=gpu:1"),
        ("plain", "none from NVIDIA", None),
        ("job", "none from NVIDIA", None),
        ("docker", "none from NVIDIA", None),
    ],
)
def test_why_there_is_no_card(machine, cause, mend, at, monkeypatch):
    monkeypatch.setattr(gpu, "LIBRARY", "libnothing-of-this-name.so.1")
    finding = no_card(at, machine)
    assert cause in finding.state and finding.stops is None
    assert (mend or "") in (finding.mend or "") and bool(finding.mend) == bool(mend)


@pytest.mark.parametrize(
    ("machine", "cause", "mend"),
    [
        ("docker", "was not given it", "docker run --gpus all"),
        ("apptainer", "was not given it", "apptainer exec --nv"),
        ("kubernetes", "was not given it", "nvidia.com/gpu: 1"),
        ("plain", "its library", "sudo apt-get install libnvidia-compute-580"),
    ],
)
def test_a_driver_without_its_library(machine, cause, mend, at, monkeypatch):
    """In a container the library comes with the card, and is not to be installed."""
    monkeypatch.setattr(gpu, "LIBRARY", "libnothing-of-this-name.so.1")
    monkeypatch.setattr(doctor.card, "DRIVER_RUNS", Path("/proc/self/stat"))
    finding = no_card(at, machine)
    assert finding.stops == "gpu"
    assert cause in finding.state and mend in (finding.mend or "")


def test_libraries_of_windows_that_are_not_searched(at, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "LIBRARY", "libnothing-of-this-name.so.1")
    monkeypatch.setattr(doctor.card, "WSL_LIBRARIES", tmp_path)
    (tmp_path / gpu.LIBRARY).touch()
    assert no_card(at, "wsl").mend == f"export LD_LIBRARY_PATH={tmp_path}"


@pytest.mark.parametrize(
    ("machine", "error", "mend"),
    [
        ("plain", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "sudo modprobe nvidia"),
        ("docker", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "docker restart"),
        # a container that lost its devices when systemd was reloaded
        ("docker", pynvml.NVML_ERROR_UNKNOWN, "docker restart"),
        ("wsl", pynvml.NVML_ERROR_UNKNOWN, "wsl.exe --shutdown"),
        ("colab", pynvml.NVML_ERROR_UNKNOWN, "delete runtime"),
        ("kaggle", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Restart session"),
    ],
)
def test_a_driver_that_cannot_be_asked(machine, error, mend, at, driver):
    driver.says(init_error=error)
    finding = no_card(at, machine)
    assert finding.stops == "gpu" and mend in (finding.mend or "")


@pytest.mark.parametrize(
    ("machine", "compiler", "headers"),
    [
        ("plain", "sudo apt-get install gcc", "-dev"),
        ("modules", "module load gcc", "uv venv --managed-python"),
        ("job", "module load gcc", "uv venv --managed-python"),
    ],
)
def test_a_compiler_where_users_may_not_install(machine, compiler, headers, at, monkeypatch):
    at(machine)
    (finding,) = packages._compiler()
    assert (finding.mend, finding.stops) == (compiler, "gpu")
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": "/nowhere"})
    (finding,) = packages._compiler()
    assert headers in (finding.mend or "")


def test_conda_brings_a_compiler(monkeypatch):
    monkeypatch.setenv("CONDA_PREFIX", "/opt/conda")
    assert packages._compiler()[0].mend == "conda install -c conda-forge gcc"


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A vLLM whose compiled module is linked with this CUDA."""

    def install(cuda: str) -> None:
        folder = tmp_path / "site" / "vllm"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / "_C.abi3.so").write_bytes(b"\x7fELF\0libcudart.so." + cuda.encode() + b"\0")
        information = folder.with_name("vllm-0.26.0.dist-info")
        information.mkdir(exist_ok=True)
        asked = "".join(f"Requires-Dist: {r}\n" for r in ("torch==2.11.0", "torchvision==0.26.0"))
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: 0.26.0\n{asked}"
        )
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install


@pytest.mark.parametrize(
    ("torch", "engine", "is_same"),
    [("12.8", "13", False), ("13.0", "13", True), ("13", "12", False)],
)
def test_torch_of_another_cuda_than_vllms(torch, engine, is_same, vllm, monkeypatch):
    """Colab, mid 2026: torch 2.11.0+cu128 is there, and `==2.11.0` of vLLM's wheel keeps it."""
    vllm(engine)
    monkeypatch.setattr(packages, "torch_cuda", lambda: torch)
    new = gpu.Gpu(**(vars(CARD) | {"driver": "580.1"}))
    finding, driver = packages._torch_build(new, None)
    assert driver.subject == "driver" and driver.level == "ok"
    assert (finding.stops is None) == is_same
    if not is_same:
        assert f"for CUDA {torch}, and vLLM 0.26.0 for CUDA {engine}" in finding.state
        assert finding.mend == (
            "python -m pip install --force-reinstall 'torch==2.11.0' 'torchvision==0.26.0'"
        )


def test_vllm_that_is_not_there_has_no_cuda():
    assert packages.version("vllm") or packages.vllm_cuda() is None


def used(free_mib: int, used_mib: int, **more: object) -> FakeCard:
    return FakeCard("NVIDIA L4", free_mib * MIB, used_mib * MIB, **more)  # type: ignore[arg-type]


def test_whose_process_holds_the_card(driver, monkeypatch):
    """Another user's process cannot be ended, so it is said whom to ask."""
    mine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder = (mine.pid, "/usr/bin/python3", 9000 * MIB)
        driver.says(used(13000, 9690, processes=[holder]))
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid())
        (finding,) = doctor.card.holders(gpu.visible()[0])
        assert finding.mend == f"kill {mine.pid}" and " of " not in finding.state
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        (finding,) = doctor.card.holders(gpu.visible()[0])
        assert f"of {doctor.card.another_user(mine.pid)}) holds 8.8 GiB" in finding.state
        assert (finding.mend or "").startswith(f"ps -o user,etime,cmd -p {mine.pid}  #")
        assert doctor.card.end_another(gpu.visible()[0]) == finding.mend
    finally:
        mine.communicate(b"\n")


@pytest.mark.parametrize(
    ("machine", "whom", "mend"),
    [
        ("wsl", "a program of Windows", "powershell.exe nvidia-smi"),
        ("docker", "a program outside this container", "on the host"),
        ("plain", "a program that the driver does not list", "nvidia-smi"),
    ],
)
def test_memory_of_which_no_process_is_seen_is_held_by_somebody(machine, whom, mend, at, driver):
    driver.says(used(13000, 9690))
    at(machine)
    (finding,) = doctor.card.holders(gpu.visible()[0])
    assert whom in finding.state and "9.5 GiB" in finding.state and mend in (finding.mend or "")
    driver.says(used(22000, 690))  # a desktop
    assert not doctor.card.holders(gpu.visible()[0])


def test_root_needs_no_sudo(monkeypatch):
    assert host.as_root("reboot") == "sudo reboot"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host.as_root("reboot") == "reboot"

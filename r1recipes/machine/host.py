"""The processor and the main memory of this machine, and what kind of machine it is: WSL2, a
container, a notebook service or a cluster, where another has the driver or the rights to install.

Limits: Linux; a container or a service that hides what it is counts as a plain machine.
"""

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
VERSION = Path("/proc/version")
CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))
CGROUP = Path("/proc/1/cgroup")
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # before cgroups 2
)
PROCESSES = Path("/proc")
VECTORS = {"avx512f": "avx512", "avx2": "avx2", "sve": "sve", "asimd": "neon"}
"""Flag in /proc/cpuinfo -> name, the widest first (published: Linux, Documentation/arch)."""

Place = Literal["wsl", "container", "colab", "kaggle"]
_SERVICES: Mapping[str, Place] = {
    "COLAB_RELEASE_TAG": "colab",
    "COLAB_GPU": "colab",
    "KAGGLE_KERNEL_RUN_TYPE": "kaggle",
    "KAGGLE_URL_BASE": "kaggle",
}
_CONTAINERS = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "KUBERNETES_SERVICE_HOST")
_RUNTIMES = ("docker", "kubepods", "containerd", "libpod", "/lxc")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu() -> str:
    """The processor's model and its widest vector instructions, such as `AMD EPYC, avx512`: torch
    and its libraries choose their kernels by both. Without a model, as on ARM, the architecture."""
    pairs = (line.partition(":") for line in _read(CPUINFO).splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    name = fields.get("model name") or platform.machine() or "unknown"
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    vectors = [label for flag, label in VECTORS.items() if flag in flags][:1]
    return ", ".join([" ".join(name.split()), *vectors])


def memory_bytes() -> int:
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int | None:
    """Main memory that programs can still take, caches among it; None where that is not told."""
    lines = _read(MEMINFO).splitlines()
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return free[0] if free else None


def memory_limit() -> int | None:
    """Bytes of main memory that a container may take; None without a limit."""
    limits = [_read(path).strip() for path in LIMITS]
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


@dataclass(frozen=True)
class Taker:
    """A process with the main memory that it takes."""

    pid: int
    name: str
    used_bytes: int
    is_own: bool
    """It is this process."""


def largest_processes(count: int) -> list[Taker]:
    """The processes that take most main memory, of those that are seen here."""
    page, takers = os.sysconf("SC_PAGE_SIZE"), []
    for folder in PROCESSES.glob("[0-9]*"):
        pages = _read(folder / "statm").split()
        if len(pages) > 1:  # else it has ended
            pid, name = int(folder.name), _read(folder / "comm").strip()
            takers.append(Taker(pid, name, int(pages[1]) * page, pid == os.getpid()))
    return sorted(takers, key=lambda taker: -taker.used_bytes)[:count]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def place() -> Place | None:
    """Where this process runs, if somebody else has the driver; None on a plain machine."""
    for variable, service in _SERVICES.items():
        if variable in os.environ:
            return service
    if any(path.exists() for path in CONTAINER_FILES):
        return "container"
    cgroup = _read(CGROUP)
    if any(name in os.environ for name in _CONTAINERS) or any(r in cgroup for r in _RUNTIMES):
        return "container"
    return "wsl" if "microsoft" in _read(VERSION).lower() else None


def cluster() -> Literal["slurm", "modules"] | None:
    """Whether software comes as modules or cards by Slurm, on machines of many users."""
    if "SLURM_JOB_ID" in os.environ or shutil.which("srun"):
        return "slurm"
    return "modules" if "MODULESHOME" in os.environ or "LMOD_CMD" in os.environ else None


def as_root(command: str) -> str:
    """A command that needs the rights of root: with sudo where this user has not got them."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def needs_driver(version: int) -> tuple[str, str]:
    """Who has to install a driver that is new enough, as a clause, and the command."""
    command = f"apt-get install nvidia-driver-{version}"
    match place():
        case "wsl":
            after = f"# once driver {version} or newer is installed in Windows"
            return "WSL2 uses the driver of Windows", f"wsl.exe --shutdown  {after}"
        case "container":
            on_host = f"sudo {command}  # on the host, not in the container"
            return "a container uses the driver of its host", on_host
        case "colab" | "kaggle":
            # Plain TRL works with the torch that the service has for its driver.
            return "the service has the driver", "python -m pip uninstall -y unsloth vllm"
        case None:
            return "", as_root(command)


def restart() -> str:
    """The command that loads the driver anew."""
    match place():
        case "wsl":
            return "wsl.exe --shutdown"
        case "container":
            return "docker restart CONTAINER  # on the host; the driver is the host's"
        case "colab":
            return "# Runtime > Disconnect and delete runtime, then connect again"
        case "kaggle":
            return "# Run > Restart session"
        case None:
            return as_root("reboot")

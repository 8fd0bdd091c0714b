"""What the doctor says of the card: what it can do, who holds its memory, or why there is none.

A mend is for the machine at hand: in WSL2 the driver is that of Windows, in a container that of the
host, on Colab and Kaggle a setting of the notebook, on a cluster a job. Limits: one NVIDIA GPU.
"""

import os
from pathlib import Path

from r1recipes.errors import command
from r1recipes.machine import cards, gpu, host
from r1recipes.machine.gpu import Gpu, NoDriver, Process
from r1recipes.machine.packages import Finding
from r1recipes.machine.units import gib

NVIDIA_PCI = "0x10de"
"""PCI vendor number of NVIDIA."""
DRIVER = 580
"""Driver that vLLM's CUDA 13 needs (`packages.MIN_DRIVER`)."""
DRIVER_RUNS = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")
PROCESSES = Path("/proc")
WSL_LIBRARIES = Path("/usr/lib/wsl/lib")
_GIVE_CARD = {
    "container": "docker run --gpus all IMAGE  # with Podman: --device nvidia.com/gpu=all",
    "colab": "# Runtime > Change runtime type > T4 GPU",
    "kaggle": "# Settings > Accelerator > GPU T4 x2, once the phone number is verified",
}
"""Where this process runs -> how it gets a card."""


def card_findings(card: Gpu | None) -> list[Finding]:
    """The card that a run would use, what it can do, and who else holds memory on it."""
    if card is None:
        return [_no_card()]
    findings = [
        Finding(
            "GPU",
            f"{card.name}, compute capability {card.compute_capability}, "
            f"{gib(card.free_bytes)} of {gib(card.total_bytes)} GiB free",
        )
    ]
    if gpu.is_unified(card.name):
        text = "the card uses the main memory, which the system and other programs need as well"
        findings.append(Finding("GPU memory", text))
    if card.compute_capability < cards.MIN_CAPABILITY:
        needed = f"vLLM needs {cards.MIN_CAPABILITY} or more"
        text = f"compute capability {card.compute_capability}; {needed}"
        findings.append(Finding("GPU", text, "gpu", command("run", "tiny", "--preset", "cpu")))
    elif card.compute_capability < 8:
        findings.append(Finding("dtype", "float16: this card has no bfloat16"))
    return findings + holders(card)


def holders(card: Gpu) -> list[Finding]:
    """Who else holds memory of the card: processes with their users, or that somebody does whom
    this system does not show."""
    if processes := other_processes(card):
        return [_in_use(process) for process in processes]
    used = card.total_bytes - card.free_bytes
    if used <= HIDDEN * card.total_bytes or gpu.is_unified(card.name):
        return []
    whom = {
        "wsl": "a program of Windows",
        "container": "a program outside this container",
    }.get(host.place() or "", "a program that the driver does not list")
    return [Finding("GPU in use", f"{whom} holds {gib(used)} GiB", None, _list_all())]


def other_processes(card: Gpu) -> list[Process]:
    """The processes on a card but this one."""
    return [process for process in gpu.processes(card) if process.pid != os.getpid()]


HIDDEN = 0.1
"""Share of a card from which on memory that no process is listed for is worth a word; assumed, as a
desktop takes less."""


def _list_all() -> str:
    match host.place():
        case "wsl":
            return "powershell.exe nvidia-smi"
        case "container":
            return "nvidia-smi  # on the host, which sees all processes"
        case _:
            return "nvidia-smi"


def _in_use(process: Process) -> Finding:
    size = process.used_bytes
    held = "memory, how much is not known" if size is None else f"{gib(size)} GiB"
    name = process.name or "a program"
    user = another_user(process.pid)
    whose = f" of {user}" if user else ""
    text = f"{name} (process {process.pid}{whose}) holds {held}"
    return Finding("GPU in use", text, None, end(process))


def another_user(pid: int) -> str | None:
    """The user of a process that is not this one's; None for one's own, and where it is not seen,
    as from a container."""
    path = PROCESSES / str(pid)
    try:
        user = path.stat().st_uid
    except OSError:  # it has ended
        return None
    if user == os.geteuid():
        return None
    try:
        return path.owner()
    except KeyError:
        return f"user {user}"


def end(process: Process) -> str:
    """The command that frees what a process holds: ending it, or for another user's, who to ask."""
    user = another_user(process.pid)
    if user and os.geteuid() != 0:
        return f"ps -o user,etime,cmd -p {process.pid}  # {user} can end it: ask, or wait"
    return f"kill {process.pid}"


def end_another(card: Gpu) -> str:
    """The command that ends the process that holds most memory, or that lists the processes."""
    processes = other_processes(card)
    if not processes:
        return _list_all()
    return end(max(processes, key=lambda holder: holder.used_bytes or 0))


def _no_card() -> Finding:
    """Why no card is used: no driver, hidden, in slices, unknown to the driver, or not there."""
    try:
        devices = gpu.devices()
    except NoDriver as error:
        return _no_driver(error)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.startswith("MIG-"):
        text = "CUDA_VISIBLE_DEVICES names a MIG slice, and slices are not supported"
        return Finding("GPU", text, "gpu", host.as_root("nvidia-smi -mig 0"))
    if any(device.card for device in devices):
        text = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every card"
        return Finding("GPU", text, "gpu", "unset CUDA_VISIBLE_DEVICES")
    if any(device.is_sliced for device in devices):
        text = "the card is in MIG slices, and slices are not supported"
        return Finding("GPU", text, "gpu", host.as_root("nvidia-smi -mig 0"))
    if devices:
        unknown = devices[0].unknown or ""
        text = f"the driver does not report the card's {unknown}, which a run needs"
        mend = "nvidia-smi -q -d MEMORY" if unknown.startswith("memory") else "nvidia-smi -q"
        return Finding("GPU", text, "gpu", mend)
    return Finding("GPU", "the NVIDIA driver lists no card", "gpu", host.restart())


def _no_driver(error: NoDriver) -> Finding:
    place = host.place()
    if error.kind != "no library":
        mend = host.restart()
        if error.kind == "not loaded" and place is None:
            mend = host.as_root("modprobe nvidia")
        whose = "" if place is None else "; " + host.needs_driver(DRIVER)[0]
        text = f"the NVIDIA driver cannot be asked: {error}{whose}"
        return Finding("GPU", text, "gpu", mend)
    if place == "wsl":
        return _no_wsl_library()
    is_there = DRIVER_RUNS.exists() or any(_is_nvidia(d) for d in PCI_DEVICES.glob("*"))
    if place and (is_there or place != "container"):
        text = {
            "container": "the machine has an NVIDIA card, and the container was not given it",
            "colab": "this notebook has no GPU",
            "kaggle": "this notebook has no GPU",
        }[place]
        return Finding("GPU", text, "gpu" if place == "container" else None, _give_card(place))
    if DRIVER_RUNS.exists():
        text = f"the driver runs, but its library {gpu.LIBRARY} is not there"
        mend = host.as_root(f"apt-get install libnvidia-compute-{DRIVER}")
        return Finding("GPU", text, "gpu", mend)
    if is_there:
        text = "there is an NVIDIA card, but no driver"
        return Finding("GPU", text, "gpu", host.needs_driver(DRIVER)[1])
    if host.cluster() == "slurm" and "SLURM_JOB_ID" not in os.environ:
        text = "none from NVIDIA on this machine; a job of Slurm may have one"
        return Finding("GPU", text, None, "srun --gres=gpu:1 --pty bash")
    return Finding("GPU", "none from NVIDIA")


def _give_card(place: str) -> str:
    in_apptainer = {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"} & os.environ.keys()
    if in_apptainer:
        return "apptainer exec --nv IMAGE COMMAND"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "# in the pod's container: resources: {limits: {nvidia.com/gpu: 1}}"
    return _GIVE_CARD[place]


def _no_wsl_library() -> Finding:
    """WSL2 shows the libraries of the Windows driver in a folder of its own."""
    if (WSL_LIBRARIES / gpu.LIBRARY).exists():
        text = f"the driver of Windows is there, but {WSL_LIBRARIES} is not searched for libraries"
        return Finding("GPU", text, "gpu", f"export LD_LIBRARY_PATH={WSL_LIBRARIES}")
    text = "WSL2 sees no NVIDIA driver of Windows"
    return Finding("GPU", text, None, host.needs_driver(DRIVER)[1])


def _is_nvidia(device: Path) -> bool:
    try:  # class 0x03....: a display controller
        vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
    except OSError:
        return False
    return vendor.strip() == NVIDIA_PCI and kind.startswith("0x03")

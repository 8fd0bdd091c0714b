"""What this machine has: its GPU, cores and packages. Never imports torch.

One GPU is used: the first of CUDA_VISIBLE_DEVICES, or without that the one with most free memory.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA card as its driver reports it; sizes in bytes."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: float
    driver: str


def current_gpu() -> Gpu | None:
    """The GPU that a run would use, or None without an NVIDIA driver or card."""
    cards = gpus()
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return cards[0] if cards else None
    return max(cards, key=lambda card: card.free_bytes, default=None)


def use(card: Gpu) -> None:
    """Let CUDA see this card alone; before torch is imported.

    CUDA counts cards in an order of its own, and a trainer spreads its batches over all it sees.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
    os.environ["CUDA_VISIBLE_DEVICES"] = str(card.index)


def take_gpu() -> Gpu | None:
    """The GPU that a run uses, and from now on the only one: free memory may change in between."""
    card = current_gpu()
    if card:
        use(card)
    return card


def gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; all of them without it."""
    if not shutil.which("nvidia-smi"):
        return []
    # Not memory.total, which has what the driver keeps for itself: 15,360 MiB of a T4, 15,095 of
    # which CUDA sees.
    query = "index,name,memory.free,memory.used,compute_cap,driver_version,uuid"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    cards = [row for line in output.stdout.splitlines() if (row := _card(line))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [card for card, _ in cards]
    found = []
    for name in (name.strip() for name in visible.split(",")):
        named = [card for card, uuid in cards if _names(name, card, uuid)]
        if not named:  # CUDA sees none from here on
            break
        found += named[:1]
    return found


def _names(name: str, card: Gpu, uuid: str) -> bool:
    """Whether CUDA takes it for this card: its number, or the beginning of its UUID."""
    return name == str(card.index) or (name.startswith("GPU-") and uuid.startswith(name))


def _card(line: str) -> tuple[Gpu, str] | None:
    fields = [field.strip() for field in line.split(",")]
    try:
        index, name, free, used, capability, driver, uuid = fields
        free_bytes, used_bytes = int(free) * 2**20, int(used) * 2**20
        total_bytes = free_bytes + used_bytes
        card = Gpu(int(index), name, total_bytes, free_bytes, float(capability), driver)
    except ValueError:
        return None
    return card, uuid


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe() -> str:
    """One line such as `2 cores, 24 GiB, no GPU`."""
    card = current_gpu()
    if card:
        return f"{card.name}, {card.total_bytes / 2**30:.0f} GiB, driver {card.driver}"
    return f"{cores()} cores, {memory_bytes() / 2**30:.0f} GiB, no GPU"

"""Graphics cards: memory, compute capability, and what they do at most, each with its source."""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A card as it is sold and as CUDA sees it.

    `usable_bytes` is the total that CUDA reports on Linux (torch's total_memory). `nvidia-smi`
    counts up to 5 % more; Windows reports the full size.
    """

    sold_gb: int
    usable_bytes: int
    compute_capability: float
    status: Literal["measured", "published", "derived", "assumed"]
    source: str


def _card(gb: int, usable_gib: float, capability: float, status: str, source: str) -> Card:
    return Card(gb, int(usable_gib * GIB), capability, status, source)


# "banner" is the line `Num GPUs = 1. Max memory: .. GB` of a public log: Unsloth prints torch's
# total_memory / 2**30 to three digits. Capabilities: developer.nvidia.com/cuda-gpus and banners.
_NOTEBOOKS = "saved logs of unslothai/notebooks at bdda2efc"
GPUS: dict[str, Card] = {
    "RTX 3050 6GB": _card(6, 5.41, 8.6, "assumed", "90 % of its name; no other row is below 91 %"),
    "RTX 4060 8GB": _card(8, 7.62, 8.9, "published", "torch's out-of-memory messages, Linux"),
    "RTX 3060 12GB": _card(12, 11.747, 8.6, "published", "banner, Unsloth 2025.5.7, Linux"),
    "RTX 4070 12GB": _card(12, 11.70, 8.9, "derived", "12282 MiB in nvidia-smi like the 4070 Ti"),
    "RTX 4070 Ti 12GB": _card(12, 11.70, 8.9, "published", "Kwai-Kolors/Kolors issue 11"),
    "T4 16GB": _card(16, 14.741, 7.5, "published", _NOTEBOOKS),
    "RTX 4060 Ti 16GB": _card(16, 15.572, 8.9, "published", "banner, Unsloth 2025.11.6, Linux"),
    "RTX 5060 Ti 16GB": _card(16, 15.444, 12.0, "published", "banner, Unsloth 2025.9.6, Linux"),
    "L4 24GB": _card(24, 22.16, 8.9, "published", _NOTEBOOKS),
    "A10 24GB": _card(24, 21.988, 8.6, "assumed", "as the A10G, which is the same chip"),
    "A10G 24GB": _card(24, 21.988, 8.6, "published", "banner, Unsloth 2024.8, Linux"),
    "RTX 3090 24GB": _card(24, 23.684, 8.6, "published", "banner, Unsloth 2025.8.4, Linux"),
    "RTX 4090 24GB": _card(24, 23.64, 8.9, "published", _NOTEBOOKS),
    "RTX 5090 32GB": _card(32, 31.342, 12.0, "published", "banner, Unsloth 2026.6.7, Linux"),
    "A100 40GB": _card(40, 39.56, 8.0, "published", _NOTEBOOKS),
    "L40S 48GB": _card(48, 44.392, 8.9, "published", "banner, Unsloth 2026.10.2, Linux"),
    # with error correction, the default; without it 47.431
    "RTX A6000 48GB": _card(48, 44.427, 8.6, "published", "banner, Unsloth 2026.7.6, Linux"),
    "A100 80GB": _card(80, 79.151, 8.0, "published", "banner, Unsloth 2025.6.12, Linux"),
    "H100 80GB": _card(80, 79.179, 9.0, "published", "banner, Unsloth 2026.8.9; measured: 79.2"),
    "H200 141GB": _card(141, 139.7, 9.0, "published", "banner, Unsloth 2026.5.2"),
}

_NOISE = re.compile(r"\b(nvidia|geforce|tesla|quadro|sxm\d?|pcie|hbm\w*)\b|[^a-z0-9 ]")


def find_gpu(name: str) -> Card | None:
    """The card of a driver's name such as `NVIDIA A100-SXM4-40GB`, or of a short one such as `T4`.

    None when it is unknown, or when the name fits cards of several sizes and does not say which.
    """
    asked = _plain(name)
    fitting = [card for key, card in GPUS.items() if asked in _names(key)]
    return fitting[0] if len(fitting) == 1 else None


def nearest_gpus(name: str) -> list[str]:
    """Cards that somebody may have meant: of several sizes all, else the most alike."""
    asked = _plain(name)
    sizes = [key for key in GPUS if asked in _names(key)]
    known = {short: key for key in GPUS for short in _names(key)}
    alike = difflib.get_close_matches(asked, known, n=6, cutoff=0.5)
    return sizes or list(dict.fromkeys(known[short] for short in alike))[:3]


def _plain(name: str) -> str:
    asked = " ".join(_NOISE.sub(" ", re.sub("[-_]", " ", name.lower())).split())
    return re.sub(r" (\d+) gb$", r" \1gb", re.sub(r"^(rtx|gtx)(?=\d)", r"\1 ", asked))


def _names(key: str) -> tuple[str, ...]:
    """Ways to write a card: with its size and without, with RTX and without."""
    full = key.lower()
    short = full.rpartition(" ")[0]
    return full, short, full.removeprefix("rtx "), short.removeprefix("rtx ")


def size_class(usable_bytes: int, usable_share: float) -> str:
    """The size that a card is sold as, such as `16GB`, of those that are sold."""
    sold = sorted({card.sold_gb for card in GPUS.values()})
    held = [gb for gb in sold if gb * GIB * usable_share <= usable_bytes]
    return f"{held[-1] if held else max(1, usable_bytes // GIB)}GB"


@dataclass(frozen=True)
class Peak:
    """What a card can do at most, by its vendor: bytes and 16-bit operations a second."""

    bandwidth: float
    operations: float


PEAKS = {
    "T4 16GB": Peak(320e9, 65e12),
    "L4 24GB": Peak(300e9, 121e12),
    "RTX 4090 24GB": Peak(1.008e12, 165e12),
    "A100 40GB": Peak(1.555e12, 312e12),
    "A100 80GB": Peak(2.039e12, 312e12),
    "H100 80GB": Peak(3.35e12, 989e12),
    "H200 141GB": Peak(4.8e12, 989e12),
}
UNLISTED = PEAKS["RTX 4090 24GB"]

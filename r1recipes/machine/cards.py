"""Graphics cards: memory, compute capability, and what they do at most, each with its source."""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from r1recipes.machine.units import GIB

Status = Literal["measured", "published", "derived", "assumed"]


@dataclass(frozen=True)
class Peak:
    """What a card can do at most, by its vendor: bytes and dense 16-bit operations a second."""

    bandwidth: float
    operations: float


@dataclass(frozen=True)
class Card:
    """A card as it is sold and as CUDA sees it.

    `usable_bytes` is the total that CUDA reports on Linux (torch's total_memory). `nvidia-smi`
    counts up to 5 % more; Windows reports the full size.
    """

    name: str
    """Its last word is the size that it is sold as."""
    usable_bytes: int
    compute_capability: float
    status: Status
    """How `usable_bytes` is known."""
    source: str
    peak: Peak | None = None
    """None where no source is known."""

    @property
    def sold_gb(self) -> int:
        return int(self.name.rpartition(" ")[2].removesuffix("GB"))


def _card(
    name: str,
    usable_gib: float,
    capability: float,
    status: Status,
    source: str,
    gb_per_s: float | None = None,
    tflops: float | None = None,
) -> Card:
    peak = Peak(gb_per_s * 1e9, tflops * 1e12) if gb_per_s and tflops else None
    return Card(name, int(usable_gib * GIB), capability, status, source, peak)


# "banner" is the line `Num GPUs = 1. Max memory: .. GB` of a public log: Unsloth prints torch's
# total_memory / 2**30 to three digits. Capabilities: developer.nvidia.com/cuda-gpus and banners.
# The last two columns, GB/s and TFLOPS dense in 16 bits, are from the vendors' data sheets.
_NOTEBOOKS = "saved logs of unslothai/notebooks at bdda2efc"
_ROWS = (
    _card("RTX 3050 6GB", 5.41, 8.6, "assumed", "90 % of its name; no other row is below 91 %"),
    _card("RTX 4060 8GB", 7.62, 8.9, "published", "torch's out-of-memory messages, Linux"),
    _card("RTX 3060 12GB", 11.747, 8.6, "published", "banner, Unsloth 2025.5.7, Linux"),
    _card("RTX 4070 12GB", 11.70, 8.9, "derived", "12282 MiB in nvidia-smi like the 4070 Ti"),
    _card("RTX 4070 Ti 12GB", 11.70, 8.9, "published", "Kwai-Kolors/Kolors issue 11"),
    _card("T4 16GB", 14.741, 7.5, "published", _NOTEBOOKS, 320, 65),
    _card("RTX 4060 Ti 16GB", 15.572, 8.9, "published", "banner, Unsloth 2025.11.6, Linux"),
    _card("RTX 5060 Ti 16GB", 15.444, 12.0, "published", "banner, Unsloth 2025.9.6, Linux"),
    _card("L4 24GB", 22.16, 8.9, "published", _NOTEBOOKS, 300, 121),
    _card("A10 24GB", 21.988, 8.6, "assumed", "as the A10G, which is the same chip"),
    _card("A10G 24GB", 21.988, 8.6, "published", "banner, Unsloth 2024.8, Linux"),
    _card("RTX 3090 24GB", 23.684, 8.6, "published", "banner, Unsloth 2025.8.4, Linux"),
    _card("RTX 4090 24GB", 23.64, 8.9, "published", _NOTEBOOKS, 1008, 165),
    _card("RTX 5090 32GB", 31.342, 12.0, "published", "banner, Unsloth 2026.6.7, Linux"),
    _card("A100 40GB", 39.56, 8.0, "published", _NOTEBOOKS, 1555, 312),
    _card("L40S 48GB", 44.392, 8.9, "published", "banner, Unsloth 2026.10.2, Linux"),
    # with error correction, the default; without it 47.431
    _card("RTX A6000 48GB", 44.427, 8.6, "published", "banner, Unsloth 2026.7.6, Linux"),
    _card("A100 80GB", 79.151, 8.0, "published", "banner, Unsloth 2025.6.12, Linux", 2039, 312),
    _card("H100 80GB", 79.179, 9.0, "published", "banner, Unsloth 2026.8.9; measured", 3350, 989),
    _card("H200 141GB", 139.7, 9.0, "published", "banner, Unsloth 2026.5.2", 4800, 989),
)
GPUS = {card.name: card for card in _ROWS}
USABLE_SHARE = 0.90
"""A card sold as 16 GB reports less: T4 14.74, L4 22.16, RTX 4090 23.64, A100 39.56, H100 79.2 GiB
(saved logs of the Unsloth notebooks at bdda2efc). 90 % of the name separates the size classes."""
UNLISTED = Peak(1.008e12, 165e12)
"""Assumed of a card whose peak is not known: that of an RTX 4090."""

_NOISE = re.compile(r"\b(nvidia|geforce|tesla|quadro|sxm\d?|pcie|hbm\w*)\b|[^a-z0-9 ]")


def find_gpu(name: str) -> Card | None:
    """The card with a driver's name such as `NVIDIA A100-SXM4-40GB`, or a short one such as `T4`.

    None when it is unknown, or when the name fits cards of several sizes and does not say which.
    """
    plain = _plain(name)
    fitting = [card for key, card in GPUS.items() if plain in _names(key)]
    return fitting[0] if len(fitting) == 1 else None


def nearest_gpus(name: str) -> list[str]:
    """Cards that a user may have meant: all sizes of one model, else the most similar names."""
    plain = _plain(name)
    sizes = [key for key in GPUS if plain in _names(key)]
    keys = {short: key for key in GPUS for short in _names(key)}
    similar = difflib.get_close_matches(plain, keys, n=6, cutoff=0.5)
    return sizes or list(dict.fromkeys(keys[short] for short in similar))[:3]


def _plain(name: str) -> str:
    """A name in lower case without the maker, the series and the form of the card."""
    words = " ".join(_NOISE.sub(" ", re.sub("[-_]", " ", name.lower())).split())
    return re.sub(r" (\d+) gb$", r" \1gb", re.sub(r"^(rtx|gtx)(?=\d)", r"\1 ", words))


def _names(key: str) -> tuple[str, ...]:
    """Ways to write a card: with its size and without, with RTX and without."""
    full = key.lower()
    short = full.rpartition(" ")[0]
    return full, short, full.removeprefix("rtx "), short.removeprefix("rtx ")


def sold_as(gigabytes: float) -> list[int]:
    """Usable bytes of each card that is sold with this much memory."""
    return [card.usable_bytes for card in GPUS.values() if card.sold_gb == gigabytes]


def size_class(usable_bytes: int) -> str:
    """The largest size that cards are sold in, such as `16GB`, whose usable memory this one has."""
    sold = sorted({card.sold_gb for card in GPUS.values()})
    held = [gb for gb in sold if gb * GIB * USABLE_SHARE <= usable_bytes]
    return f"{held[-1] if held else max(1, usable_bytes // GIB)}GB"

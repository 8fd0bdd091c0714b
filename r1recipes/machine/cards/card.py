"""A graphics card as it is sold and as CUDA sees it, and what it can do at most.

Limits: NVIDIA cards; what a laptop's card reaches depends on the power that the laptop grants it.
"""

from dataclasses import dataclass
from typing import Literal

from r1recipes.machine.units import GIB

Status = Literal["measured", "published", "derived", "assumed"]


@dataclass(frozen=True)
class Peak:
    """What a card can do at most: bytes and dense 16-bit operations a second."""

    bandwidth: float
    operations: float
    status: Literal["published", "derived", "assumed"] = "published"
    """How `operations` is known; the bandwidth is always the vendor's."""


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
    peak: Peak
    aliases: tuple[str, ...] = ()
    """Other names, as drivers, clouds and people write them."""
    is_rare: bool = False
    """The size is meant only where it is written: there is another that nearly all have."""
    is_unified: bool = False
    """The memory is the main memory, which the system and other programs use as well."""

    @property
    def sold_gb(self) -> int:
        return int(self.name.rpartition(" ")[2].removesuffix("GB"))

    @property
    def model(self) -> str:
        """The name without the size."""
        return self.name.rpartition(" ")[0]


@dataclass(frozen=True)
class Row:
    """One line of the table of cards; `None` is derived by the rules of its series."""

    name: str
    gb_per_s: float
    tflops: float
    """In 32 bits without tensor cores, or where the series says so dense in 16 bits."""
    usable_gib: float | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()
    status: Status = "published"
    is_rare: bool = False


@dataclass(frozen=True)
class Series:
    """Cards of one architecture and market."""

    capability: float
    rows: tuple[Row, ...]
    kept_gib: float = 0.0
    """GiB that the driver keeps of a card whose usable memory has no source: the most that it keeps
    of a card of the series that has one."""
    kept_share: float = 0.0
    """The same as a share of the memory, where error correction or the system takes it."""
    rate: float | None = None
    """Dense 16-bit operations with 32-bit sums for each 32-bit operation; None where the rows have
    them as published."""
    is_unified: bool = False

    def cards(self) -> list[Card]:
        return [self._card(row) for row in self.rows]

    def _card(self, row: Row) -> Card:
        sold = float(row.name.rpartition(" ")[2].removesuffix("GB"))
        gib, status, source = row.usable_gib, row.status, row.source
        if gib is None:
            gib, status = sold * (1 - self.kept_share) - self.kept_gib, "derived"
            source = "its size without what the driver keeps of others of its series"
        peak = Peak(
            row.gb_per_s * 1e9,
            row.tflops * (self.rate or 1) * 1e12,
            "derived" if self.rate else "published",
        )
        return Card(
            row.name,
            int(gib * GIB),
            self.capability,
            status,
            source,
            peak,
            row.aliases,
            row.is_rare,
            self.is_unified,
        )

"""Sizes, times, shares, long texts and tables as people read them."""

import math
from collections.abc import Collection, Sequence

from r1recipes.errors import visible

GIB = 2**30


def gib(size: float, digits: int = 1) -> str:
    """Bytes in GiB, such as `13.1`."""
    return f"{size / GIB:.{digits}f}"


def gigabytes(size: int) -> str:
    """Bytes on a disk, such as `29.3 GB` or `4.0 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def percent(share: float) -> str:
    """A share such as `84%`; `-` for one that is not a number."""
    return "-" if math.isnan(share) else f"{share:.0%}"


def cut(line: str, width: int) -> str:
    """A line of at most `width` characters, with `...` where something is left out."""
    return line if len(line) <= width else f"{line[: width - 3]}..."


def shortened(text: str, width: int) -> str:
    """The beginning of a text of any length, as one line of at most `width` characters."""
    return cut(" ".join(text.split()), width)


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> list[str]:
    """The lines of a table. The columns in `numbers` end under one another, the others begin so.

    A row with a single cell is a heading, and widens no column. Cells may have foreign text.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def duration(seconds: float) -> str:
    """Seconds as every command and page writes them: `9 s`, `2 min 56 s` or `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

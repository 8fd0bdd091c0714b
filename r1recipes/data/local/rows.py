"""Reads the columns and the first rows of a data file, within a tenth of a second.

Limits: what stands behind the first `SAMPLE_BYTES` is not looked at; values of a .csv are texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.data import sources
from r1recipes.errors import RecipeError

SAMPLE_BYTES = 4 * 2**20
"""Bytes of a data file that are read; assumed, some thousand rows, in about 0.1 s."""


@dataclass(frozen=True)
class Sample:
    """The first rows of a file."""

    rows: list[dict[str, Any]]
    is_whole: bool

    @property
    def about(self) -> str:
        count = f"{len(self.rows):,} row" + "s" * (len(self.rows) != 1)
        return count if self.is_whole else f"{count} of more"


def sample(path: Path, key: str, texts: tuple[str, ...]) -> tuple[list[str], Sample]:
    """The columns of a data file, and its first rows. Raises: RecipeError."""
    reader = sources.check_file(path, key)
    try:
        columns, rows, is_whole = reader.first(path, texts, SAMPLE_BYTES)
    except OSError as error:
        raise RecipeError.at(str(path), f"cannot be read: {error.strerror or error}") from error
    if not rows:
        hint = f"`{key}` must name a file with at least one row"
        raise RecipeError.at(str(path), "has no rows", hint)
    return columns, Sample(rows, is_whole)

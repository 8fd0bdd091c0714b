"""Reads a .csv file, whose columns may be separated by another mark than a comma.

Limits: UTF-8 with one line of names; no comments, and no decimal commas.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow

SEPARATORS = (",", ";", "\t", "|")
"""What may stand between columns; the first of those that serve alike is taken."""
MAX_HEADER_BYTES = 100_000
"""Bytes of the first line that are looked at; assumed."""


def read(path: Path, texts: Sequence[str]) -> pyarrow.Table:
    """The table of a file; the columns in `texts` are not read as numbers.

    Raises: OSError, and pyarrow.ArrowException for a file that is not valid.
    """
    import pyarrow
    from pyarrow import csv as arrow_csv

    return arrow_csv.read_csv(
        path,
        # One thread: only then the message on a broken row has its number.
        read_options=arrow_csv.ReadOptions(use_threads=False),
        parse_options=arrow_csv.ParseOptions(
            delimiter=separator(path, texts), newlines_in_values=True
        ),
        # An answer such as 007 or 1e5 is a text, not a number.
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(texts, pyarrow.string())
        ),
    )


def separator(path: Path, texts: Sequence[str]) -> str:
    """The mark between the columns: the one that gives the most of the names in `texts`, and of
    those the one that gives the most columns. A spreadsheet writes semicolons where a comma is the
    decimal point. Raises: OSError."""
    header = header_line(path)
    columns = {mark: names(header, mark) for mark in SEPARATORS}
    return max(SEPARATORS, key=lambda m: (len(set(texts) & set(columns[m])), len(columns[m])))


def header_line(path: Path) -> str:
    """The first line, at most `MAX_HEADER_BYTES` of it. Raises: OSError."""
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
    return line.decode("utf-8-sig", errors="replace").strip("\r\n")


def names(header: str, mark: str) -> list[str]:
    """The names of the columns if they are separated by `mark`."""
    try:
        return next(csv.reader([header], delimiter=mark), [])
    except csv.Error:  # a line that ends with CR alone: who reads the rows says so
        return []

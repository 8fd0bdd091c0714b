"""Reads the columns and the first rows of a data file, within a tenth of a second.

Limits: what stands behind the first `SAMPLE_BYTES` is not looked at; values of a .csv are texts. A
kind of file without a shorter way is read whole, however long that takes.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.data import csv_file, sources
from r1recipes.data.sources import json_lines, limits
from r1recipes.errors import Problem, RecipeError, shorten, unreadable

QUOTES = "a text with a separator, a quote or a line break stands in double quotes"
SAMPLE_BYTES = 4 * 2**20
"""Bytes of a data file that are read; assumed, some thousand rows, in about 0.1 s."""
SAMPLE_LINES = 20_000
"""Lines of these that are looked at; assumed: rows of some 200 bytes, as those of most files."""
SAMPLE_ROWS = 1000
"""Rows of another file than of lines that are read; assumed."""


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a file."""

    rows: list[dict[str, Any]]
    is_whole: bool

    @property
    def about(self) -> str:
        count = f"{len(self.rows):,} row" + "s" * (len(self.rows) != 1)
        return count if self.is_whole else f"{count} of more"


def sample(path: Path, key: str, texts: tuple[str, ...]) -> tuple[list[str], FirstRows]:
    """The columns of a data file, and its first rows. Raises: RecipeError."""
    sources.check_file(path, key)
    try:
        match sources.FILES[path.suffix.lower()].first_rows:
            case "jsonl":
                columns, rows = _jsonl(*_first_lines(path), path)
            case "csv":
                columns, rows = _csv(*_first_lines(path), path, texts)
            case "parquet":
                columns, rows = _parquet(path)
            case "whole":
                table = sources.read_file(path, key, texts)
                first = table.select(range(min(SAMPLE_ROWS, len(table))))
                columns, rows = table.column_names, FirstRows(list(first), len(first) == len(table))
    except OSError as error:
        raise unreadable(path, error) from error
    if not rows.rows:
        hint = f"`{key}` must name a file with at least one row"
        raise RecipeError.at(str(path), "has no rows", hint)
    return columns, rows


def _first_lines(path: Path) -> tuple[bytes, bool]:
    """The lines within the first `SAMPLE_BYTES`, and whether they are all. Raises: OSError."""
    with path.open("rb") as file:
        content = file.read(SAMPLE_BYTES)
    is_whole = len(content) < SAMPLE_BYTES
    if not is_whole and b"\n" not in content:
        limits.refuse_lines(path)
    lines = content.split(b"\n", SAMPLE_LINES)
    if len(lines) > SAMPLE_LINES and lines[-1]:
        return b"\n".join(lines[:-1]), False
    return (content if is_whole else content.rpartition(b"\n")[0]), is_whole


def _jsonl(content: bytes, is_whole: bool, path: Path) -> tuple[list[str], FirstRows]:
    rows, names = [], dict[str, None]()
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            row = json_lines.json_object(line, f"{path}:{number}", first=number == 1)
            if isinstance(row, Problem):
                raise RecipeError(problems=[row])
            rows.append(row)
            names |= dict.fromkeys(row)
            limits.refuse_columns(names, path)
    return list(names), FirstRows(rows, is_whole)


def _csv(
    content: bytes, is_whole: bool, path: Path, texts: tuple[str, ...]
) -> tuple[list[str], FirstRows]:
    mark = csv_file.separator(path, texts)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start + 1})"
        raise RecipeError.at(str(path), message, "save the file as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        columns = next(reader, [])
        limits.refuse_columns(columns, path)
        rows = [dict(zip(columns, values, strict=False)) for values in reader if values]
    except csv.Error as error:
        raise RecipeError.at(
            str(path), f"is not a valid {path.suffix} file: {shorten(str(error))}", QUOTES
        ) from error
    # The last one may be cut within a field that has a line break.
    return columns, FirstRows(rows if is_whole else rows[:-1], is_whole)


def _parquet(path: Path) -> tuple[list[str], FirstRows]:
    import pyarrow
    from pyarrow import parquet

    from r1recipes.data.sources import values

    limits.refuse_parquet(path, SAMPLE_ROWS)
    try:
        file = parquet.ParquetFile(path)
        limits.refuse_names(file.schema_arrow, path)
        batch = next(file.iter_batches(batch_size=SAMPLE_ROWS), None)
    except pyarrow.ArrowException as error:
        raise RecipeError.at(
            str(path),
            f"is not a valid .parquet file: {shorten(str(error))}",
            "the suffix must say what the file is; if it does, make it again",
        ) from error
    if batch is not None:
        values.refuse_unreadable(pyarrow.Table.from_batches([batch]), path)
    rows = batch.to_pylist() if batch is not None else []
    return file.schema_arrow.names, FirstRows(rows, len(rows) == file.metadata.num_rows)

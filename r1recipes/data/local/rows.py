"""Reads the columns and the first rows of a data file, within a tenth of a second.

Limits: what stands behind the first `SAMPLE_BYTES` is not looked at; values of a .csv are texts.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.data import csv_file, sources
from r1recipes.errors import Problem, RecipeError

SAMPLE_BYTES = 4 * 2**20
"""Bytes of a data file that are read; assumed, some thousand rows, in about 0.1 s."""
SAMPLE_ROWS = 1000
"""Rows of a .parquet file that are read; assumed."""


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
        if path.suffix.lower() == ".parquet":
            columns, rows = _parquet(path)
        else:
            with path.open("rb") as file:
                content = file.read(SAMPLE_BYTES)
            is_whole = len(content) < SAMPLE_BYTES
            whole = content if is_whole else content.rpartition(b"\n")[0]
            if path.suffix.lower() == ".jsonl":
                columns, rows = _jsonl(whole, path, is_whole)
            else:
                columns, rows = _csv(whole, path, texts, is_whole)
    except OSError as error:
        raise RecipeError.at(str(path), f"cannot be read: {error.strerror or error}") from error
    if not rows.rows:
        hint = f"`{key}` must name a file with at least one row"
        raise RecipeError.at(str(path), "has no rows", hint)
    return columns, rows


def _jsonl(content: bytes, path: Path, is_whole: bool) -> tuple[list[str], FirstRows]:
    rows = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            row = sources.json_object(line, f"{path}:{number}", first=number == 1)
            if isinstance(row, Problem):
                raise RecipeError(problems=[row])
            rows.append(row)
    return list(dict.fromkeys(name for row in rows for name in row)), FirstRows(rows, is_whole)


def _csv(
    content: bytes, path: Path, texts: tuple[str, ...], is_whole: bool
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
        rows = [dict(zip(columns, values, strict=False)) for values in reader if values]
    except csv.Error as error:
        raise RecipeError.at(str(path), f"is not a valid .csv file: {error}") from error
    # The last one may be cut within a field that has a line break.
    return columns, FirstRows(rows if is_whole else rows[:-1], is_whole)


def _parquet(path: Path) -> tuple[list[str], FirstRows]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        batch = next(file.iter_batches(batch_size=SAMPLE_ROWS), None)
    except pyarrow.ArrowException as error:
        raise RecipeError.at(str(path), f"is not a valid .parquet file: {error}") from error
    rows = batch.to_pylist() if batch is not None else []
    return file.schema_arrow.names, FirstRows(rows, len(rows) == file.metadata.num_rows)

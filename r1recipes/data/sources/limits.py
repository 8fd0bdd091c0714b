"""What a data file may have at most: bytes, lines, columns, values, levels.

JSON lines and CSV are counted in this process, before anything is parsed: their time and memory are
at most linear in what is counted. Parquet is compressed, so a small file may be a thousand times as
large; it is first decoded, bit by bit, in a process that can be stopped. Limits: Arrow's decoder is
the same here and there, and a file that changes in between is not looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.errors import RecipeError, first_line, shorten
from r1recipes.machine.files import foreign
from r1recipes.machine.processes import Stoppable
from r1recipes.recipe.references import FILE_SUFFIXES

if TYPE_CHECKING:
    import pyarrow

MAX_BYTES = 64 * 2**20
"""Bytes of a file, and of a .parquet file once it is decoded: those, with the rows and the values
below, that are read within 10 s of CPU time and 1 GB (measured, docs/security.md)."""
MAX_LINE_BYTES = 4 * 2**20
MAX_ROWS = 300_000
MAX_COLUMNS = 500
MAX_VALUES = 4_000_000
PARQUET_LIMIT_S = 4.0
"""Seconds in which a .parquet file must be decoded; 256 MiB of text take 0.5 s (measured)."""
START_LIMIT_S = 60.0
MEMORY_BYTES = 512 * 2**20
"""Bytes of memory that decoding may take; a batch of rows is kept at a time."""
ROWS_IN_PYTHON = 1000
"""Rows that are Python's at a time, beside those that are Arrow's; assumed."""
BATCH_ROWS = 64
MAX_DEPTH = foreign.MAX_DEPTH
_decoder = Stoppable(("pyarrow.parquet",), MEMORY_BYTES)


def refuse_long_prompts(system: str, num_rows: int, num_chars: int) -> None:
    """Raises: RecipeError where the system message, which is in each prompt, makes the prompts of
    `num_rows` questions with `num_chars` characters together too long."""
    repeated = len(system) * num_rows
    if repeated > num_chars and foreign.is_beyond(repeated + num_chars, MAX_BYTES):
        raise RecipeError(
            f"the prompts of {num_rows:,} rows have {repeated + num_chars:,} characters, most of "
            f"them `prompt.system`; {MAX_BYTES:,} are allowed",
            hint="shorten `prompt.system`, or set a smaller `data.size`",
        )


def refuse_braces(texts: Iterable[str], column: str, where: str) -> None:
    """Raises: RecipeError for answers with more opening braces than a file has values."""
    num_braces = sum(text.count("{") for text in texts)
    if foreign.is_beyond(num_braces, MAX_VALUES):
        raise RecipeError(
            f"`{column}` of {where} has {num_braces:,} braces; {MAX_VALUES:,} are allowed",
            hint=foreign.RAISE,
        )


def refuse_large(path: Path) -> None:
    """Raises: RecipeError for a file that is larger than a data file may be; OSError."""
    foreign.refuse_beyond(foreign.plain_size(path), MAX_BYTES, "bytes", path)


def refuse_lines(path: Path) -> None:
    """Raises: RecipeError for a file of lines with too much of anything; OSError."""
    with path.open("rb") as file:
        foreign.count(
            file, path, num_bytes=MAX_BYTES, lines=MAX_ROWS, values=MAX_VALUES, line=MAX_LINE_BYTES
        )


def refuse_folder(folder: Path) -> None:
    """Raises: RecipeError for a data file in a folder that is beyond what a single one may be."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in FILE_SUFFIXES and path.is_file():
            refuse_large(path)
            if path.suffix.lower() == ".parquet":
                refuse_parquet(path)
            else:
                refuse_lines(path)


def refuse_columns(columns: Collection[str], path: Path) -> None:
    """Raises: RecipeError for a file with more columns than a data set has."""
    foreign.refuse_beyond(len(columns), MAX_COLUMNS, "columns", path)


def refuse_cells(num_rows: int, num_columns: int, path: Path) -> None:
    """Raises: RecipeError for a table with too many values, most of which may be absent."""
    foreign.refuse_beyond(num_rows * num_columns, MAX_VALUES, "values, absent ones too", path)


def refuse_names(schema: pyarrow.Schema, path: Path) -> None:
    """Raises: RecipeError for a name of two columns, or of two fields of one, and for a name that
    Arrow would cut, at a NUL."""
    level: list[list[pyarrow.Field]] = [list(schema)]
    while level:
        for fields in level:
            names = Counter(field.name for field in fields)
            if repeated := next((name for name in names if names[name] > 1), None):
                message = f"has more than one column `{repeated}`"
                raise RecipeError.at(str(path), message, "rename one of them")
            if cut := next((name for name in names if "\0" in name), None):
                message = f"has a column `{cut}`, whose name has a NUL"
                raise RecipeError.at(str(path), message, "rename it")
        types = [field.type for fields in level for field in fields]
        level = [[one.field(i) for i in range(one.num_fields)] for one in types if one.num_fields]


def refuse_parquet(path: Path, num_rows: int | None = None) -> None:
    """Raises: RecipeError for a .parquet file that is too large once it is decoded, takes too long
    or cannot be read. With `num_rows` only the first rows are looked at."""
    factor = foreign.factor()
    limits = [int(x * factor) for x in (MAX_ROWS, MAX_COLUMNS, MAX_BYTES, MAX_VALUES)]
    limit_s = PARQUET_LIMIT_S * factor
    outcome = _decoder.call(
        _decode, str(path.absolute()), num_rows, *limits, limit_s=limit_s, start_s=START_LIMIT_S
    )
    if isinstance(outcome, TimeoutError):
        outcome = f"takes more than {limit_s:g} s to decode"
    elif isinstance(outcome, MemoryError):
        outcome = f"takes more than {MEMORY_BYTES // 2**20} MiB of memory to decode"
    elif isinstance(outcome, BaseException):
        outcome = f"is not a valid .parquet file: {shorten(first_line(outcome))}"
    if outcome:
        raise RecipeError.at(str(path), outcome, foreign.RAISE)


def _decode(
    path: str,
    num_rows: int | None,
    max_rows: int,
    max_columns: int,
    max_bytes: int,
    max_values: int,
) -> str | None:
    """In the child: what is too large in a .parquet file, None where nothing is."""
    import pyarrow
    from pyarrow import parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others reserve address space
    file = parquet.ParquetFile(path)
    counts = (
        (file.metadata.num_rows, max_rows, "rows"),
        (file.metadata.num_columns, max_columns, "columns"),
        (max((_depth(field.type) for field in file.schema_arrow), default=0), MAX_DEPTH, "levels"),
    )
    for count, limit, noun in counts:
        if count > limit:
            return f"has {count:,} {noun}; {limit:,} are allowed"
    seen = size = num_values = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        seen, size = seen + batch.num_rows, size + sum(map(_size, batch.columns))
        num_values += sum(map(_num_values, batch.columns))
        if size > max_bytes:
            return f"has more than {max_bytes:,} bytes once it is decoded, which are allowed"
        if num_values > max_values:
            return f"has more than {max_values:,} values once it is decoded, which are allowed"
        if num_rows is not None and seen >= num_rows:
            break
    return None


def _depth(kind: Any) -> int:
    """Levels of an Arrow type, counted to one more than MAX_DEPTH."""
    level, depth = [kind], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [one.field(i).type for one in level for i in range(one.num_fields)]
    return depth


def _size(column: Any) -> int:
    """Bytes of a column, also of one whose equal values are stored once."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return int(column.nbytes)


def _num_values(column: Any) -> int:
    """Values of a column, those in its lists and objects too: a list of a million nulls, truths or
    empty objects has hardly a byte."""
    import pyarrow

    list_types = pyarrow.ListArray, pyarrow.LargeListArray, pyarrow.FixedSizeListArray
    num_values, level = 0, [column]
    while level:
        num_values += sum(map(len, level))
        structs = [array for array in level if pyarrow.types.is_struct(array.type)]
        lists = [array for array in level if isinstance(array, list_types)]
        level = [field for array in structs for field in array.flatten()]
        level += [array.flatten() for array in lists]
    return num_values


def close() -> None:
    """End the process that decodes, if there is one."""
    _decoder.close()

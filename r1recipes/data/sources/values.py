"""Refuses a table with values that Python or `datasets` cannot hold, before a row of it is read.

Arrow takes what a file says: bytes that are no text, a day in the year 0, a time zone that does not
exist, JSON that is none. The first look of each kind is one pass over a column in C; only JSON is
read value by value. Limits: what a Python date can hold is tried on the least and the greatest
value of a column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import compute, types

from r1recipes.errors import RecipeError, first_line, shorten
from r1recipes.machine.files import foreign

HINT = "write this column as texts or numbers, or leave it out"


def refuse_unreadable(table: pyarrow.Table, path: Path) -> None:
    """Raises: RecipeError with the column, and what is wrong with it."""
    import datasets

    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            column.validate(full=True)
            datasets.Features.from_arrow_schema(pyarrow.schema([(name, column.type)]))
            for leaf in _leaves(column.combine_chunks()):
                _try(leaf)
        except (pyarrow.ArrowException, ValueError, TypeError, OverflowError, LookupError) as error:
            message = (
                f"column `{name}` has values that cannot be read: {shorten(first_line(error))}"
            )
            raise RecipeError.at(str(path), message, HINT) from error


def _leaves(array: pyarrow.Array) -> Iterator[pyarrow.Array]:
    """The arrays of plain values that an array is made of; each level of the type is one of these
    calls, and a file has at most `foreign.MAX_DEPTH`."""
    kind = array.type
    if isinstance(array, pyarrow.ChunkedArray):  # too long to be one array
        for chunk in array.chunks:
            yield from _leaves(chunk)
    elif types.is_struct(kind):
        for field in array.flatten():
            yield from _leaves(field)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from _leaves(array.flatten())
    elif types.is_dictionary(kind):
        yield from _leaves(array.dictionary)
    else:
        yield array


def _try(leaf: pyarrow.Array) -> None:
    """Raises: what Python or pyarrow raise for a value that Python cannot hold."""
    if types.is_temporal(leaf.type):
        number = pyarrow.int32() if leaf.type.bit_width == 32 else pyarrow.int64()
        ends = compute.min_max(leaf.view(number)).as_py().values()
        pyarrow.array(ends, number).view(leaf.type).to_pylist()
    elif isinstance(leaf, pyarrow.ExtensionArray):
        for value in leaf.storage.to_pylist():
            _read_json(value)


def _read_json(value: Any) -> None:
    """Raises: ValueError for a text that is no JSON, or that is nested too deeply."""
    try:
        if value is not None and foreign.is_deep(json.loads(value), value.encode()):
            raise ValueError(f"JSON of more than {foreign.MAX_DEPTH} levels")
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error

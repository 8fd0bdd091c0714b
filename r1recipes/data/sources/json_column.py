"""The columns of a .jsonl file; one of objects is a feature in which each row keeps its own keys.

Arrow has one list of keys for a whole column: a row without one of them would get it as null, and
it has one kind of value, so that true, 1 and a list cannot stand together. So such columns are
stored as JSON texts and read again row by row. Limits: imports `datasets`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import datasets
import pyarrow
from datasets.fingerprint import generate_random_fingerprint

from r1recipes.data.sources import limits


class ExactJson(datasets.Json):
    """`datasets.Json`, read by Python's own reader.

    That of pandas, which `datasets` takes (4.8.5, utils/json.py), changes the last digit of one
    decimal in twenty, such as 9.7, and raises for integers of more than 64 bits.
    """

    def decode_example(
        self, example_data: str, token_per_repo_id: dict[str, str | bool | None] | None = None
    ) -> Any:
        return json.loads(example_data)


def of(values: Sequence[Any]) -> pyarrow.Array:
    """Values of any kinds, or None, as a column of JSON texts."""
    texts = [None if value is None else json.dumps(value) for value in values]
    return pyarrow.array(texts, pyarrow.json_())


def has_many_keys(columns: Iterable[Iterable[Any]], limit: int) -> bool:
    """Whether the objects in some columns have more than `limit` different keys between them."""
    keys: set[str] = set()
    level = [value for values in columns for value in values if isinstance(value, dict | list)]
    while level and len(keys) <= limit:
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                keys |= value.keys()
            inner += value.values() if isinstance(value, dict) else value
        level = [value for value in inner if isinstance(value, dict | list)]
    return len(keys) > limit


def read(values: list[Any], *, as_json: bool = False) -> pyarrow.Array:
    """A column of a .jsonl file; texts mixed with numbers become texts, and other kinds that are
    mixed become JSON, as do all lists and objects where `as_json`. Every text must be Unicode."""
    if as_json and any(isinstance(value, dict | list) for value in values):
        return of(values)
    try:
        column = pyarrow.array(values)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
        if all(value is None or type(value) in (str, int, float) for value in values) and not any(
            isinstance(value, float) and math.isnan(value) for value in values
        ):
            return pyarrow.array([None if value is None else str(value) for value in values])
        return of(values)
    if any(isinstance(value, dict | list) for value in values) and not _is_exact(column, values):
        return of(values)
    return column


def _is_exact(column: pyarrow.Array, values: list[Any]) -> bool:
    """Whether a column has these values and no others; few of them are in memory twice."""
    starts = range(0, len(values), limits.ROWS_IN_PYTHON)
    return all(
        column.slice(start, limits.ROWS_IN_PYTHON).to_pylist()
        == values[start : start + limits.ROWS_IN_PYTHON]
        for start in starts
    )


class Growing:
    """A column of a .jsonl file while its rows are read.

    Where a batch has texts alone it is Arrow's at once, in which they take a byte for each
    character of English; as Python's they take 49 more, and four a character beside an emoji.
    """

    def __init__(self, num_rows: int) -> None:
        """`num_rows` were read before one had this column."""
        self.batches: list[pyarrow.Array | list[Any]] = [pyarrow.nulls(num_rows, pyarrow.string())]

    def add(self, values: list[Any]) -> None:
        are_texts = {type(value) for value in values} <= {str, type(None)}
        self.batches.append(pyarrow.array(values, pyarrow.string()) if are_texts else values)

    def objects(self) -> Iterator[Any]:
        """The values of the batches that have others than texts."""
        return (value for batch in self.batches if isinstance(batch, list) for value in batch)

    def whole(self, *, as_json: bool) -> pyarrow.Array:
        """The column, see `read`. What was read is freed."""
        batches, self.batches = self.batches, []
        if all(isinstance(batch, pyarrow.Array) for batch in batches):
            column = pyarrow.concat_arrays(batches)
            return column if column.null_count < len(column) else pyarrow.nulls(len(column))
        values: list[Any] = []
        while batches:
            batch = batches.pop()
            values += reversed(batch if isinstance(batch, list) else batch.to_pylist())
        values.reverse()
        return read(values, as_json=as_json)


def dataset(table: pyarrow.Table) -> datasets.Dataset:
    """The data set with this table, in which every JSON column is read exactly."""
    features = datasets.Features.from_arrow_schema(table.schema)
    exact = {
        name: ExactJson() if isinstance(feature, datasets.Json) else feature
        for name, feature in features.items()
    }
    info = datasets.DatasetInfo(features=datasets.Features(exact))
    # Its own fingerprint would be that of a pickle of the whole table.
    return datasets.Dataset(table, info=info, fingerprint=generate_random_fingerprint())

"""A column of JSON objects as a data set's feature: each row keeps its own keys and exact values.

Arrow has one list of keys for a whole column: a row without one of them would get it as null. So
such a column is stored as JSON texts and read again row by row. Limits: imports `datasets`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import datasets
import pyarrow


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
    """Objects, lists or None as a column of JSON texts."""
    texts = [None if value is None else json.dumps(value) for value in values]
    return pyarrow.array(texts, pyarrow.json_())


def dataset(table: pyarrow.Table) -> datasets.Dataset:
    """The data set with this table, in which every JSON column is read exactly."""
    features = datasets.Features.from_arrow_schema(table.schema)
    exact = {
        name: ExactJson() if isinstance(feature, datasets.Json) else feature
        for name, feature in features.items()
    }
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=datasets.Features(exact)))

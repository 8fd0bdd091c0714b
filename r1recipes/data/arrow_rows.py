"""The rows of one split with a question and an answer each, and the data set that they become.

Texts stay in Arrow's tables, where a character of English takes one byte: as Python's, one emoji
makes each character of its text take four. Python sees `limits.ROWS_IN_PYTHON` of them at a time.
Limits: the answers are Python's; the columns of the source are copied once, where not all its rows
are chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1recipes.data.sources import limits

if TYPE_CHECKING:
    import datasets
    import pyarrow

DIGEST_BYTES = 16
"""Bytes of a digest, by which texts are the same; a million differ with a chance of 1 - 10^-27."""


@dataclass(frozen=True)
class Rows:
    """The rows of a source, with one valid question and one final answer for each."""

    source: datasets.Dataset
    questions: pyarrow.ChunkedArray
    answers: Sequence[str | list[str]]
    notes: tuple[str, ...] = ()


def batches(source: datasets.Dataset, column: str) -> Iterator[list[Any]]:
    """The values of a column, some at a time; those of other columns are not looked at."""
    for batch in source.select_columns(column).iter(limits.ROWS_IN_PYTHON):
        yield batch[column]


def digests(questions: pyarrow.ChunkedArray, key: Callable[[str], str]) -> list[bytes]:
    """For each question what says whether it is another one: a digest of its `key`."""
    return [
        hashlib.blake2b(key(text).encode(), digest_size=DIGEST_BYTES).digest()
        for start in range(0, len(questions), limits.ROWS_IN_PYTHON)
        for text in questions.slice(start, limits.ROWS_IN_PYTHON).to_pylist()
    ]


def build(
    rows: Rows, indices: Sequence[int], system: str, drop: Collection[str]
) -> datasets.Dataset:
    """The rows at `indices` with `prompt`, `answer`, `question`, and the columns of the source that
    are not in `drop`. `system` is the first message of each prompt, "" for none."""
    import datasets
    import pyarrow
    from datasets.fingerprint import generate_random_fingerprint

    runs = list(_runs(indices))
    questions = [rows.questions.slice(start, length) for start, length in runs]
    texts = pyarrow.chunked_array(
        [chunk for part in questions for chunk in part.chunks], pyarrow.string()
    )
    answers = pyarrow.array([rows.answers[index] for index in indices])
    table = pyarrow.table(
        {"prompt": _prompts(texts, system), "answer": answers, "question": texts}
    ).combine_chunks()
    others = [name for name in rows.source.column_names if name not in drop]
    if others:
        # Arrow tables: `select` and `map` would leave an index or a copy in the cache.
        source = rows.source.select_columns(others).data
        chosen = pyarrow.concat_tables([source.fast_slice(*run) for run in runs]).combine_chunks()
        for name in others:
            table = table.append_column(name, chosen[name])
    features = datasets.Features.from_arrow_schema(table.schema)
    features |= {name: rows.source.features[name] for name in others}
    return datasets.Dataset(
        table.replace_schema_metadata(None),
        info=datasets.DatasetInfo(features=datasets.Features(features)),
        fingerprint=generate_random_fingerprint(),  # its own would pickle the whole table
    )


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and length of each run of indices that follow one another."""
    start = 0
    for place in range(1, len(indices) + 1):
        if place == len(indices) or indices[place] != indices[place - 1] + 1:
            yield indices[start], place - start
            start = place


def _prompts(questions: pyarrow.ChunkedArray, system: str) -> pyarrow.ChunkedArray:
    """The prompt of each question: chat messages with `role` and `content`."""
    import numpy as np
    import pyarrow

    roles = ["system", "user"] if system else ["user"]
    chunks = []
    for chunk in questions.chunks:
        contents, offsets = chunk, np.arange(len(chunk) + 1, dtype=np.int32) * len(roles)
        if system:
            places = np.zeros(2 * len(chunk), np.int64)
            places[1::2] = np.arange(1, len(chunk) + 1)
            contents = pyarrow.concat_arrays([pyarrow.array([system]), chunk]).take(places)
        number = pyarrow.array(np.tile(np.arange(len(roles), dtype=np.int32), len(chunk)))
        role = pyarrow.array(roles).take(number)
        messages = pyarrow.StructArray.from_arrays([role, contents], ["role", "content"])
        chunks.append(pyarrow.ListArray.from_arrays(offsets, messages))
    return pyarrow.chunked_array(chunks)

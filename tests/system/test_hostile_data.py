"""Data files from elsewhere: bombs, depths and broken rows, each refused in one clear line.

`check` looks at the first rows of a file and `data.load` at all of them, so what hides behind the
first rows is a case of the latter.
"""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from r1recipes import data, recipe
from r1recipes.data import sources
from r1recipes.data.sources import limits
from r1recipes.errors import RecipeError
from tests.helpers import answered_in_time, in_process
from tests.system.test_hostile import DATA, WITH_FILES
from tests.system.test_hostile_templates import SHOWN

Make = Callable[[Path], object]


def rows(*lines: str | bytes) -> Make:
    content = b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines)
    return lambda path: path.write_bytes(content)


def row(**keys: object) -> str:
    return json.dumps({"question": "1+1", "answer": "2"} | keys)


def repeated(num_rows: int, length: int, *, plain: bool = True) -> Make:
    """A .parquet file with one text in every row, which is stored once."""

    def make(path: Path) -> None:
        indices = pyarrow.array(np.zeros(num_rows, np.int32))
        text = pyarrow.DictionaryArray.from_arrays(indices, ["x" * length])
        table = pyarrow.table({"question": text, "answer": text})
        parquet.write_table(table, path, store_schema=not plain, compression="zstd")

    return make


def table(columns: Mapping[str, object]) -> Make:
    return lambda path: parquet.write_table(pyarrow.table(columns), path)


def nested_names(*names: str) -> Make:
    """A .parquet file with one column of objects that have these keys."""
    kind = pyarrow.struct([pyarrow.field(name, pyarrow.int64()) for name in names])
    objects = pyarrow.StructArray.from_buffers(
        kind, 1, [None], children=[pyarrow.array([1]) for _ in names]
    )
    return table({"question": ["1+1"], "answer": ["2"], "more": objects})


def more(column: pyarrow.Array) -> Make:
    """A .parquet file with one row, and in it one value more."""
    return table({"question": ["1+1"], "answer": ["2"], "more": column})


def in_lists(values: pyarrow.Array) -> Make:
    """A .parquet file with four lists of these values as answers, which has hardly a byte."""
    offsets = np.linspace(0, len(values), 5, dtype=np.int32)
    return table(
        {"question": list("abcd"), "answer": pyarrow.ListArray.from_arrays(offsets, values)}
    )


def patched(path: Path) -> None:
    """A whole file with some bytes of its data and of its directory changed."""
    repeated(1000, 10)(path)
    content, rng = bytearray(path.read_bytes()), random.Random(1)
    for _ in range(40):
        content[rng.randrange(4, len(content) - 8)] = rng.randrange(256)
    path.write_bytes(content)


def nested(levels: int) -> object:
    return json.loads("[" * levels + "]" * levels)


JSONL: dict[str, Make] = {
    "one line of 50 MB": rows(row(question="x" * 50_000_000)),
    "one line of 50 MB without an end": lambda path: path.write_bytes(b"[" * 50_000_000),
    "millions of empty rows": lambda path: path.write_bytes(b"{}\n" * 5_000_000),
    "other keys in each row": rows(*(row(**{f"key{i}": i}) for i in range(60_000))),
    "20,000 columns": rows(row(**{f"key{i}": i for i in range(20_000)})),
    "nesting of 900": rows(row(more=nested(900))),
    "nesting of 100": rows(row(), row(more=nested(100))),
    "nesting of 10^5": rows('{"question": ' + "[" * 100_000),
    "a number of 5000 digits": rows('{"question": "x", "answer": ' + "9" * 5000 + "}"),
    "a number of 400 digits": rows('{"question": 5, "answer": {"a": 1' + "0" * 400 + "}}"),
    "half a character": rows('{"question": "\\ud800", "answer": "1"}'),
    "no text": rows(b'{"question": "\xff", "answer": "1"}'),
    "NUL": rows("\x00" * 99),
    "a list": rows("[]"),
    "half a character in a name": rows('{"\\ud800": null}'),
    "half a character in mixed values": rows(row(more=1), row(more={"a": ["\ud800"]})),
    "a column named NUL": rows(row(), row(**{"\x00": None})),
    "a key named NUL": rows(row(more={"": None, "\x00": None})),
    "a key with NUL in a list": rows(row(more=[{"a\x00b": 1}])),
    "no rows": rows("{}"),
    "a column with escapes": rows(json.dumps({"\x1b[2J\u202e": 1})),
    "a column of a long name": rows(json.dumps({"k" * 900_000: 1})),
    "millions of values": rows(row(), *[row(more=[0] * 900_000)] * 12),
    "absent values": rows(row(**{f"key{i}": i for i in range(400)}), b"{}\n" * 20_000),
    "lines that are cut": rows(b"{\n" * 290_000),
    "310,000 rows": rows(b"{}\n" * 310_000),
    "300 MB": lambda path: path.open("wb").truncate(300_000_000),
    "65 MiB": lambda path: path.open("wb").truncate(65 * 2**20),
}
CSV: dict[str, Make] = {
    "20,000 columns": rows(",".join(f"k{i}" for i in range(20_000)), ",".join("1" * 20_000)),
    "one line of 50 MB": rows("question,answer", "x" * 50_000_000 + ",1"),
    "a header of 50 MB": rows("x" * 50_000_000),
    "millions of rows": rows("question,answer", b"1,2\n" * 2_000_000),
    "an open quote": rows("question,answer", '"x,1', *["y,2"] * 99),
    "a day in the year 0": rows("question,answer,day", "1,2,0000-01-01"),
    "too many fields": rows("question,answer", "1,2", "1,2,3"),
    "no text": rows("question,answer", b"\xff\xfe,1"),
}
PARQUET: dict[str, Make] = {
    "20 GB in a few kB": repeated(1_000_000, 10_000),
    "20 GB in a few kB, stored once": repeated(1_000_000, 10_000, plain=False),
    "rows of 20 MB": repeated(200, 10_000_000),
    "10 million rows": repeated(10_000_000, 1),
    "20 million nulls": in_lists(pyarrow.nulls(20_000_000)),
    "20 million truths": in_lists(pyarrow.array(np.zeros(20_000_000, bool))),
    "20 million small numbers": in_lists(pyarrow.array(np.zeros(20_000_000, np.int8))),
    "20 million objects": in_lists(
        pyarrow.StructArray.from_arrays([pyarrow.nulls(20_000_000)], ["a"])
    ),
    "20,000 columns": table({f"key{i}": [1] for i in range(20_000)}),
    "100 levels": table({"question": ["x"], "answer": [nested(100)]}),
    "a text that is no text": more(pyarrow.array([b"\xff"]).view(pyarrow.string())),
    "a day that Python does not know": more(
        pyarrow.array([2**31 - 1], pyarrow.int32()).view(pyarrow.date32())
    ),
    "a moment in a list": more(
        pyarrow.array([[2**62]]).cast(pyarrow.list_(pyarrow.timestamp("ms")))
    ),
    "an endless duration": more(pyarrow.array([2**62]).view(pyarrow.duration("s"))),
    "no time zone": more(pyarrow.array([1]).view(pyarrow.timestamp("us", "Evil/Zone"))),
    "no JSON": more(pyarrow.array(["{bad"], pyarrow.json_())),
    "deep JSON": more(pyarrow.array(["[" * 99_999], pyarrow.json_())),
    "a map": more(pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))),
    "two fields of a name": nested_names("a", "a"),
    "a field with NUL": nested_names("a\0b"),
    "no parquet": rows("PAR1" + "x" * 99 + "PAR1"),
    "a cut file": lambda path: (repeated(9, 9)(path), path.write_bytes(path.read_bytes()[:-60])),
    "changed bytes": patched,
    "a huge footer": rows(b"PAR1" + b"x" * 99 + b"\xff\xff\xff\x7fPAR1"),
}
CASES = {
    f"{suffix}: {name}": (suffix, make)
    for suffix, cases in (("jsonl", JSONL), ("csv", CSV), ("parquet", PARQUET))
    for name, make in cases.items()
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shown.jsonl").write_bytes(SHOWN)
    return tmp_path


def refusal(place: Path) -> str:
    """What `check` prints, or where it only sees the first rows, what loading the data raises."""
    code, out, err = in_process("check", "mine.toml")
    if code:
        assert code == 2 and not out, (code, out, err)
        return err
    loaded = recipe.load("mine.toml")
    with pytest.raises(RecipeError) as caught:
        data.load(loaded.recipe, place)
    return "".join(f"error: {p.where}: {p.message}\n" for p in caught.value.problems)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_data_file_is_refused(place, name):
    suffix, make = CASES[name]
    make(place / f"rows.{suffix}")
    (place / "mine.toml").write_text(WITH_FILES.replace(DATA, f'name = "rows.{suffix}"'))
    with answered_in_time():
        err = refusal(place)
        limits.close()  # its time counts when it has ended
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert 1 <= len(lines) <= 6 and "rows." in lines[0], err
    assert all(len(line) < 800 and line.isprintable() for line in err.splitlines()), err


def test_good_files_of_each_kind_are_read(place):
    columns = {
        "question": [f"what is {i}?" for i in range(99)],
        "answer": list(map(str, range(99))),
    }
    lines = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    rows(*map(json.dumps, lines))(place / "rows.jsonl")
    rows("question,answer", *(f"{one['question']},{one['answer']}" for one in lines))(
        place / "rows.csv"
    )
    table(columns)(place / "rows.parquet")
    for suffix in ("jsonl", "csv", "parquet"):
        (place / "mine.toml").write_text(WITH_FILES.replace(DATA, f'name = "rows.{suffix}"'))
        assert in_process("check", "mine.toml")[0] == 0
        loaded = recipe.load("mine.toml")
        assert len(data.load(loaded.recipe, place).train) > 50


def test_a_file_cannot_have_other_files_opened(place):
    """A feature of `datasets` in a file's metadata could be an image, which names a path."""
    image = pyarrow.array([{"bytes": None, "path": str(place / "shown.jsonl")}])
    features = {"question": {"_type": "Value", "dtype": "string"}, "more": {"_type": "Image"}}
    about = json.dumps({"info": {"features": features}})
    columns = pyarrow.table({"question": ["1+1"], "more": image})
    path = place / "rows.parquet"
    parquet.write_table(columns.replace_schema_metadata({"huggingface": about}), path)
    (only,) = sources.read_file(path, "data.name")
    assert only["more"] == {"bytes": None, "path": str(place / "shown.jsonl")}


def test_moments_and_exact_json_are_read(place):
    columns = {
        "day": pyarrow.array([1], pyarrow.int32()).view(pyarrow.date32()),
        "lasted": pyarrow.array([5]).view(pyarrow.duration("s")),
        "when": pyarrow.array([0]).view(pyarrow.timestamp("us", "Europe/Paris")),
        "json": pyarrow.array(['{"a": 9.7}'], pyarrow.json_()),
    }
    table(columns)(place / "rows.parquet")
    (only,) = sources.read_file(place / "rows.parquet", "data.name")
    assert only["day"].isoformat() == "1970-01-02" and only["lasted"].total_seconds() == 5
    assert only["when"].timestamp() == 0 and only["json"] == {"a": 9.7}


@pytest.mark.parametrize("row_keys", [(1, 20_000), (5000, 1)])
def test_objects_with_other_keys_in_each_row_stay_as_they_are(place, row_keys):
    num_rows, num_keys = row_keys
    objects = [{f"k{n}.{i}": [{"x": i}] for i in range(num_keys)} for n in range(num_rows)]
    rows(*(row(more=one) for one in objects))(place / "rows.jsonl")
    with answered_in_time(5.0):
        assert [one["more"] for one in sources.read_file(place / "rows.jsonl", "")] == objects


def test_a_limit_is_raised_by_a_setting(place, monkeypatch):
    rows(*(row(question=str(i), **{f"key{i}": i}) for i in range(600)))(place / "rows.jsonl")
    loaded = place / "mine.toml"
    loaded.write_text(WITH_FILES.replace(DATA, 'name = "rows.jsonl"'))
    code, _, err = in_process("check", "mine.toml")
    assert code == 2 and "has 501 columns; 500 are allowed" in err and "R1RECIPES_LIMITS" in err
    monkeypatch.setenv("R1RECIPES_LIMITS", "2")
    assert in_process("check", "mine.toml")[0] == 0

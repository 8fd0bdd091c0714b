"""Files of runs that grow: what was read is not read again, and nothing is missed."""

import json
import os
from pathlib import Path

import pytest

from r1recipes.errors import RecipeError
from r1recipes.machine import files
from r1recipes.machine.files import foreign
from r1recipes.runs import Run
from r1recipes.runs.record import following, schema
from r1recipes.runs.record.following import Rows

NAME = "metrics.jsonl"


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, "reward": step / 10} | values) + "\n"


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    (tmp_path / NAME).write_text(line(1) + line(2))
    return Rows(tmp_path, NAME, schema.Step)


def steps(rows: Rows) -> list[int]:
    return [row["step"] for row in rows.follow()]


def append(rows: Rows, text: str) -> None:
    with open(rows.path, "a") as file:
        file.write(text)


def test_new_rows_are_added_and_old_ones_are_not_parsed_again(rows, monkeypatch):
    assert steps(rows) == [1, 2]
    first = rows.follow()[0]
    parsed: list[bytes] = []
    real = foreign.an_object

    def noted(content: bytes) -> dict:
        parsed.append(content)
        return real(content)

    monkeypatch.setattr(foreign, "an_object", noted)
    append(rows, line(3))
    assert steps(rows) == [1, 2, 3] and rows.follow()[0] is first
    assert parsed == [line(3).rstrip().encode()]


def test_a_file_that_has_not_changed_is_not_opened(rows, monkeypatch):
    assert steps(rows) == [1, 2]
    monkeypatch.setattr(foreign, "reading", None)
    assert steps(rows) == [1, 2]


def test_a_torn_line_is_read_when_it_is_whole(rows):
    text = line(3)
    append(rows, text[:10])
    assert steps(rows) == [1, 2]
    append(rows, text[10:])
    assert steps(rows) == [1, 2, 3]


def test_a_list_that_was_handed_out_does_not_grow(rows):
    before = rows.follow()
    append(rows, line(3))
    assert len(rows.follow()) == 3 and len(before) == 2


@pytest.mark.parametrize("content", ["", line(1), line(1, x=1) + line(2) + line(3)])
def test_a_file_that_was_replaced_is_read_from_its_beginning(rows, content):
    assert steps(rows) == [1, 2]
    files.write_text(rows.path, content)  # as `rewind` does
    assert rows.follow() == [json.loads(text) for text in content.splitlines()]


@pytest.mark.parametrize("content", [line(7), line(7) + line(8) + line(9) + line(10)])
def test_a_file_that_was_written_over_is_read_from_its_beginning(rows, content):
    assert steps(rows) == [1, 2]
    rows.path.write_text(content)  # the same inode
    assert rows.follow() == [json.loads(text) for text in content.splitlines()]


def test_a_file_that_is_deleted_and_comes_back(rows):
    assert steps(rows) == [1, 2]
    rows.path.unlink()
    assert rows.follow() == []
    rows.path.write_text(line(5))
    assert steps(rows) == [5]


def test_a_damaged_line_has_its_number_and_is_tried_again(rows, tmp_path):
    assert steps(rows) == [1, 2]
    append(rows, '{"step": "x"}\n')
    with pytest.raises(RecipeError, match=r"line 3: `step` must be"):
        Run(tmp_path).follow(rows)
    rows.path.write_text(line(1) + line(2) + line(3))
    assert [row["step"] for row in Run(tmp_path).follow(rows)] == [1, 2, 3]


def test_limits_hold_over_all_looks(rows, monkeypatch):
    monkeypatch.setattr(foreign, "MAX_LINES", 3)
    assert steps(rows) == [1, 2]
    append(rows, line(3))
    assert steps(rows) == [1, 2, 3]
    append(rows, line(4))
    with pytest.raises(RecipeError, match="has 4 lines; 3 are allowed"):
        rows.follow()


def test_a_link_is_not_followed(rows, tmp_path):
    rows.path.rename(tmp_path / "elsewhere")
    rows.path.symlink_to("elsewhere")
    with pytest.raises(RecipeError, match="is a link"):
        rows.follow()


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path):
    (tmp_path / "train.log").write_bytes(b"first\nsecond\nthird \xff\n")
    assert following.tail(tmp_path, "train.log", 1000) == "first\nsecond\nthird \ufffd\n"
    assert following.tail(tmp_path, "train.log", 10) == "third \ufffd\n"
    assert following.tail(tmp_path, "nothing", 10) == ""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError, match="not a plain file"):
        following.tail(tmp_path, "pipe", 10)

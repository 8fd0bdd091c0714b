"""Pipes, devices and names that no file can have, where a recipe or a model's folder has a file.

Each is answered at once: reading a pipe never ends, and a device has no size and no end.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from r1recipes.data import csv_file
from r1recipes.data.local import model as local_model
from r1recipes.data.local import rows
from r1recipes.data.tokenizer import chat_template
from r1recipes.errors import RecipeError
from r1recipes.machine.files import foreign
from tests.helpers import in_process
from tests.system.test_hostile import WITH_FILES

JSONL = '{"question": "1+1", "answer": "2", "completion": "2"}\n'


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_DIRECTORY)  # a socket's path has at most 107 bytes
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def a_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("p"))
    path.symlink_to("p")


MAKE: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": a_socket,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/null"),
    "link to a pipe": a_link_to_a_pipe,
}


@pytest.mark.parametrize("kind", MAKE)
def test_a_template_that_is_no_plain_file_is_refused(kind, tmp_path):
    MAKE[kind](tmp_path / "t.jinja")
    with pytest.raises(RecipeError, match="not a plain file"):
        chat_template.template_text("t.jinja", tmp_path)
    with pytest.raises(RecipeError, match="not a plain file"):
        chat_template.read_file(tmp_path / "t.jinja")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", MAKE)
def test_a_folder_of_a_model_with_such_a_file_is_refused(kind, name, tmp_path):
    (tmp_path / "model").mkdir()
    for other in {"config.json", "tokenizer.json"} - {name}:
        (tmp_path / "model" / other).write_text("{}")
    MAKE[kind](tmp_path / "model" / name)
    (problem,) = local_model.model_folder_problems(tmp_path / "model")
    assert "neither a plain file nor a folder" in problem.message
    with pytest.raises(RecipeError, match="plain file"):
        local_model.refuse_unsafe(tmp_path / "model")


@pytest.mark.parametrize("kind", MAKE)
def test_a_plain_size_is_that_of_a_plain_file_alone(kind, tmp_path):
    MAKE[kind](tmp_path / "special")
    with pytest.raises(OSError, match="not a plain file"):
        foreign.plain_size(tmp_path / "special")
    (tmp_path / "plain").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("plain")
    assert foreign.plain_size(tmp_path / "plain") == foreign.plain_size(tmp_path / "link") == 5


@pytest.mark.parametrize("name", ["a\\u0000.jinja", "~no-such-user/t.jinja", "a/" * 3000])
def test_a_name_that_no_file_can_have_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("rows.jsonl", "shown.jsonl"):
        Path(file).write_text(JSONL)
    Path("r.toml").write_text(
        WITH_FILES.replace("[model]", f'[model]\nchat_template = "{name}"', 1)
    )
    code, out, err = in_process("check", "r.toml")
    assert code == 2 and "Traceback" not in out + err and len(err.splitlines()) <= 4, err


def test_a_table_whose_lines_end_with_cr_alone_is_one_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"question,answer\r1,2\r3,4\r")
    assert csv_file.names(csv_file.header_line(path), ",") == []
    columns, _ = rows.sample(path, "data.name", ("question", "answer"))
    assert columns  # Python's reader takes CR as the end of a line where it reads the whole file

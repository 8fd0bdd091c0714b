"""Files and folders that are whole: written, replaced, killed at random moments, cleaned up."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1recipes.errors import RunError
from r1recipes.machine import files

NO_PROCESS = 2**22 + 1
"""Linux gives no process a number above 2**22."""
WRITER = """
import itertools, sys
from pathlib import Path
from r1recipes.machine import files

kind, folder = sys.argv[1], Path(sys.argv[2])
for number in itertools.count():
    if kind == "file":
        files.write_text(folder / "file", f"{number}\\n" * 100_000)
    elif kind == "lines":
        files.append_line(folder / "lines.jsonl", {"number": number, "text": "x" * 100_000})
    else:
        name = "folder" if kind == "replaced folder" else f"folder-{number}"
        with files.draft(folder / name, taken="replace") as draft:
            (draft / "inner").mkdir(parents=True)
            for part in ("a", "b", "inner/c"):
                (draft / part).write_text(f"{number}\\n" * 50_000)
    print(number, flush=True)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "lines", "new folder", "replaced folder"])
def test_a_kill_leaves_the_old_state_or_the_new_one(kind, tmp_path):
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, kind, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        printed = [0, *map(int, process.communicate()[0].split())]
        numbers = [number_of(path) for path in finished(tmp_path)]
        assert set(printed) <= set(numbers) if kind == "new folder" else numbers
        if kind != "new folder":  # the next one may be there already
            assert numbers[0] - printed[-1] in (0, 1)
    files.write_text(tmp_path / "last", "")
    assert not any(name.startswith(files.DRAFT) for name in names(tmp_path))


def finished(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(files.DRAFT)]


def number_of(path: Path) -> int:
    """The one number that a file, or each file of a folder, has in every line, to its end."""
    if path.suffix == ".jsonl":
        rows = files.read_lines(path)
        assert all(len(row["text"]) == 100_000 for row in rows)
        return rows[-1]["number"]
    parts = [path] if path.is_file() else [path / part for part in ("a", "b", "inner/c")]
    lines = [line for part in parts for line in part.read_text().splitlines()]
    assert len(lines) == (100_000 if path.is_file() else 150_000)
    (number,) = set(lines)
    return int(number)


def test_a_folder_or_a_file_is_replaced_in_one_step(tmp_path):
    write_folder(tmp_path / "form", "old")
    with files.draft(tmp_path / "form", taken="replace") as draft:
        write_folder(draft, "new")
        assert (tmp_path / "form" / "file").read_text() == "old"
    assert (tmp_path / "form" / "file").read_text() == "new"
    files.write_text(tmp_path / "file", "old")
    files.write_json(tmp_path / "file", {"key": "ä"})
    assert (tmp_path / "file").read_text() == '{\n "key": "ä"\n}\n'
    assert names(tmp_path) == ["file", "form"]


def test_a_name_that_is_taken_is_refused_or_kept(tmp_path):
    write_folder(tmp_path / "folder", "old")
    with pytest.raises(FileExistsError):
        with files.draft(tmp_path / "folder") as draft:
            write_folder(draft, "new")
    with files.draft(tmp_path / "folder", taken="keep") as draft:
        write_folder(draft, "new")
    assert (tmp_path / "folder" / "file").read_text() == "old" and names(tmp_path) == ["folder"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    write_folder(tmp_path / "mine", "old")
    (tmp_path / "link").symlink_to("mine")
    with files.draft(tmp_path / "link", taken="replace") as draft:
        write_folder(draft, "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link" / "file").read_text() == "new"
    assert (tmp_path / "mine" / "file").read_text() == "old"
    assert names(tmp_path) == ["link", "mine"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_what_was_cut_off_is_not_left(error, tmp_path):
    with pytest.raises(error):
        with files.draft(tmp_path / "deep" / "folder") as draft:
            write_folder(draft, "half")
            raise error
    assert names(tmp_path) == ["deep"] and names(tmp_path / "deep") == []


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events: list[str] = []
    sync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    with files.draft(tmp_path / "folder") as draft:
        (draft / "inner").mkdir(parents=True)
        (draft / "inner" / "file").write_text("x")
        (draft / "link").symlink_to("nowhere")
    assert events == ["file", "inner", "folder", "rename", tmp_path.name]


def test_drafts_of_dead_processes_are_removed_and_no_others(tmp_path):
    """Also those that older versions made, where the caller says how they were called."""
    script = (
        "import sys; from pathlib import Path; from r1recipes.machine import files\n"
        "with files.draft(Path(sys.argv[1])) as draft:\n"
        "    draft.mkdir(); print(flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "theirs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    (alive,) = tmp_path.iterdir()
    for name in (f"{files.DRAFT}00", f".draft-{NO_PROCESS}", f".x.{NO_PROCESS}.tmp", ".mine"):
        write_folder(tmp_path / name, "half")
    write_folder(tmp_path / f".draft-{os.getpid()}-x", "of an older version at work")
    (tmp_path / f".y.{NO_PROCESS}").touch()
    files.clear_drafts(tmp_path)
    assert f"{files.DRAFT}00" not in names(tmp_path) and len(names(tmp_path)) == 6
    files.clear_drafts(tmp_path, ".draft-*", ".*.tmp", ".*.[0-9]*")
    assert names(tmp_path) == sorted([alive.name, f".draft-{os.getpid()}-x", ".mine"])
    process.kill()
    process.communicate()
    files.clear_drafts(tmp_path)
    assert not alive.exists()
    files.clear_drafts(tmp_path / "nowhere", ".*")


def test_a_draft_that_is_cleared_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    mkdir = Path.mkdir
    cleared: list[Path] = []

    def clear_first(self: Path, *arguments: object, **options: bool) -> None:
        mkdir(self, **options)
        if self.name.startswith(files.DRAFT) and not cleared:
            cleared.append(self)
            files.clear_drafts(tmp_path)

    monkeypatch.setattr(Path, "mkdir", clear_first)
    files.write_text(tmp_path / "file", "x")
    assert cleared and names(tmp_path) == ["file"]


def test_a_file_system_without_locks_is_written_to_and_its_drafts_stay(tmp_path, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / f"{files.DRAFT}00").mkdir()
    files.write_text(tmp_path / "file", "x")
    assert names(tmp_path) == [f"{files.DRAFT}00", "file"]


def test_a_free_name_is_the_first_that_is_not_taken(tmp_path):
    assert files.free_name(tmp_path, "run").name == "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").symlink_to("nowhere")
    assert files.free_name(tmp_path, "run").name == "run-3"
    for number in range(3, 120):
        (tmp_path / f"run-{number}").touch()
    assert files.free_name(tmp_path, "run").name == "run-120"


def test_a_place_that_cannot_be_written_is_a_disk_error(tmp_path):
    files.check_writable(tmp_path / "not" / "there" / "yet")
    assert names(tmp_path) == []
    with pytest.raises(RunError, match="cannot be written") as raised:
        files.check_writable(Path("/proc/runs"))
    assert raised.value.kind == "disk"


def test_lines_are_appended_after_what_is_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert files.read_lines(path) == []
    files.append_line(path, {"step": 1}, {"step": 2})
    with open(path, "ab") as file:
        file.write(json.dumps({"step": 3}).encode()[:-2])
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}]
    files.append_line(path, {"step": 3, "text": "ä"})
    assert files.read_lines(path)[2:] == [{"step": 3, "text": "ä"}]

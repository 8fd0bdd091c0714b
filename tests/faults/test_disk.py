"""A disk that is full or read-only costs one line, and nothing that was there."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from r1recipes import training
from r1recipes.errors import RunError
from r1recipes.machine import files, settings
from r1recipes.recipe import bundle
from r1recipes.rewards.judge.cache import Cache
from r1recipes.rewards.judge.prompts import Verdict
from r1recipes.runs import Run, record
from r1recipes.study import database
from r1recipes.study.driver import create_cells
from r1recipes.study.loading import load
from r1recipes.training import Observer
from tests.conftest import SMALL
from tests.faults.disk import Disk
from tests.helpers import in_process, quiet_view, run_in_process
from tests.study.test_driver import STUDY
from tests.training.test_run import comparable


class Filling(Observer):
    """Fills a disk when a stage begins, but for a few kilobytes."""

    def __init__(self, disk: Disk, title: str):
        self.disk, self.title = disk, title

    def phase(self, title: str) -> None:
        if title == self.title:
            self.disk.fill(8192)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["Training", "Evaluation after"])
def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(stage, disk, finished, small):
    with pytest.raises(RunError, match="cannot be written: No space left on device") as raised:
        run_in_process(small, disk.place, observers=[Filling(disk, stage)])
    assert raised.value.kind == "disk"
    (run,) = record.all_runs(disk.place)
    assert run.status() in ("failed", "killed")
    disk.make_room()
    machine = settings.Settings(runs_dir=disk.place, offline=True)
    training.resume(run, [quiet_view()], machine)
    assert run.read()["status"] == "complete" and comparable(run) == comparable(finished)
    for when in ("before", "after"):
        assert run.evaluation(when).read_bytes() == finished.evaluation(when).read_bytes()
    assert not list(run.folder.glob(f"{files.DRAFT}*"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("filler", ".owner")
    }


COMMANDS = {
    "run": ["run", "{small}", "--run-dir", "{disk}/run", "--offline"],
    "run of a folder": ["run", "{small}", "--offline"],
    "share to a file": ["share", "{run}", "--to", "{disk}/x.r1.zip", "--force"],
    "share to a folder": ["share", "{run}", "--to", "{disk}/shared"],
    "export": ["export", "{run}", "--to", "lora", "--out", "{disk}/export", "--force"],
    "report": ["report", "{run}", "--out", "{disk}/page.html"],
    "report of a run there": ["report", "{disk}/runs/small/old"],
    "charts": ["report", "{run}", "--out", "page.html", "--csv", "{disk}/charts"],
    "copy": ["copy", "tiny", "{disk}/tiny.toml"],
    "schema": ["schema", "{disk}/schema.json"],
    "new": ["new", "{disk}/new.toml", "--model", "unsloth/Qwen2.5-3B-Instruct"],
    "sweep": ["sweep", "{study}", "--workers", "0"],
    "evaluation": ["eval", "{disk}/runs/small/old", "--samples", "1"],
    "resume": ["run", "--resume", "{disk}/runs/small/old"],
    "a cache": ["check", "{bundle}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_disk_is_no_good_says_so_and_leaves_what_was_there(
    name, fault, disk, finished, small, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(disk.place / "runs"))
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(disk.place / "cache"))
    study, bundled = tmp_path / "study.toml", tmp_path / "x.r1.zip"
    study.write_text(STUDY)
    bundled.write_bytes(bundle.pack({"recipe.toml": SMALL.encode()}))
    old = Run(Path(shutil.copytree(finished.folder, disk.place / "runs" / "small" / "old")))
    if name == "resume":
        old.update(status="stopped")
        shutil.rmtree(old.adapter)
    (disk.place / "export" / "lora").mkdir(parents=True)
    for there in ("x.r1.zip", "page.html", "export/lora/README.md"):
        path = disk.place / there
        path.write_bytes(bundled.read_bytes() if there == "x.r1.zip" else b"old\n" * 999)
    before = content_of(disk.place)
    disk.fill() if fault == "full" else disk.make_read_only()
    places = {"disk": disk.place, "run": finished.folder, "small": small, "study": study}
    words = [word.format(bundle=bundled, **places) for word in COMMANDS[name]]
    code, out, err = in_process(*words)
    err += capfd.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code in (1, 2) and len(lines) == 1, (code, out, err)
    assert "No space left" in lines[0] or "Read-only" in lines[0] or "disk" in lines[0], lines
    assert "hint: " in err and "Traceback" not in err
    disk.make_room() if fault == "full" else disk.make_read_only(False)
    assert content_of(disk.place) == before or name in ("resume",)
    if name == "resume":
        assert in_process(*words)[0] == 0 and comparable(old) == comparable(finished)


def test_a_full_database_is_said_at_once_and_loses_no_trial(disk, small, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    url = f"sqlite:///{disk.place}/study.db"
    (cell,) = create_cells(load(study), disk.place, url)
    disk.fill()
    with pytest.raises(RunError, match="full") as raised:
        for _ in range(200):  # what is left of the file's last page is used first
            cell.claim({"name": "x" * 4000})
    assert raised.value.kind == "disk"
    disk.make_room()
    claimed = [trial.number for trial in cell.all()]
    assert claimed == list(range(len(claimed)))
    storage = database.open_storage(url)
    assert storage.engine is not None
    with sqlite3.connect(disk.place / "study.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_judges_cache_on_a_full_disk_is_a_disk_error_and_stays_whole(disk):
    cache = Cache(disk.place)
    cache.put("a", Verdict(1.0, "good"))
    disk.fill()
    with pytest.raises(RunError, match="cannot be used") as raised:
        for number in range(200):
            cache.put(str(number), Verdict(0.0, "x" * 4000))
    assert raised.value.kind == "disk"
    cache.close()
    disk.make_room()
    cache = Cache(disk.place)
    assert cache.get("a") == Verdict(1.0, "good")
    cache.put("b", Verdict(0.0, "bad"))
    cache.close()


def test_a_disk_that_is_full_leaves_the_old_file_in_place(disk):
    path = disk.place / "record.json"
    files.write_json(path, {"a": 1})
    lines = disk.place / "metrics.jsonl"
    files.append_line(lines, {"step": 1})
    disk.fill()
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": "x" * 100_000})
    with pytest.raises(OSError, match="No space"):
        files.append_line(lines, {"step": 2, "text": "x" * 100_000})
    disk.make_room()
    assert path.read_text() == '{\n "a": 1\n}\n'
    files.append_line(lines, {"step": 2})
    assert [row["step"] for row in files.read_lines(lines)] == [1, 2]
    assert sorted(os.listdir(disk.place)) == ["metrics.jsonl", "record.json"]

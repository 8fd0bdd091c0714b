"""Runs, a study and a bundle that version 0.1.0 made before its modules moved into packages.

fixtures/version-0.1.0.tar.xz holds them as they were written; only the path of their folder was
replaced, which `FOLDER` stands for.
"""

import json
import re
import sqlite3
import tarfile
from pathlib import Path

import pytest

from r1recipes.machine.files import read_lines
from r1recipes.runs import Run
from tests.helpers import in_process

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"
FOLDER = "/home/u/r1"
FINGERPRINT = "c4bf4444e9219cf7feed67d0792135da012eb5596db550aabcdaa8d8bb3ccfc7"
STATUS = {"complete": "complete", "stopped": "stopped", "killed": "killed", "failed": "failed"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as version 0.1.0 left it, with its own path in its files."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)  # no `filter`: Python 3.11.3 and older do not know it
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".toml", ".jsonl", ".log"):
            path.write_text(path.read_text().replace(FOLDER, str(folder)))
    with sqlite3.connect(folder / "runs" / "study" / "study.db") as database:
        for table in ("trial_user_attributes", "study_user_attributes"):
            database.execute(
                f"UPDATE {table} SET value_json = replace(value_json, ?, ?)", (FOLDER, str(folder))
            )
    return folder


@pytest.fixture
def old(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(unpacked / "runs"))
    monkeypatch.chdir(unpacked)
    return unpacked


def test_they_are_listed_with_their_states(old):
    code, out, err = in_process("list", "runs")
    assert code == 0 and not err
    for name, status in STATUS.items():
        (line,) = (line for line in out.splitlines() if f"old/{name} " in line)
        assert f" {status} " in line


@pytest.mark.parametrize("name", STATUS)
def test_each_has_a_report(old, tmp_path, name):
    out = tmp_path / "report.html"
    code, _, err = in_process("report", f"old/{name}", "--out", out)
    assert code == 0 and not err and "</html>" in out.read_text()


def test_they_are_compared(old):
    code, out, _ = in_process("compare", "old/complete", "old/stopped")
    assert code == 0 and "train.max_steps" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_what_was_not_complete_goes_on(old, name):
    run = Run(old / "runs" / "old" / name)
    checkpoint = run.last_checkpoint()
    assert checkpoint
    before = read_lines(run.metrics)[: checkpoint[1]]  # a step after it is done again
    code, _, err = in_process("run", "--resume", run.folder, "--offline")
    assert code == 0, err
    rows = read_lines(run.metrics)
    assert [row["step"] for row in rows] == list(range(1, 13)) and rows[: len(before)] == before
    assert run.read()["status"] == "complete" and "after" in run.read()["evaluation"]


def test_a_failed_run_says_how_it_failed(old):
    assert Run(old / "runs" / "old" / "failed").read()["error"]["kind"] == "reward"


def test_a_study_has_its_table_and_its_report(old):
    code, out, err = in_process("study", "study")
    assert code == 0, err
    states = [line.split()[-1] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert states.count("complete") == 3 and "best: trial" in out
    assert "</html>" in (old / "runs" / "study" / "report.html").read_text()


def test_a_bundle_has_the_fingerprint_that_it_had(old):
    code, out, err = in_process("show", "old.r1.zip", "--json")
    assert code == 0, err
    assert json.loads(out)["fingerprint"] == FINGERPRINT
    assert in_process("check", "old.r1.zip")[0] == 0


def test_a_bundle_is_repeated_or_only_other_versions_are_in_the_way(old, tmp_path):
    folder = tmp_path / "again"
    code, _, err = in_process("run", "old.r1.zip", "--locked", "--force", "--run-dir", folder)
    if code == 2:
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        other = re.compile(r": \S+ in the lock, \S+ here|GPU")
        assert lines and all(other.search(line) for line in lines), err
        return
    assert code == 0 and Run(folder).read()["fingerprint"] == FINGERPRINT

"""`list runs` and `list studies`: what there is, with its state and how long it really took."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from r1recipes.machine import files
from r1recipes.runs import reading
from r1recipes.runs.record import Run
from tests.helpers import in_process

NOW = time.time()


def make(name: str, status: str, **record: object) -> Run:
    """A run folder with a record that was last written 500 s ago."""
    run = Run(Path("runs") / name)
    run.folder.mkdir(parents=True)
    about = {"status": status, "recipe": name.split("/")[0], "started": "2026-11-26T08:00:00Z"}
    files.write_json(run.record, about | record)
    for path in (run.record, run.log):
        path.touch()
        os.utime(path, (NOW - 500, NOW - 500))
    return run


@pytest.fixture(autouse=True)
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "runs")


TRAINING: dict[str, Any] = {"name": "train", "began_s": NOW - 1654}
SPENT = {"duration_s": {"cold_start": 40.0}, "time": {"total": 60.0}}


def listed(*arguments: str) -> list[dict]:
    code, out, _ = in_process("list", *arguments, "--json")
    assert code == 0
    rows: list[dict] = json.loads(out)
    return rows


@pytest.mark.parametrize(
    ("status", "record", "seconds"),
    [
        ("complete", {"time": {"total": 1154.2}, "duration_s": {"train": 9.0}}, 1154.2),
        ("complete", {"duration_s": {"train": 9.0, "load": 2.0}}, 11.0),  # of an older version
        ("stopped", SPENT, 60.0),
        ("failed", SPENT | {"error": {"kind": "nan", "message": "m"}}, 60.0),
    ],
)
def test_a_run_that_ended_took_what_its_record_says(status, record, seconds):
    make("tiny/a", status, **record)
    (row,) = listed("runs")
    assert row["status"] == status and row["seconds"] == seconds
    assert row["error"] == ("nan" if status == "failed" else None)


def test_a_run_that_was_killed_took_until_its_last_sign():
    make("tiny/a", "running", stage=TRAINING, **SPENT)
    (row,) = listed("runs")
    assert row["status"] == "killed" and row["seconds"] == pytest.approx(60 + 1154, abs=1)
    assert "19 min" in in_process("list", "runs")[1] or "20 min" in in_process("list", "runs")[1]


def test_a_run_that_runs_has_taken_until_now():
    run = make("tiny/a", "running", stage=TRAINING, **SPENT)
    with run.owned():
        (row,) = listed("runs")
    until_now = 60 + time.time() - TRAINING["began_s"]
    assert row["status"] == "running" and row["seconds"] == pytest.approx(until_now, abs=60)


def test_a_clock_that_was_set_back_makes_no_time_negative():
    make("tiny/a", "running", stage={"name": "train", "began_s": NOW + 9e6}, **SPENT)
    assert listed("runs")[0]["seconds"] == 60.0


def trial(name: str, status: str, accuracy: float | None, seconds: float) -> None:
    summary = {"accuracy": accuracy, "interval": [0.0, 1.0], "greedy": 0.5, "num_problems": 9}
    summary |= {"num_samples": 4, "mean_length": 9.0, "share_cut": 0.0}
    evaluation = {} if accuracy is None else {"after": summary}
    make(name, status, evaluation=evaluation, time={"total": seconds}, study={"name": "rates"})


def test_trials_are_counted_in_their_study_and_are_no_runs():
    make("tiny/a", "complete", time={"total": 5.0})
    trial("rates/0000-aaaa", "complete", 0.5, 100.0)
    trial("rates/0001-bbbb", "complete", 0.75, 100.0)
    trial("rates/0002-cccc", "pruned", None, 30.0)
    Path("runs/rates/study.db").touch()
    Path("runs/empty").mkdir()
    Path("runs/empty/study.db").touch()
    assert [row["run"] for row in listed("runs")] == ["runs/tiny/a"]
    code, out, err = in_process("list", "runs")
    assert (code, err) == (0, "")
    runs, studies = out.split("\n\n")
    assert len(runs.splitlines()) == 2 and "rates" not in runs
    assert studies == in_process("list", "studies")[1]
    lines = [line.split("  ") for line in studies.splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines]
    assert ["rates", "2 complete, 1 pruned", "75.0%", "3 min 50 s"] in cells
    assert ["empty", "none yet", "-", "0 s"] in cells
    rows = {row["study"]: row for row in listed("studies")}
    assert rows["rates"]["trials"] == {"complete": 2, "pruned": 1}
    assert rows["rates"]["best_accuracy"] == 0.75 and rows["rates"]["seconds"] == 230.0


def test_a_damaged_run_is_in_the_json_too():
    make("tiny/a", "complete")
    make("tiny/b", "complete").record.write_text("{")
    rows = {row["run"]: row for row in listed("runs")}
    assert rows["runs/tiny/b"]["status"] == "damaged" and "fault" in rows["runs/tiny/b"]
    assert rows["runs/tiny/a"]["status"] == "complete"


def test_nothing_is_said_to_be_nothing_and_is_an_empty_list():
    for kind in ("runs", "studies"):
        code, out, err = in_process("list", kind)
        assert (code, out) == (0, "") and f"there are no {kind} yet" in err
        assert listed(kind) == []


def test_the_newest_run_is_not_a_trial_where_there_are_others(monkeypatch):
    make("tiny/a", "complete", started="2026-01-01")
    trial("rates/0000-aaaa", "complete", 0.5, 100.0)
    seen: list[list[Run]] = []

    def page(runs):
        seen.append(runs)
        return "page"

    monkeypatch.setattr("r1recipes.report.run.html", page)
    assert in_process("report")[0] == 0
    assert [run.folder for run in seen[0]] == [Path("runs/tiny/a")]
    assert reading.read(seen[0][0]).is_trial is False

"""A folder that is followed: runs come, grow, are killed and go; memory and time are bounded."""

import fcntl
import json
import shutil
import time

import pytest

from r1recipes.report.serve import folder as following
from r1recipes.report.serve.folder import Folder
from r1recipes.report.serve.summary import Summary, thinned
from r1recipes.runs import Run
from tests.report.serve.conftest import RUN, settled


def of(folder: Folder, key: str = RUN) -> Summary:
    return next(run for run in settled(folder).runs if run.key == key)


def test_what_the_overview_says_of_runs(followed):
    run = of(followed)
    record = Run(followed.runs_dir / RUN).read()
    assert run.state == "complete" and run.recipe == record["recipe"] and run.algorithm == "GRPO"
    assert run.before == record["evaluation"]["before"]["accuracy"]
    assert run.after == run.accuracy == record["evaluation"]["after"]["accuracy"]
    assert run.step == run.max_steps and run.seconds_a_step and run.seconds_left is None
    assert run.curve and run.value is not None and run.verdict and run.sentence
    stopped = of(followed, "old/stopped")
    assert stopped.state == "stopped" and stopped.after is None


def test_a_run_that_trains_is_followed_and_its_kill_is_seen(runs_dir):
    run = Run(runs_dir / RUN)
    run.record.write_text(
        json.dumps(run.read() | {"status": "running", "evaluation": {}, "stage": None})
    )
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:2]))
    folder = Folder(runs_dir)
    folder.start()
    assert of(folder).state == "killed"
    with open(run.folder / ".owner", "w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)  # it is resumed
        time.sleep(2 * following.LOOK_EVERY_S)
        now = of(folder)
        assert (now.state, now.step) == ("running", 2)
        assert now.max_steps and now.seconds_a_step
        assert now.seconds_left == pytest.approx((now.max_steps - 2) * now.seconds_a_step)
        with open(run.metrics, "a") as file:
            file.write(lines[2])
        time.sleep(2 * following.LOOK_EVERY_S)
        assert of(folder).step == 3
    time.sleep(2 * following.LOOK_EVERY_S)
    assert of(folder).state == "killed" and of(folder).seconds_left is None


def test_runs_come_and_go(followed, runs_dir):
    assert len(settled(followed).runs) == 2
    shutil.copytree(runs_dir / RUN, runs_dir / "new" / "run")
    time.sleep(2 * following.LOOK_EVERY_S)
    assert {run.key for run in settled(followed).runs} == {RUN, "old/stopped", "new/run"}
    shutil.rmtree(runs_dir / "old")
    time.sleep(2 * following.LOOK_EVERY_S)
    assert [run.key for run in settled(followed).runs] == ["new/run"]


def test_the_rows_of_finished_runs_do_not_stay_in_memory(followed, monkeypatch):
    monkeypatch.setattr(following, "MAX_OPEN", 1)
    settled(followed)
    runs = {key: followed.run(key) for key in (RUN, "old/stopped")}
    assert all(not run._files.metrics.rows for run in runs.values())
    for run in runs.values():
        followed.run(run.key)
        assert run.reading().metrics
    assert [bool(run._files.metrics.rows) for run in runs.values()] == [False, True]


def test_a_folder_that_nobody_asks_about_is_not_looked_at(followed, monkeypatch):
    settled(followed)
    time.sleep(2 * following.LOOK_EVERY_S)
    looks = []
    monkeypatch.setattr(followed, "_take_look", lambda: looks.append(1))
    time.sleep(3 * following.LOOK_EVERY_S)
    assert not looks
    followed.look(5)
    assert looks == [1]


def test_a_snapshot_keeps_its_number_while_nothing_changes(followed):
    number = settled(followed).number
    time.sleep(2 * following.LOOK_EVERY_S)
    assert followed.look(5).number == number


def test_of_too_many_runs_the_newest_are_shown(runs_dir, monkeypatch):
    monkeypatch.setattr(following, "MAX_RUNS", 1)
    folder = Folder(runs_dir)
    folder.start()
    snapshot = settled(folder)
    assert len(snapshot.runs) == 1 and snapshot.num_hidden == 1


def test_named_runs_are_served_alone(runs_dir):
    folder = Folder(runs_dir, [Run(runs_dir / RUN)])
    folder.start()
    assert [run.key for run in settled(folder).runs] == [RUN]


@pytest.mark.parametrize("length", [0, 1, 59, 60, 61, 1000])
def test_a_curve_has_few_points(length):
    points = thinned([float(i) for i in range(length)])
    assert len(points) <= 60 and len(points) >= min(length, 30)
    assert points == sorted(points)

"""A machine that sleeps: the processes stop for a while, and no clock of theirs goes on at once.

SIGSTOP and SIGCONT of the whole tree of processes stand for it: what a sleeping machine adds is
that its monotonic clock stands too, so a process that was only stopped sees the harder case, in
which the time has gone by.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1recipes.errors import RecipeError
from r1recipes.runs import record
from r1recipes.study import database, loading, trials
from tests.faults.test_stops import assert_same
from tests.study.test_driver import STUDY

ASLEEP_S = 5.0
"""Seconds that the processes stop; longer than every pause between two looks of a driver."""


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    pids = [pid]
    for parent in pids:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            pids += map(int, path.read_text().split())
    return pids


@contextmanager
def asleep(pid: int) -> Iterator[None]:
    """Within it a process and all below it stand still."""
    stopped = tree(pid)
    for each in stopped:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(stopped):
            os.kill(each, signal.SIGCONT)


def wait_for(
    folder: Path, pattern: str, process: "subprocess.Popen[str]", limit_s: float = 300.0
) -> None:
    """Wait until there is a file below a folder, while a process runs."""
    end = time.monotonic() + limit_s
    while not any(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < end, pattern
        time.sleep(0.05)


RUNNING = """
import sys
from pathlib import Path
from tests.helpers import run_in_process
recipe, runs = sys.argv[1:]
run_in_process(Path(recipe), Path(runs))
"""


@pytest.mark.slow
def test_a_run_that_slept_has_the_numbers_of_one_that_did_not(finished, small, tmp_path):
    words = [sys.executable, "-c", RUNNING, str(small), str(tmp_path / "runs")]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[2], text=True)
    wait_for(tmp_path / "runs", "*/*/evaluation-before.jsonl", process)
    (run,) = record.all_runs(tmp_path / "runs")
    began = time.monotonic()
    with asleep(process.pid):
        time.sleep(ASLEEP_S)
        assert run.status() == "running"  # its lock is held: it is not taken for dead
        with pytest.raises(RecipeError, match="in use by another process"), run.owned():
            raise AssertionError("a sleeping run lost its folder")
    assert process.wait(timeout=300) == 0
    assert_same(run, finished)
    spent = run.read()["time"]["total"]
    assert 0 < spent and time.monotonic() - began >= ASLEEP_S
    assert run.read()["duration_s"]["train"] <= spent + 1


@pytest.mark.slow
def test_a_sweep_that_slept_ends_with_each_trial_once(small, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    words = [sys.executable, "-m", "r1recipes", "sweep", "study.toml", "--n-trials", "2", "--force"]
    environment = os.environ | {"R1RECIPES_RUNS_DIR": str(tmp_path / "runs")}
    driver = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    for pattern in ("study/worker-0.log", "*/*/record.json"):  # before a trial, and within one
        wait_for(tmp_path / "runs", pattern, driver)
        with asleep(driver.pid):
            time.sleep(ASLEEP_S)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    url = f"sqlite:///{tmp_path}/runs/study/study.db"
    (cell,) = trials.load_cells(database.open_storage(url), "study")
    assert [trial.state.name for trial in cell.all()] == ["COMPLETE"] * 2
    assert not any("retry_of" in trial.user_attrs for trial in cell.all())


def test_a_worker_of_this_machine_that_slept_past_its_heartbeats_is_not_taken_for_dead(
    small, tmp_path
):
    """The grace period is a second here; the worker is a process that is there and stands still."""
    (tmp_path / "study.toml").write_text(STUDY)
    loaded = loading.load(tmp_path / "study.toml")
    storage = database.open_storage(f"sqlite:///{tmp_path}/study.db", grace_s=1)
    made = trials.create_cell(storage, loaded.cells[0])
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        worker = trials.this_worker() | {
            "pid": sleeper.pid,
            "started": trials._start_time(sleeper.pid),
        }
        trial = made.claim(worker)
        assert trial is not None
        with asleep(sleeper.pid):
            time.sleep(2.5)
            assert made.requeue_dead(trials.has_dead_local_worker) == []
        assert not made.is_taken(trial)
        sleeper.kill()
        sleeper.wait()
        time.sleep(2.5)
        assert made.requeue_dead(trials.has_dead_local_worker) == [trial.number]
    finally:
        sleeper.kill()
        sleeper.wait()

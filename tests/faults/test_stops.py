"""Signals, kills, clocks that jump, and two processes at once: nothing is lost or doubled."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from r1recipes import planning, recipe, training
from r1recipes.errors import RecipeError, Stopped
from r1recipes.machine import files, settings
from r1recipes.runs import Run, record
from r1recipes.study import database, trials
from r1recipes.training import Observer
from tests.helpers import in_process, quiet_view, run_in_process
from tests.study.test_driver import STUDY
from tests.training.test_run import comparable, stages_of


def resume(run: Run, *observers: Observer) -> Run:
    machine = settings.Settings(runs_dir=run.folder.parents[1], offline=True)
    return training.resume(run, [quiet_view(), *observers], machine)


def assert_same(run: Run, finished: Run) -> None:
    """It is complete, and has the numbers of a run that nothing happened to."""
    assert run.read()["status"] == "complete" and comparable(run) == comparable(finished)
    for when in ("before", "after"):
        assert run.evaluation(when).read_bytes() == finished.evaluation(when).read_bytes()


class Signalling(Observer):
    """Sends this process a signal in a stage: at once, or after some progress."""

    def __init__(self, number: int, title: str):
        self.number, self.wanted, self.title = number, title, ""

    def phase(self, title: str) -> None:
        self.title = title

    def progress(self, done: int, total: int) -> None:
        if self.title == self.wanted and done >= total // 2:
            self.wanted = ""
            os.kill(os.getpid(), self.number)

    def step(self, row: dict[str, float]) -> None:
        if row["step"] >= 3:
            self.progress(1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage"),
    [("SIGTERM", "Cold start"), ("SIGHUP", "Training")],
)
def test_a_signal_stops_a_run_which_goes_on(name, stage, finished, small, tmp_path):
    with pytest.raises(Stopped):
        run_in_process(
            small, tmp_path / "runs", observers=[Signalling(signal.Signals[name], stage)]
        )
    (run,) = record.all_runs(tmp_path / "runs")
    assert run.status() == "stopped"
    assert_same(resume(run), finished)


KILLING = """
import os, signal, sys
from pathlib import Path
from trl import GRPOTrainer, SFTTrainer
from r1recipes.runs import record
from r1recipes.training.backends.trl import TrlBackend
from tests.faults.test_stops import Signalling, resume
from tests.helpers import run_in_process
recipe, runs, *stages = sys.argv[1:]
for number, stage in enumerate(stages):
    if os.fork() == 0:
        killing = Signalling(signal.SIGKILL, stage)
        if number == 0:
            run_in_process(Path(recipe), Path(runs), observers=[killing])
        else:
            resume(*record.all_runs(Path(runs)), killing)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL, stage
    (run,) = record.all_runs(Path(runs))
    assert run.status() == "killed", stage
"""
"""Each attempt is a process of its own, whose imports are those of its parent."""


@pytest.mark.slow
def test_a_kill_in_the_midst_of_every_stage_loses_nothing(finished, small, tmp_path):
    """Of training, `tests/training/test_run.py` has the same."""
    stages = ("Cold start", "Evaluation before", "Evaluation after")
    words = [sys.executable, "-c", KILLING, str(small), str(tmp_path / "runs"), *stages]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], timeout=300)
    assert done.returncode == 0
    (run,) = record.all_runs(tmp_path / "runs")
    assert_same(resume(run), finished)
    assert run.read()["attempts"] == 4
    assert not list(run.folder.glob(f"{files.DRAFT}*"))


@pytest.mark.parametrize("jump_s", [-(10**9), -3600, 3600, 10**8])
def test_a_clock_that_jumps_while_a_stage_runs_leaves_the_run_readable(jump_s, finished, tmp_path):
    """The stage was killed; when it began is read by the clock of the machine."""
    run = Run(Path(shutil.copytree(finished.folder, tmp_path / "runs" / "small" / "old")))
    began = run.metrics.stat().st_mtime - jump_s
    run.update(status="running", stage={"name": "train", "began_s": began})
    stages_of(run).count_killed_stage()
    data = run.read()
    spent = data["duration_s"]["train"] - finished.read()["duration_s"]["train"]
    assert 0 <= spent <= max(0, jump_s) + 1 and data["time"]["total"] >= 0
    assert in_process("report", run.folder)[0] == 0


def test_runs_that_began_under_a_clock_in_the_future_are_listed_and_resumed(
    finished, tmp_path, monkeypatch
):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    for name, began in (("a", "2031-01-01T00:00:00Z"), ("b", "1970-01-01T00:00:00Z")):
        run = Run(Path(shutil.copytree(finished.folder, tmp_path / "runs" / "small" / name)))
        run.update(started=began, status="stopped")
    assert [run.folder.name for run in record.all_runs(tmp_path / "runs")] == ["b", "a"]
    code, out, _ = in_process("list", "runs")
    assert code == 0 and len(out.splitlines()) == 3
    assert record.find_unfinished(tmp_path / "runs").folder.name == "a"


@pytest.mark.slow
def test_a_second_resume_of_a_run_changes_nothing(finished, tmp_path, monkeypatch):
    run = Run(Path(shutil.copytree(finished.folder, tmp_path / "runs" / "small" / "old")))
    run.update(status="stopped")
    shutil.rmtree(run.adapter)
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    with run.owned():
        code, _, err = in_process("run", "--resume", run.folder, "--offline")
        assert code == 2 and "is in use by another process" in err
        after = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
        for path in (run.log, run.folder / ".owner"):  # its libraries may have written to the log
            del before[path], after[path]
        assert after == before
    assert_same(resume(run), finished)


def test_two_runs_of_one_second_have_folders_of_their_own(small, tmp_path):
    loaded = recipe.load(small)
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=small.parent)
    start, made, errors = threading.Barrier(8), [], []

    def make() -> None:
        start.wait()
        try:
            made.append(record.create(loaded, plan, None, tmp_path / "runs").folder)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(set(made)) == 8
    assert len(record.all_runs(tmp_path / "runs")) == 8


def test_a_named_folder_goes_to_one_of_two_runs(small, tmp_path):
    loaded = recipe.load(small)
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=small.parent)
    record.create(loaded, plan, tmp_path / "mine", tmp_path / "runs")
    with pytest.raises(RecipeError, match="a run folder is never reused"):
        record.create(loaded, plan, tmp_path / "mine", tmp_path / "runs")


@pytest.mark.slow
def test_two_sweeps_of_one_study_make_it_once(small, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    words = [sys.executable, "-m", "r1recipes", "sweep", "study.toml", "--workers", "0"]
    environment = os.environ | {"R1RECIPES_RUNS_DIR": str(tmp_path / "runs")}
    both = [
        subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert 0 in [code for _, code in ends]
    for err, code in ends:
        assert code == 0 or (code == 2 and "another `sweep` drives" in err), err
    url = f"sqlite:///{tmp_path}/runs/study/study.db"
    (cell,) = trials.load_cells(database.open_storage(url), "study")
    assert len(cell.all()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_stops_a_sweep_with_its_workers(name, small, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    words = [sys.executable, "-m", "r1recipes", "sweep", "study.toml", "--n-trials", "2", "--force"]
    environment = os.environ | {"R1RECIPES_RUNS_DIR": str(tmp_path / "runs")}
    log = tmp_path / "runs" / "study" / "worker-0.log"
    driver = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not log.exists():
        assert driver.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    driver.send_signal(signal.Signals[name])
    _, err = driver.communicate(timeout=150)
    assert driver.returncode == 130 and re.search("no trial is lost", err), err
    url = f"sqlite:///{tmp_path}/runs/study/study.db"
    (cell,) = trials.load_cells(database.open_storage(url), "study")
    assert {trial.state.name for trial in cell.all()} <= {"WAITING", "RUNNING"}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(tmp_path).encode() not in path.with_name("environ").read_bytes(), path
        except OSError:
            continue

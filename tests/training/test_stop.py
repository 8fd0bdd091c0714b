"""A run that is stopped in its cold start goes on to the bit, also in a child process."""

import os
import signal
from pathlib import Path

import pytest

from r1recipes import training
from r1recipes.errors import Stopped
from r1recipes.machine import settings
from r1recipes.machine.terminal import AFTER_STEP
from r1recipes.runs import record
from r1recipes.runs.record import Run
from r1recipes.training import Observer
from tests.helpers import quiet_view, run_in_process
from tests.training.test_run import comparable


class Stopping(Observer):
    """Sends Ctrl-C at a step of the cold start, and keeps the notes."""

    def __init__(self, step: int):
        self.step_to_stop = step
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.title = ""

    def phase(self, title: str) -> None:
        self.title = title

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, done: int, total: int) -> None:
        if self.title == "Cold start":
            self.steps.append(done)
            if done == self.step_to_stop:
                os.kill(os.getpid(), signal.SIGINT)


def resume(run: Run, *observers: Observer) -> Run:
    machine = settings.Settings(runs_dir=run.folder.parents[1], offline=True)
    return training.resume(run, [quiet_view(), *observers], machine)


def stopped_run(small: Path, runs_dir: Path, step: int, *overrides: str) -> tuple[Run, Stopping]:
    watching = Stopping(step)
    with pytest.raises(Stopped) as raised:
        run_in_process(small, runs_dir, *overrides, observers=[watching])
    (run,) = record.all_runs(runs_dir)
    saved = f"step {step} of the cold start is saved"
    assert saved in str(raised.value) or "the cold start is done and saved" in str(raised.value)
    assert watching.notes.count(AFTER_STEP) == 1 and watching.steps[-1] == step
    return run, watching


def test_a_cold_start_that_is_stopped_goes_on_to_the_bit(finished, small, tmp_path):
    run, _ = stopped_run(small, tmp_path / "runs", 5)
    assert run.read()["status"] == "stopped" and not run.base.exists()
    again = Stopping(9)
    with pytest.raises(Stopped, match="step 9 of the cold start is saved"):
        resume(run, again)
    assert again.steps == [6, 7, 8, 9]
    resume(run)
    assert run.read()["status"] == "complete" and run.read()["attempts"] == 3
    weights = "model.safetensors"
    assert (run.base / weights).read_bytes() == (finished.base / weights).read_bytes()
    assert comparable(run) == comparable(finished)
    for when in ("before", "after"):
        assert run.evaluation(when).read_text() == finished.evaluation(when).read_text()
    assert not run.cold_start.exists()


def test_a_stop_at_the_last_step_saves_the_model(finished, small, tmp_path):
    run, _ = stopped_run(small, tmp_path / "runs", 12)
    weights = "model.safetensors"
    assert (run.base / weights).read_bytes() == (finished.base / weights).read_bytes()
    assert not run.cold_start.exists()


def test_a_checkpoint_of_a_cold_start_that_is_not_whole_is_left_out(finished, small, tmp_path):
    run, _ = stopped_run(small, tmp_path / "runs", 5)
    (run.cold_start / "checkpoint-5" / "optimizer.pt").write_bytes(b"half")
    assert resume(run).read()["status"] == "complete"
    assert comparable(run) == comparable(finished)

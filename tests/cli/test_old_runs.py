"""Run folders that version 0.1.0 wrote are used, finished and refused like those of today."""

import tarfile
from pathlib import Path

import pytest

from r1recipes.machine import files
from r1recipes.runs.record import Run
from tests.helpers import in_process

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"

pytestmark = pytest.mark.slow


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the old runs, which are found by their short names."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path)  # no `filter`: Python 3.11.3 and older do not know it
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "old"


def step_of(run: Run) -> int:
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    return checkpoint[1]


@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_a_run_that_did_not_end_is_used_from_its_checkpoint(old, name):
    run = Run(old / name)
    code, out, err = in_process("ask", f"old/{name}", "12 + 34 = ?", "--max-tokens", "5")
    assert code == 0 and "trained:" in out
    assert f"checkpoint of step {step_of(run)} of 12; the run was {name}" in err
    assert in_process("eval", f"old/{name}")[0] == 0
    assert in_process("export", f"old/{name}", "--to", "lora")[0] == 0
    assert in_process("share", f"old/{name}", "--to", "x.r1.zip")[0] == 0


def test_it_is_finished_where_it_stands(old):
    run = Run(old / "killed")
    step = step_of(run)
    code, _, err = in_process("run", "--finish", "old/killed")
    assert code == 0, err
    assert run.read()["status"] == "complete"
    assert run.read().get("stopped_at_step") == step
    assert len(files.read_lines(run.metrics)) == step


def test_a_complete_run_says_nothing_of_steps(old):
    code, _, err = in_process("ask", "old/complete", "1 + 1 = ?", "--max-tokens", "5")
    assert code == 0 and "step" not in err


def test_one_without_a_checkpoint_is_refused_with_the_way_on(old):
    for line in (
        ("ask", "old/failed", "1"),
        ("share", "old/failed"),
        ("run", "--finish", "old/failed"),
    ):
        code, _, err = in_process(*line)
        assert code == 2 and "checkpoint" in err and "starts a new run" in err

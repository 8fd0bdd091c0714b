"""What a user can do with a run that was stopped or killed: everything, and it says which step."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from r1recipes.errors import Stopped
from r1recipes.machine import files
from r1recipes.runs import trained
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training import Observer
from tests.conftest import SMALL
from tests.helpers import in_process, run_in_process

pytestmark = pytest.mark.slow


class StoppingIn(Observer):
    """Sends Ctrl-C within a step of the training."""

    def __init__(self, last: int):
        self.last = last

    def step(self, row: Row) -> None:
        if row["step"] == self.last - 1:
            os.kill(os.getpid(), signal.SIGINT)


def stop_at_three(folder: Path, recipe: Path) -> Run:
    with pytest.raises(Stopped, match="step 3 is saved") as raised:
        run_in_process(recipe, folder / "runs", observers=[StoppingIn(3)])
    (run,) = [Run(path.parent) for path in folder.glob("runs/*/*/record.json")]
    assert f"run --finish {run.folder}" in str(raised.value.problems[0].hint)
    return run


def kill_after_three(folder: Path, recipe: Path) -> Run:
    run = Run(folder / "killed")
    line = [sys.executable, "-m", "r1recipes", "run", str(recipe), "--run-dir", str(run.folder)]
    process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 180
    while len(files.read_lines(run.metrics)) < 3 or run.last_checkpoint() is None:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return run


@pytest.fixture(scope="module", params=[stop_at_three, kill_after_three])
def cut_short(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose last whole checkpoint is of step 2 or 3 of 6."""
    folder = tmp_path_factory.mktemp("cut")
    recipe = folder / "small.toml"
    recipe.write_text(SMALL)
    make: Callable[[Path, Path], Run] = request.param
    return make(folder, recipe)


@pytest.fixture
def run(cut_short: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Run(Path(shutil.copytree(cut_short.folder, tmp_path / "small" / "cut")))


def progress(run: Run) -> str:
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None and checkpoint[1] < 6
    return f"step {checkpoint[1]} of 6"


def test_it_is_asked(run, capfd):
    code, out, err = in_process("ask", run.folder, "12 + 34 = ?", "--max-tokens", "9")
    assert code == 0 and "trained:\n" in out
    assert f"checkpoint of {progress(run)}; the run was" in err


def test_it_is_evaluated(run, capfd):
    before = run.record.read_bytes()
    code, _, err = in_process("eval", run.folder, "--samples", "1")
    assert code == 0, err
    (path,) = run.folder.glob("evaluations/*/summary.json")
    summary = json.loads(path.read_text())
    assert f"step {summary['step']} of {summary['max_steps']}" == progress(run)
    assert summary["base"]["num_problems"] == 6 and run.record.read_bytes() == before
    assert f"checkpoint of {progress(run)}" in capfd.readouterr().out


def test_it_is_exported_with_a_card_that_says_so(run, capfd):
    code, _, err = in_process("export", run.folder, "--to", "lora", "--to", "merged_16bit")
    assert code == 0, err
    for form in ("lora", "merged_16bit"):
        folder = run.folder / "export" / form
        card, manifest = (
            (folder / "README.md").read_text(),
            json.loads((folder / "export.json").read_text()),
        )
        assert f", {progress(run)}." in card and "This adapter was not evaluated" in card
        assert "| before |" in card and "| after |" not in card
        assert f"step {manifest['step']} of {manifest['max_steps']}" == progress(run)
        assert "divergence from base + adapter" in manifest["checks"][0]
    names = {path.name for path in (run.folder / "export" / "lora").iterdir()}
    assert {"adapter_model.safetensors", "chat_template.jinja", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]
    assert not names & {"trainer_state.json", "r1recipes-complete"}


def test_a_base_that_is_not_the_trained_one_is_still_refused(run, tmp_path):
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(run.base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] *= -1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    code, _, err = in_process("export", run.folder, "--to", "lora", "--base", other)
    assert code == 1 and "the base gives" in err and "not the model that was trained" in err


def test_it_is_shared_with_a_record_that_says_so(run, tmp_path, capfd):
    code, out, err = in_process("share", run.folder, "--to", "cut.r1.zip")
    assert code == 0, err
    assert f"the run was cut short at {progress(run)}" in out
    with zipfile.ZipFile("cut.r1.zip") as bundle:
        record = json.loads(bundle.read("record.json"))
        card = bundle.read("README.md").decode()
        bundle.extractall("unpacked")
    assert record["status"] == "stopped" and f"{record['stopped_at_step']} of 6" in progress(run)
    assert f"The run was stopped at {progress(run)} and was not evaluated" in card
    code, _, err = in_process("report", "unpacked", "--out", "page.html")
    assert code == 0, err
    assert "Its last checkpoint was that of step" in Path("page.html").read_text()


def test_its_report_says_which_step_is_used(run):
    assert in_process("report", run.folder)[0] == 0
    text = run.report.read_text().replace("<code>", "").replace("</code>", "")
    assert f"ask, eval and export use {progress(run)}." in text


def test_it_is_finished_where_it_stands(run, capfd):
    ended = progress(run)
    step = trained.of_run(run).step
    weights = (trained.of_run(run).adapter / "adapter_model.safetensors").read_bytes()
    code, _, err = in_process("run", "--finish", run.folder)
    assert code == 0, err
    assert f"Finished at {ended}" in capfd.readouterr().out
    record = run.read()
    assert record["status"] == "complete" and record["stopped_at_step"] == step
    assert set(record["evaluation"]) == {"before", "after", "difference"}
    assert len(files.read_lines(run.metrics)) == step and run.last_checkpoint() is not None
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == weights
    assert not list(run.adapter.glob("*.pt"))
    assert f"{step}/6" in in_process("list", "runs")[1]
    assert f"Training was ended at {ended}." in run.report.read_text()
    code, _, err = in_process("run", "--resume", run.folder)
    assert code == 2 and f"was finished at {ended}" in err
    assert f"--set model.name={run.folder}" in err
    assert in_process("run", "--finish", run.folder)[0] == 0
    assert in_process("export", run.folder, "--to", "lora")[0] == 0
    card = (run.folder / "export" / "lora" / "README.md").read_text()
    assert f", {ended}." in card and "| after |" in card
    assert f"trained to {ended}, where it was finished" in capfd.readouterr().out
    code, _, err = in_process("clean", run.folder, "--yes")
    assert code == 0 and not run.checkpoints.exists() and run.adapter.exists()


def test_finishing_that_was_killed_can_be_taken_back(run):
    """Its adapter was not saved yet, so training may go on to the last step."""
    run.update(stopped_at_step=2)
    assert in_process("run", "--resume", run.folder)[0] == 0
    record = run.read()
    assert record["status"] == "complete" and record["stopped_at_step"] is None
    assert len(files.read_lines(run.metrics)) == 6


def test_resume_and_finish_do_not_go_together(run):
    code, _, err = in_process("run", "--resume", run.folder, "--finish", run.folder)
    assert code == 2 and "do not go together" in err
    code, _, err = in_process("run", "--finish", run.folder, "--set", "train.max_steps=9")
    assert code == 2 and "a run goes on as it began" in err

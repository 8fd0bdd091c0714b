"""Runs that are not complete, and the command that goes on or repeats a run."""

import pytest

from r1recipes.recipe import loading
from r1recipes.report import run as report_run
from r1recipes.runs.record import Run
from tests.helpers import in_process
from tests.report.run.pages import keys_of_charts, shell_line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"status": "running", "evaluation": {}}, "Killed: step 6 of 6"),
        ({"status": "stopped", "evaluation": {}}, "Stopped: step 6 of 6"),
        (
            {"status": "failed", "error": {"kind": "oom", "message": "out of <memory>"}},
            "Failed at step 6 of 6",
        ),
    ],
)
def test_a_run_that_is_not_complete_says_how_far_it_came(copy, changes, headline):
    copy.update(**changes)
    page = report_run.html([copy])
    assert headline in page
    assert ("out of &lt;memory&gt;" in page) == (changes["status"] == "failed")


@pytest.mark.slow
@pytest.mark.parametrize("status", ["stopped", "failed", "running"])  # without a process: killed
def test_a_run_that_was_cut_short_has_its_samples_and_the_command_that_goes_on(
    copy, monkeypatch, status
):
    failure = {"kind": "disk", "message": "the disk is full", "hint": "make room"}
    copy.update(status=status, evaluation={}, error=failure if status == "failed" else None)
    copy.evaluation("after").unlink()
    monkeypatch.chdir(copy.folder.parents[2])
    page = report_run.html([copy])
    reason = {"stopped": report_run.WHY_STOPPED, "failed": "the disk is full"}
    assert reason.get(status, report_run.WHY_KILLED) in page
    assert ("To mend it: make room." in page) == (status == "failed")
    assert "Held-out problems before training" in page and "Training samples of step 1" in page
    words = shell_line(page)
    assert words == ["run", "--resume", "runs/small/copy"]
    code, _, err = in_process(*words)
    assert code == 0, err
    assert copy.read()["status"] == "complete"


@pytest.mark.slow
def test_a_run_that_would_fail_again_is_to_be_changed(copy, monkeypatch):
    hint = "try `--set preset.max_completion_length=12`"
    copy.update(status="failed", error={"kind": "oom", "message": "too big", "hint": hint})
    monkeypatch.chdir(copy.folder.parents[2])
    page = report_run.html([copy])
    assert "As it is it fails again" in page and "try <code>--set preset" in page
    assert shell_line(page)[-2:] == ["--set", "preset.max_completion_length=12"]
    copy.update(error={"kind": "reward", "message": "no reward at all"})
    assert "Change the recipe" in report_run.html([copy])


@pytest.mark.slow
def test_a_run_before_its_first_answer_has_a_page(copy):
    """Only the record and the plan: it failed while it loaded."""
    for path in (copy.metrics, copy.completions, copy.evaluation("before")):
        path.unlink()
    copy.evaluation("after").unlink()
    failure = {"kind": "crash", "message": "no such model"}
    copy.update(status="failed", evaluation={}, error=failure, duration_s={}, time={})
    page = report_run.html([copy])
    assert "Failed at step 0 of 6" in page and "no such model" in page
    assert "r1recipes run --resume" in page and not keys_of_charts(page)


REWARDS = """\
def short(completion, row):
    return 1.0 if len(completion) < 40 else 0.0
"""


@pytest.mark.slow
def test_the_command_that_repeats_a_run_works_from_the_root_of_the_clone(
    finished, tmp_path, monkeypatch
):
    """Parsed as a user types it, with a recipe in a folder and a reward of the user's own."""
    folder = tmp_path / "my recipes"
    folder.mkdir()
    text = finished.recipe.read_text().replace("[rewards]", '[rewards]\n"mine.py:short" = 0.5')
    (folder / "own.toml").write_text(text)
    (folder / "mine.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    steps = ["--set", "train.max_steps=1"]
    code, _, err = in_process("run", "my recipes/own.toml", "--allow-code", *steps)
    assert code == 0, err
    (folder_of_run,) = (tmp_path / "runs").glob("own/*")
    words = shell_line(report_run.html([Run(folder_of_run)]))
    assert words == ["run", "my recipes/own.toml", "--preset", "cpu", *steps, "--allow-code"]
    code, _, err = in_process(*words)
    assert code == 0, err
    first, second = (Run(path).read() for path in sorted((tmp_path / "runs").glob("own/*")))
    assert first["fingerprint"] == second["fingerprint"]
    monkeypatch.chdir(folder.parent.parent)
    assert str(tmp_path) not in report_run.html([Run(folder_of_run)]).split("Reproduce")[1]


@pytest.mark.slow
def test_a_shipped_recipe_is_repeated_by_its_name_unless_it_was_changed(copy, tmp_path):
    (shipped,) = [path for path in loading.shipped() if path.stem == "tiny"]
    copy.update(recipe="tiny")
    copy.recipe.write_text(shipped.read_text())
    words = shell_line(report_run.html([copy]))
    assert words[:2] == ["run", "tiny"] and loading.load(words[1]).path == shipped
    copy.recipe.write_text(shipped.read_text() + "# changed")
    page = report_run.html([copy])
    assert shell_line(page)[1] == "tiny.toml"
    assert "Run it in the folder that has tiny.toml" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "argument"),
    [
        ({"reference": "hub:u/r", "commit": "a" * 40}, f"hub:u/r@{'a' * 40}"),
        ({"reference": "hub:u/r@main/x.toml", "commit": "b" * 40}, f"hub:u/r@{'b' * 40}/x.toml"),
        ({"reference": "https://h/x.toml", "commit": None}, "https://h/x.toml"),
        ({"reference": "my run.r1.zip", "commit": None}, "my run.r1.zip"),
    ],
)
def test_a_recipe_from_elsewhere_is_repeated_from_there(copy, source, argument):
    copy.update_lock(source=source | {"sha256": "0" * 64})
    assert shell_line(report_run.html([copy]))[1] == argument


@pytest.mark.slow
def test_a_run_that_is_worked_on_is_running(copy):
    copy.update(status="running", evaluation={})
    with copy.owned():
        assert "Running: step 6 of 6" in report_run.html([copy])

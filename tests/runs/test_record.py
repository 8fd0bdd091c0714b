import json
import multiprocessing
import os
import shutil

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import files
from r1recipes.runs import find, record
from r1recipes.runs.record import Run, checkpoints


@pytest.fixture
def made(small, tmp_path):
    loaded = recipe.load(small)
    resolved = planning.make(loaded.recipe, planning.Target.here(None, 2), base_dir=tmp_path)
    return record.create(loaded, resolved, None, tmp_path / "runs"), loaded, resolved


def test_a_new_folder_has_what_a_resume_needs(made):
    run, loaded, resolved = made
    assert run.folder.parent.name == "small"
    assert run.folder.name.endswith(recipe.fingerprint(loaded.recipe)[:8])
    assert run.recipe.read_text() == loaded.text
    assert run.plan() == resolved
    assert run.read()["status"] == "running"
    assert json.loads(run.lock.read_text())["versions"]["trl"].startswith("1.12")


def test_a_folder_is_never_reused(made, tmp_path):
    run, loaded, resolved = made
    before = run.record.read_text()
    with pytest.raises(RecipeError, match="never reused"):
        record.create(loaded, resolved, run.folder, tmp_path)
    assert run.record.read_text() == before
    second = record.create(loaded, resolved, None, tmp_path / "runs")
    assert second.folder != run.folder


def test_a_folder_that_cannot_be_made_is_a_disk_error(made, tmp_path):
    _, loaded, resolved = made
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written") as raised:
        record.create(loaded, resolved, tmp_path / "file" / "run", tmp_path)
    assert raised.value.kind == "disk" and raised.value.exit_code == 1


def test_a_torn_last_line_is_dropped_and_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"step": 1})
    with open(path, "ab") as file:
        file.write(b'{"step": 2, "rew')
    assert files.read_lines(path) == [{"step": 1}]
    files.append_line(path, {"step": 2})
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_bytes(b'{"torn')
    files.append_line(path, {"step": 1})
    assert files.read_lines(path) == [{"step": 1}]


def test_only_whole_checkpoints_count(made):
    run, *_ = made
    for step, whole in ((2, True), (4, True), (6, False)):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter.bin").write_text("weights")
        if whole:
            checkpoints.mark_checkpoint(folder)
    for step in range(1, 8):
        files.append_line(run.metrics, {"step": step})
    assert run.last_checkpoint() == (run.checkpoints / "checkpoint-4", 4)
    run.rewind(4)
    assert [row["step"] for row in files.read_lines(run.metrics)] == [1, 2, 3, 4]
    assert not (run.checkpoints / "checkpoint-6").exists()
    (run.checkpoints / "checkpoint-4" / "adapter.bin").write_text("torn")
    assert run.last_checkpoint() == (run.checkpoints / "checkpoint-2", 2)
    with pytest.raises(RecipeError, match="does not have steps 1 to 5"):
        run.rewind(5)
    run.rewind(0)
    assert run.last_checkpoint() is None and files.read_lines(run.metrics) == []


def test_a_run_that_is_only_half_made_is_none(made, tmp_path):
    run, loaded, resolved = made
    runs = tmp_path / "runs"
    for parent in (runs, run.folder.parent):
        half = parent / f"{files.DRAFT}0123" / "mine"
        shutil.copytree(run.folder, half)
    (runs / "small" / f".20261121T041937Z-83ddb244.{2**22 + 1}.tmp").mkdir()
    assert [found.folder for found in record.all_runs(runs)] == [run.folder]
    second = record.create(loaded, resolved, None, runs)
    assert sorted(run.folder.parent.iterdir()) == sorted([run.folder, second.folder])


def _own(folder, ready, leave):
    with Run(folder).owned():
        ready.set()
        leave.wait(20)


def test_one_process_at_a_time_owns_a_folder(made):
    run, *_ = made
    context = multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_own, args=(run.folder, ready, leave))
    other.start()
    assert ready.wait(20) and other.pid
    with pytest.raises(RecipeError, match="in use by another process"):
        with run.owned():
            pass
    os.kill(other.pid, 9)  # the system drops the lock of a dead process
    other.join()
    with run.owned():
        pass


def test_find_takes_a_folder_or_the_newest_unfinished(made, tmp_path):
    run, loaded, resolved = made
    newer = record.create(loaded, resolved, None, tmp_path / "runs")
    runs = tmp_path / "runs"
    assert record.find_unfinished(runs).folder == newer.folder
    newer.update(status="complete")
    assert record.find_unfinished(runs).folder == run.folder
    assert record.find_unfinished(runs, "small").folder == run.folder
    assert find(runs, str(newer.folder)).folder == newer.folder
    assert find(runs, f"small/{run.folder.name}").folder == runs / "small" / run.folder.name
    with pytest.raises(RecipeError, match="no unfinished run of `phi4`"):
        record.find_unfinished(runs, "phi4")
    with pytest.raises(RecipeError, match="no run folder `nothing`"):
        find(runs, "nothing")


def test_a_run_that_nobody_works_on_is_killed_and_not_running(made):
    run, *_ = made
    files.append_line(run.metrics, {"step": 1}, {"step": 2})
    assert run.read()["status"] == "running"
    assert run.standing() == "was killed at step 2" and "run --resume" in run.to_go_on()
    with run.owned():
        assert run.standing() == "is running at step 2" and "wait" in run.to_go_on()
        with pytest.raises(RecipeError, match="the unfinished run is running"):
            record.find_unfinished(run.folder.parent.parent)
    run.metrics.write_text("{\n")
    assert run.standing() == "was killed at step 0"
    run.update(status="failed")
    assert run.status() == "failed"


@pytest.mark.parametrize(
    ("kind", "hint", "way"),
    [
        ("disk", "free some space", "run --resume {run}` goes on"),
        ("crash", "the traceback is in train.log", "run --resume {run}` goes on"),
        ("oom", "try `--set preset.load_in=4bit`", "--set preset.load_in=4bit` starts a new run"),
        ("nan", "lower `train.learning_rate`", "lower `train.learning_rate`; then `r1recipes run "),
        ("reward", "or train anyway with `--force`", "run --resume {run} --force` trains anyway"),
        ("reward", "`r1recipes run --resume` goes on", "`r1recipes run --resume` goes on"),
        ("input", "", "change what it failed for; then `r1recipes run "),
    ],
)
def test_a_run_that_failed_for_its_settings_is_not_said_to_go_on(made, kind, hint, way):
    run, *_ = made
    run.update(status="failed", error={"kind": kind, "message": "it failed", "hint": hint})
    assert way.format(run=run.folder) in run.to_go_on()


def test_runs_are_found_right_below_the_folder_too_by_the_time_they_began(made, tmp_path):
    run, loaded, resolved = made
    runs = tmp_path / "runs"
    mine = record.create(loaded, resolved, runs / "a", runs)
    mine.update(started="2099-01-01T00:00:00Z")
    assert [each.folder for each in record.all_runs(runs)] == [run.folder, mine.folder]
    assert record.find_unfinished(runs).folder == mine.folder == find(runs, "a").folder
    mine.record.write_text("{")
    assert [each.folder for each in record.all_runs(runs)] == [mine.folder, run.folder]


def test_unreadable_records_are_user_errors(made):
    run, *_ = made
    for text in ("{", "[]", "{}"):
        run.record.write_text(text)
        with pytest.raises(RecipeError, match="is damaged"):
            run.read()
    with pytest.raises(RecipeError, match="no unfinished run"):
        record.find_unfinished(run.folder.parent.parent)
    run.resolved.write_text("{}")
    with pytest.raises(RecipeError, match="`recipe` is missing"):
        run.plan()

"""A worker with real trials: the same numbers warm and fresh, every way that a trial can end."""

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from r1recipes import recipe
from r1recipes.errors import PlanError, RecipeError, RunError
from r1recipes.machine import files, settings
from r1recipes.planning.speed import evaluation as cost
from r1recipes.runs import record
from r1recipes.runs.record import Run
from r1recipes.study import database, loading, search, trials, worker
from r1recipes.training.prepared import Options
from tests.study.claims import claim
from tests.study.test_loading import write
from tests.training.test_run import comparable

STUDY = """\
format = 1
recipe = "small.toml"

[study]
n_trials = 3

[search]
"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"""


@pytest.fixture
def made(small, tmp_path):
    (cell,) = loading.load(write(tmp_path, STUDY), ["train.max_steps=3"]).cells
    return trials.create_cell(database.open_storage(f"sqlite:///{tmp_path}/study.db"), cell)


@pytest.fixture
def someone(made, tmp_path):
    machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
    return worker.Worker([made], worker.Place(machine, 1, Options(force=True)))


def run_of(trial) -> Run:
    return Run(Path(trial.user_attrs["run"]))


@pytest.mark.slow
def test_a_warm_worker_gives_the_numbers_of_a_fresh_process(small, finished, tmp_path):
    text = STUDY.replace("n_trials = 3", "n_trials = 2\nbaseline = false")
    (cell,) = loading.load(write(tmp_path, text)).cells
    made = trials.create_cell(database.open_storage(f"sqlite:///{tmp_path}/study.db"), cell)
    machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
    someone = worker.Worker([made], worker.Place(machine, 1, Options(force=True)))
    someone.run_trial(made, claim(made))
    made.study.enqueue_trial(cell.own_values())
    assert someone.work() == 0
    first, last = map(run_of, made.all())
    assert "cold_start" in first.read()["duration_s"]
    assert not last.read()["duration_s"].keys() & {"cold_start", "evaluate_before"}
    assert comparable(last) == comparable(finished) != comparable(first)
    for when in ("before", "after"):
        assert last.evaluation(when).read_text() == finished.evaluation(when).read_text()
    assert made.all()[1].values == [last.read()["evaluation"]["after"]["accuracy"]]
    about = {"name": "study", "cell": "", "trial": 1, "params": cell.own_values()}
    assert last.read()["study"] == about
    last.update(status="stopped")
    with pytest.raises(RecipeError, match="no unfinished run") as caught:
        record.find_unfinished(tmp_path / "runs")
    assert "`sweep`" in (caught.value.problems[0].hint or "")


def fail_with(error):
    def fail(*arguments, **options):
        raise error

    return fail


def test_a_trial_that_fails_is_told_with_its_reason(someone, made, monkeypatch):
    oom = RunError("out of memory: 2 GiB", kind="oom")
    for error in (oom, RunError("not finite", kind="nan"), ZeroDivisionError("division by zero")):
        monkeypatch.setattr(someone, "execute", fail_with(error))
        assert someone.run_trial(made, claim(made)) is False
    found = [trial.user_attrs["error"] for trial in made.all()]
    assert [error["kind"] for error in found] == ["oom", "nan", "crash"]
    assert found[0]["message"] == "out of memory: 2 GiB" and made.is_done()


def test_a_result_that_is_no_number_is_a_failure(someone, made, monkeypatch):
    monkeypatch.setattr(someone, "execute", lambda *arguments: None)
    monkeypatch.setattr(worker, "objective_values", lambda *arguments: [float("nan")])
    someone.run_trial(made, claim(made))
    (trial,) = made.all()
    assert trial.state == TrialState.FAIL and "nan" in trial.user_attrs["error"]["message"]


def test_a_full_disk_ends_the_worker_and_not_the_trial(someone, made, monkeypatch):
    full = RunError("the disk is full", kind="disk")
    monkeypatch.setattr(someone, "execute", fail_with(full))
    with pytest.raises(PlanError, match="the disk is full"):
        someone.run_trial(made, claim(made))
    assert [trial.state for trial in made.all()] == [TrialState.WAITING]


def test_a_candidate_that_cannot_fit_is_told_without_a_start(someone, made, monkeypatch):
    monkeypatch.setattr(worker, "plan_trial", fail_with(PlanError("needs 30 GiB of 24")))
    monkeypatch.setattr(someone, "execute", fail_with(AssertionError("it was started")))
    someone.run_trial(made, claim(made))
    (trial,) = made.all()
    assert trial.user_attrs["infeasible"] == "needs 30 GiB of 24"
    assert trial.state == TrialState.PRUNED and made.num_startable() == 3
    assert trial.constraints == {"valid": 1.0}


@pytest.mark.slow
def test_a_hopeless_trial_ends_early_and_says_so(someone, made, monkeypatch):
    monkeypatch.setattr(search, "intermediate_value", lambda *arguments: 0.25)
    monkeypatch.setattr(search.NoisePruner, "prune", lambda *arguments: True)
    someone.run_trial(made, claim(made))
    (trial,) = made.all()
    assert trial.state == TrialState.PRUNED and trial.intermediate_values == {1: 0.25}
    run = run_of(trial)
    assert run.read()["status"] == "pruned"
    assert len(files.read_lines(run.metrics)) == 1 and trials.is_finished(trial)


@pytest.mark.slow
def test_trials_are_pruned_by_their_held_out_accuracy(small, tmp_path, monkeypatch):
    """With `eval.every`; reported at its steps and no others, and again after a resume."""
    monkeypatch.setattr(cost, "MAX_SHARE", 1e9)
    (cell,) = loading.load(write(tmp_path, STUDY), ["eval.every=2"]).cells
    made = trials.create_cell(database.open_storage(f"sqlite:///{tmp_path}/study.db"), cell)
    machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
    someone = worker.Worker([made], worker.Place(machine, 1, Options(force=True)))
    someone.run_trial(made, claim(made))
    (trial,) = made.all()
    rows = files.read_lines(run_of(trial).metrics)
    accuracies = {row["step"]: row["eval/accuracy"] for row in rows if "eval/accuracy" in row}
    assert trial.state == TrialState.COMPLETE and list(accuracies) == [2, 4]
    assert trial.intermediate_values == accuracies

    seen = []

    def prune(self, study, trial):
        seen.append((trial.last_step, self.num_prompts))
        return trial.last_step == 4

    monkeypatch.setattr(search.NoisePruner, "prune", prune)
    someone.run_trial(made, claim(made))
    pruned = made.all()[1]
    assert pruned.state == TrialState.PRUNED and list(pruned.intermediate_values) == [2, 4]
    assert seen == [(2, 6), (4, 6)]
    record = run_of(pruned).read()
    assert record["status"] == "pruned" and record["while_training"]["num_evaluations"] == 2


@pytest.mark.slow
def test_a_trial_that_was_taken_away_stops_and_the_other_one_goes_on_in_its_folder(
    someone, made, monkeypatch
):
    """A worker that hung, was taken for dead, and woke up."""
    step = worker.Pruning.step

    def taken(pruning, row):
        if row["step"] == 3 and pruning.trial.number == 0:
            made.requeue_dead(lambda trial: True)
            pruning.lost = True
        step(pruning, row)

    monkeypatch.setattr(worker.Pruning, "step", taken)
    someone.run_trial(made, claim(made))
    someone.run_trial(made, claim(made))
    first, again = made.all()
    assert (first.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert run_of(again).folder == run_of(first).folder
    assert run_of(again).read()["attempts"] == 2
    assert sum(map(trials.is_finished, made.all())) == 1


def test_the_best_recipe_is_complete_and_names_the_same_files(made, small, tmp_path):
    from r1recipes.study import results

    trial = claim(made)
    made.complete(trial, [0.5])
    folder = tmp_path / "runs" / "study"
    folder.mkdir(parents=True)
    (folder / "best.toml").write_text(results.best_recipe(made, made.all()[0], folder))
    best = recipe.load(folder / "best.toml").recipe
    assert best == made.cell.load(trial.params).recipe
    assert "found by the study" in (folder / "best.toml").read_text()

    (small.parent / "mine.py").write_text("")
    text = small.read_text().replace("integer = 0.5", '"mine.py:own" = 0.5')
    small.write_text(text)
    moved = results.moved_recipe(recipe.load(small).recipe, small.parent, folder)
    assert "../../mine.py:own" in moved.rewards


def test_trials_can_be_exported(made):
    from r1recipes.study import results

    made.fail(claim(made), "oom", "too big")
    (row,) = json.loads(results.export([made], ".json"))["trials"]
    assert row["state"] == "oom" and row["error"] == "too big"
    assert row["train.learning_rate"] == 1e-3
    lines = results.export([made], ".csv").splitlines()
    assert lines[0].startswith("cell,trial,state,counts,eval/accuracy,train.learning_rate")

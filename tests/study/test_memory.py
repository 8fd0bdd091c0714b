"""Predicted memory as a number for the study: told to Optuna, never started, shown."""

import json

import pytest
from optuna.trial import TrialState

from r1recipes.machine import gpu, settings
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import plan
from r1recipes.report import study
from r1recipes.study import database, leaderboard, loading, results, worker
from r1recipes.study.trials import create_cell
from r1recipes.training.prepared import Options
from tests.study.test_loading import write

STUDY = """\
format = 1
recipe = "qwen2.5-1.5b"
preset = "16GB"

[study]
metric = ["eval/accuracy", "eval/mean_length"]
n_trials = 12
seed = 1

[search]
"preset.gpu_memory_utilization" = { low = 0.3, high = 0.95 }
"preset.num_generations" = { choices = [4, 8, 16] }
"""
CARD = Gpu(0, "Tesla T4", int(14.74 * 2**30), int(14.74 * 2**30), 7.5, "")


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A study on a card that holds a part of what is searched; nothing is trained."""
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    monkeypatch.setattr(gpu, "current", lambda: CARD)
    (cell,) = loading.load(write(tmp_path, STUDY)).cells
    made = create_cell(database.open_storage(f"sqlite:///{tmp_path}/study.db"), cell)
    place = worker.Place(settings.Settings(runs_dir=tmp_path, offline=True), 1, Options())
    someone = worker.Worker([made], place)
    monkeypatch.setattr(gpu, "current", lambda: pytest.fail("asked with an engine loaded"))
    started = []

    def execute(trials, trial, loaded, resolved, view):
        started.append(trial.number)
        return resolved

    def values(resolved, metrics):
        share = resolved.preset.gpu_memory_utilization
        return [share, 100 * share + resolved.preset.num_generations]

    monkeypatch.setattr(someone, "execute", execute)
    monkeypatch.setattr(worker, "objective_values", values)
    assert someone.work() == 0
    assert started == [t.number for t in made.all() if t.state == TrialState.COMPLETE]
    return made


def test_what_does_not_fit_is_told_by_how_much_and_not_started(done):
    complete = [t for t in done.all() if t.state == TrialState.COMPLETE]
    refused = [t for t in done.all() if "infeasible" in t.user_attrs]
    assert len(complete) == 12 and refused
    assert all(t.constraints["excess_gib"] <= 0 for t in complete)
    excess = {t.params["preset.gpu_memory_utilization"]: t.constraints for t in refused}
    assert all(found.keys() == {"excess_gib"} for found in excess.values())
    amounts = [found["excess_gib"] for found in excess.values()]
    assert min(amounts) > 0 and len(set(amounts)) == len(amounts), "a measure, not a verdict"
    assert all("does not fit" in t.user_attrs["infeasible"] for t in refused)


def test_the_front_and_the_memory_are_shown_and_exported(done):
    complete = [t for t in done.all() if t.state == TrialState.COMPLETE]
    on_front = leaderboard.front(done)
    for trial in complete:
        beaten = any(
            o.values[0] >= trial.values[0] and o.values[1] <= trial.values[1]
            for o in complete
            if o.values != trial.values
        )
        assert (trial.number in on_front) != beaten
    best = leaderboard.best(done)
    assert best is not None
    sentences = " ".join(leaderboard.summary([done], done, best))
    assert "front: trial" in sentences and "not started" in sentences
    assert "of 14.7 GiB" in leaderboard.line(done, best)
    page = study.html([done])
    for part in ("eval/mean_length against eval/accuracy", "predicted peak", "does not fit"):
        assert part in page
    rows = json.loads(results.export([done], ".json"))["trials"]
    assert all(row["predicted_gib"] > 0 and row["room_gib"] > 14.7 for row in rows)
    assert {row["excess_gib"] > 0 for row in rows if row["state"] == "does not fit"} == {True}

"""Held-out evaluations while training (`eval.every`) change nothing else, and none is lost."""

import os
import random
import signal
from pathlib import Path

import pytest

from r1recipes import recipe, training
from r1recipes.errors import Stopped
from r1recipes.machine import files, settings
from r1recipes.planning.speed import evaluation as cost
from r1recipes.report import curves
from r1recipes.report.charts import Plot
from r1recipes.report.run import html
from r1recipes.runs import health, reading, record
from r1recipes.runs.record import Run
from r1recipes.training import Observer
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.evaluation import WhileTraining, while_training
from r1recipes.training.stages import Stages
from tests.helpers import quiet_view, run_in_process
from tests.training.test_run import Killed, comparable

EVERY = "eval.every=2"
ADDED = {health.ACCURACY, health.LOW, health.HIGH, health.NUM_PROBLEMS, health.NUM_SAMPLES}


@pytest.fixture(autouse=True)
def _any_cost(monkeypatch):
    """The steps of the small recipe are too few for an evaluation that takes 3 % of them."""
    monkeypatch.setattr(cost, "MAX_SHARE", 1e9)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The small recipe with an evaluation every two steps."""
    folder = tmp_path_factory.mktemp("evaluated")
    path = folder / "small.toml"
    path.write_text((Path(__file__).parents[3] / "benchmarks" / "small.toml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "MAX_SHARE", 1e9)
        return run_in_process(path, folder / "runs", EVERY)


def without_evaluations(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ADDED} for row in comparable(run)]


def assert_trained_alike(one: Run, other: Run) -> None:
    """Same metrics, completions, weights and final answers, to the bit."""
    assert without_evaluations(one) == without_evaluations(other)
    for name in ("completions", "adapter/adapter_model.safetensors", "evaluation-after"):
        name = name if "/" in name else f"{name}.jsonl"
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name


def test_the_rows_of_its_steps_have_the_accuracy_with_its_interval(evaluated):
    rows = files.read_lines(evaluated.metrics)
    assert [row["step"] for row in rows if health.ACCURACY in row] == [2, 4]  # 6 is the last
    for row in rows[1:4:2]:
        low, accuracy, high = row[health.LOW], row[health.ACCURACY], row[health.HIGH]
        assert 0 <= low <= accuracy <= high <= 1 and high - low > 0.3
        assert row[health.NUM_PROBLEMS] == row[health.NUM_SAMPLES] == 6
        assert row[while_training.TIME] > 0
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)


def test_training_is_the_same_to_the_bit(evaluated, finished):
    assert_trained_alike(evaluated, finished)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_training_with_dropout_is_the_same_to_the_bit(algorithm, small, tmp_path):
    """Dropout draws random numbers in training and is off while completions are sampled."""
    common = [f"algorithm={algorithm}", "lora.lora_dropout=0.2", "train.beta=0.1"]
    plain = run_in_process(small, tmp_path / "runs", *common)
    every = run_in_process(small, tmp_path / "runs", *common, "eval.every=1")
    rows = files.read_lines(every.metrics)
    assert [row["step"] for row in rows if health.ACCURACY in row] == [1, 2, 3, 4, 5]
    assert_trained_alike(every, plain)


def test_an_evaluation_leaves_every_random_state_and_mode_alone(small, tmp_path, monkeypatch):
    import numpy as np
    import torch

    original, compared = WhileTraining.after_step, []

    def states(self):
        model = self._backend.model
        modes = tuple(part.training for part in model.modules())
        numbers = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))
        grads = [parameter.requires_grad for parameter in model.parameters()]
        return modes, numbers, grads, list(model.peft_config), model.active_adapters

    def after_step(self, step):
        before = states(self)
        row = original(self, step)
        compared.append((bool(row), states(self) == before))
        return row

    monkeypatch.setattr(WhileTraining, "after_step", after_step)
    run_in_process(small, tmp_path / "runs", EVERY)
    assert compared == [(False, True), (True, True)] * 2 + [(False, True)] * 2


def test_the_weights_are_those_of_the_step(small, tmp_path, monkeypatch):
    """The answers at step 4 are those of the adapter in the checkpoint of step 4."""
    answers: list[list[str]] = []
    original = TrlBackend.generate

    def generate(self, prompts, num_samples, greedy, adapter, hooks):
        groups = original(self, prompts, num_samples, greedy, adapter, hooks)
        if adapter and num_samples == 1 and not greedy:  # two after training
            answers.append([group[0].text for group in groups])
        return groups

    monkeypatch.setattr(TrlBackend, "generate", generate)
    run = run_in_process(small, tmp_path / "runs", EVERY, "train.learning_rate=0.01")
    backend = TrlBackend(run.plan(), offline=True)
    backend.load(run.base, run.checkpoints / "checkpoint-4")
    prompts = [
        [{"role": "user", "content": item["question"]}]
        for item in files.read_lines(run.evaluation("after"))
    ]
    again = original(backend, prompts, 1, False, True, Hooks())
    assert len(answers) == 2 and answers[0] != answers[1]
    assert [group[0].text for group in again] == answers[1]


def resume(run: Run) -> Run:
    machine = settings.Settings(runs_dir=run.folder.parents[1], offline=True)
    return training.resume(run, [quiet_view()], machine)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["in an evaluation", "before its checkpoint", "after it"])
def test_a_killed_run_repeats_no_evaluation_and_loses_none(
    when, evaluated, small, tmp_path, monkeypatch
):
    evaluations = []
    original_step, original = Stages.on_step, WhileTraining.after_step

    def after_step(self, step):
        if when == "in an evaluation" and step == 4 and 4 not in evaluations:
            evaluations.append(step)
            raise Killed
        if row := original(self, step):
            evaluations.append(step)
        return row

    def on_step(self, row, samples):
        original_step(self, row, samples)
        kill_at = {"before its checkpoint": 4, "after it": 5}.get(when)
        if row["step"] == kill_at and self.run.read()["attempts"] == 1:
            raise Killed

    monkeypatch.setattr(WhileTraining, "after_step", after_step)
    monkeypatch.setattr(Stages, "on_step", on_step)
    with pytest.raises(Killed):
        run_in_process(small, tmp_path / "runs", EVERY)
    (run,) = record.all_runs(tmp_path / "runs")
    resume(run)
    assert comparable(run) == comparable(evaluated)
    assert_trained_alike(run, evaluated)
    assert evaluations == ([2, 4] if when == "after it" else [2, 4, 4])
    assert run.read()["while_training"]["num_evaluations"] == 2


class StopAt(Observer):
    """Sends Ctrl-C when a step is done."""

    def __init__(self, step: int):
        self.stop_at = step

    def step(self, row) -> None:
        if row["step"] == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2])
def test_a_stopped_run_ends_as_if_it_had_not(step, evaluated, small, tmp_path):
    """The step at which a run stops after Ctrl-C may be one that is evaluated, as 2 is here."""
    with pytest.raises(Stopped):
        run_in_process(small, tmp_path / "runs", EVERY, observers=[StopAt(step)])
    (run,) = record.all_runs(tmp_path / "runs")
    assert len(files.read_lines(run.metrics)) == step + 1
    resume(run)
    assert comparable(run) == comparable(evaluated)
    assert_trained_alike(run, evaluated)


def test_the_record_has_what_it_took(evaluated, finished):
    spent = evaluated.read()["while_training"]
    rows = files.read_lines(evaluated.metrics)
    seconds = sum(row.get(while_training.TIME, 0) for row in rows)
    total = seconds + sum(row["time/step_s"] for row in rows)
    assert spent["num_evaluations"] == 2 and spent["num_problems"] == 6
    assert spent["seconds"] == pytest.approx(seconds, abs=0.01)
    assert spent["share_of_training"] == pytest.approx(seconds / total, abs=1e-4)
    assert "while_training" not in finished.read()


class Notes(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_evaluations_that_took_too_long_are_said_with_what_mends_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(while_training, "MAX_SHARE", 0.001)
    notes = Notes()
    run = run_in_process(small, tmp_path / "runs", EVERY, observers=[notes])
    share = run.read()["while_training"]["share_of_training"]
    (line,) = [line for line in notes.lines if "the evaluations during training took" in line]
    assert f"{share:.1%}" in line and "`eval.every = " in line


def test_the_page_and_the_csv_have_them_beside_the_accuracy_in_training(evaluated, finished):
    (plot,) = (c for c in curves.learning([reading.read(evaluated)]) if "accuracy" in c.key)
    assert isinstance(plot, Plot)
    in_training, held_out = plot.series
    assert in_training.low and in_training.high and held_out.points
    evaluations = evaluated.read()["evaluation"]
    assert list(held_out.x) == [0, 2, 4, 6]
    assert held_out.y[0] == evaluations["before"]["accuracy"]
    assert held_out.y[-1] == evaluations["after"]["accuracy"]
    header, first, *rest = plot.table()
    assert header[-3:] == ["held out", "held out low", "held out high"] and len(rest) == 6
    assert first[0] == 0 and first[1] is None and first[-3] == held_out.y[0]
    page = html([evaluated])
    assert "held out: " in page and "Points: held-out problems" in page
    (plain,) = (c for c in curves.learning([reading.read(finished)]) if "accuracy" in c.key)
    assert isinstance(plain, Plot) and len(plain.series) == 1
    both = curves.learning([reading.read(evaluated, "A"), reading.read(finished, "B")])
    (overlaid,) = (c for c in both if "accuracy" in c.key)
    assert isinstance(overlaid, Plot)
    assert [series.name for series in overlaid.series] == ["A", "B", "A held out"]


def test_a_recipe_without_it_keeps_its_fingerprint(small):
    """That of tiny was published with its results."""
    assert recipe.fingerprint(recipe.load("tiny", []).recipe).startswith("83ddb244")
    plain, every = recipe.load(small, []), recipe.load(small, [EVERY])
    assert recipe.fingerprint(plain.recipe) != recipe.fingerprint(every.recipe)

"""Stages before the last training: one run with one adapter, resumed to the bit in any of them."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from r1recipes import training
from r1recipes.errors import RecipeError, Stopped
from r1recipes.machine import files, settings
from r1recipes.report import phases
from r1recipes.report import run as report
from r1recipes.report.run import Live
from r1recipes.runs import reading, record
from r1recipes.runs.record import Run
from r1recipes.training import Observer
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.prepared import Options
from r1recipes.training.stages.earlier import Earlier
from r1recipes.training.stages.training import Training
from r1recipes.training.trackers import Trackers
from r1recipes.training.view import View
from tests.conftest import SMALL
from tests.helpers import quiet_view, run_in_process
from tests.training.test_run import comparable

pytestmark = pytest.mark.slow

STAGES = """
[[stage]]
algorithm = "sft"

[stage.examples]
name = "demonstrations.jsonl"

[stage.train]
max_steps = 4
learning_rate = 1e-3
save_steps = 2

[[stage]]
algorithm = "dpo"
num_generations = 8

[stage.train]
max_steps = 2
learning_rate = 1e-3
save_steps = 1

[[stage]]
algorithm = "grpo"
prompts_per_step = 8
per_device_train_batch_size = 16

[stage.train]
max_steps = 3
learning_rate = 1e-3
save_steps = 1
beta = 0.1

[stage.rewards]
correctness = 1.0
integer = 0.5
"""
TITLES = ["1-sft", "2-dpo", "3-grpo"]


def write(folder: Path) -> Path:
    """A recipe with three stages before its training, and the examples of the first."""
    rows = [
        {
            "question": f"{a} + {b} = ?",
            "completion": f"<reasoning>\n{a}+{b}\n</reasoning>\n<answer>\n{a + b}\n</answer>\n",
        }
        for a, b in [(n, 99 - n) for n in range(10, 40)]
    ]
    files.write_lines(folder / "demonstrations.jsonl", rows)
    (folder / "staged.toml").write_text(SMALL + STAGES)
    return folder / "staged.toml"


class Watched(NamedTuple):
    """A run with what its observers saw."""

    run: Run
    text: str
    all_stages: "Seeing"
    last_stage: "LastOnly"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A complete run with three stages before its training."""
    path = write(tmp_path_factory.mktemp("staged"))
    screen = io.StringIO()
    view = View(Console(file=screen, width=200), live=False)
    all_stages, last_stage = Seeing(), LastOnly()
    observers = [view, all_stages, last_stage, Trackers(view.note), Live()]
    run = run_in_process(path, path.parent / "runs", observers=observers)
    return Watched(run, screen.getvalue(), all_stages, last_stage)


@pytest.fixture(scope="module")
def staged(watched: Watched) -> Run:
    return watched.run


@pytest.fixture
def recipe_file(tmp_path) -> Path:
    return write(tmp_path)


def resume(run: Run, *observers: Observer, finish: bool = False) -> Run:
    machine = settings.Settings(runs_dir=run.folder.parents[1], offline=True)
    options = Options(finish=finish)
    return training.resume(run, [quiet_view(), *observers], machine, options=options)


def same(one: Run, other: Run, titles: Sequence[str] = TITLES) -> None:
    """Metrics, weights, answers and results of two runs are equal to the bit."""
    weights = "adapter_model.safetensors"
    for a, b in [(one, other), *((one.stage(t), other.stage(t)) for t in titles)]:
        assert comparable(a) == comparable(b)
        assert (a.adapter / weights).read_bytes() == (b.adapter / weights).read_bytes()
        assert a.evaluation("after").read_text() == b.evaluation("after").read_text()
    results = [
        [{k: v for k, v in stage.items() if k != "seconds"} for stage in run.read()["stages"]]
        for run in (one, other)
    ]
    assert results[0] == results[1]


def test_each_stage_has_its_files_and_its_place_in_the_record(staged):
    recorded = staged.read()
    names = [stage["name"] for stage in recorded["stages"]]
    assert recorded["status"] == "complete" and names == [*TITLES, "4-grpo"]
    assert [stage["steps"] for stage in recorded["stages"]] == [4, 2, 3, 6]
    assert recorded["stages"][-1]["evaluation"] == recorded["evaluation"]["after"]
    differences = [stage["difference"]["mean"] for stage in recorded["stages"]]
    assert sum(differences) == pytest.approx(recorded["evaluation"]["difference"]["mean"])
    for title, steps in zip(TITLES, (4, 2, 3), strict=True):
        part = staged.stage(title)
        assert [row["step"] for row in files.read_lines(part.metrics)] == [*range(1, steps + 1)]
        assert len(files.read_lines(part.evaluation("after"))) == 6
        assert part.adapter.is_dir() and not part.checkpoints.exists()
    assert files.read_lines(staged.stage("2-dpo").own_samples)
    assert recorded["stages"][1]["own_samples"]["num_samples"] == 8
    assert recorded["stages"][2]["probe"] and recorded["probe"]
    assert ["probe" in stage for stage in recorded["stages"]] == [False, False, True, False]
    rewards = {key for key in files.read_lines(staged.stage("3-grpo").metrics)[0] if "mean" in key}
    assert {"rewards/correctness/mean", "rewards/integer/mean"} <= rewards
    assert "rewards/xml_tags/mean" not in rewards
    assert len(files.read_lines(staged.metrics)) == 6


def test_a_stage_goes_on_with_the_adapter_before_and_a_new_optimiser(staged):
    """At its first step the KL divergence from the base is not 0, and the rate begins anew."""
    first = files.read_lines(staged.stage("3-grpo").metrics)[0]
    assert first["kl"] > 0.0 and first["learning_rate"] == pytest.approx(1e-3)
    config = json.loads((staged.stage("3-grpo").adapter / "adapter_config.json").read_text())
    assert config["r"] == 8


def test_the_page_has_a_table_of_the_stages_and_their_curves(staged, tmp_path):
    html = report.html([staged])
    for text in ("<h2>Stages</h2>", "<h2>Stage 1-sft</h2>", "<td>4-grpo</td>"):
        assert text in html
    keys = re.findall(r'data-key="([^"]*)"', html)
    assert len(keys) == len(set(keys)) and {"reward", "3-grpo-reward", "1-sft-loss"} <= {*keys}
    names = {path.name for path in report.write_csv([staged], tmp_path / "csv")}
    assert {"3-grpo-reward.csv", "reward.csv"} <= names
    assert "<h2>Stage" not in report.html([staged, staged])  # several runs by their last training


def test_the_time_of_a_run_has_its_stages(staged):
    parts = phases.of(reading.read(staged))
    assert all(parts[f"stage {title}"] > 0 for title in TITLES)
    assert sum(parts.values()) == pytest.approx(staged.read()["time"]["total"], rel=0.05)
    assert parts[phases.OTHER] < 0.4 * sum(parts.values())  # a third on a busy machine: 15 s in all


def test_the_view_names_each_stage(watched):
    text = watched.text
    for line in ("Stage 1-sft: SFT, 4 demonstrations a step", "Training (stage 2-dpo) ..."):
        assert line in text
    assert "step 3/3" in text and "step 2/2" in text
    for title in ("1-sft", "2-dpo"):
        part = text.split(f"Training (stage {title}) ...")[1].split("Evaluation")[0]
        assert re.search(r"\nstep 2/\d  loss \d.*  \d.* s a step", part)
    assert re.search(r"Stage 3-grpo accuracy .* 6 problems x 2 samples", text)
    assert watched.all_stages.titles == [*TITLES, "4-grpo"]
    assert len(watched.all_stages.rows) == 4 + 2 + 3 + 6
    # An observer that knows of no stages, such as a study's, which prunes.
    assert [row["step"] for row in watched.last_stage.rows] == [1, 2, 3, 4, 5, 6]
    assert watched.run.report.exists()


class LastOnly(Observer):
    """Sees what an observer sees that knows of no stages."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def step(self, row):
        self.rows.append(row)


class Seeing(Observer):
    """Sees every stage."""

    sees_stages = True

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.rows: list[dict] = []

    def stage(self, title, plan, *, is_last):
        assert is_last == (title == "4-grpo") and plan.recipe.algorithm == title.partition("-")[2]
        self.titles.append(title)

    def step(self, row):
        self.rows.append(row)


def test_a_run_without_stages_has_no_trace_of_them(finished):
    assert "stages" not in finished.read() and not (finished.folder / "stages").exists()
    assert "earlier" not in json.loads(finished.resolved.read_text())


class Killed(BaseException):
    """What a test raises to leave a run as a kill would."""


def die(*arguments: object, **options: object) -> None:
    raise Killed


def die_in_step(title: str, step: int):
    original = Earlier.on_step

    def on_step(self, row, samples):
        original(self, row, samples)
        if self.title == title and row["step"] == step:
            raise Killed

    return on_step


def die_in_stage(name: str):
    original = Earlier.stage

    def stage(self, part, title):
        if f"{self.title}/{part}" == name:
            raise Killed
        return original(self, part, title)

    return stage


@contextmanager
def dies(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, death: object
) -> Iterator[None]:
    """Within it a run dies in a method."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, death)
        with pytest.raises(Killed):
            yield


def test_a_run_that_died_in_every_stage_ends_as_if_it_had_not(
    staged, recipe_file, tmp_path, monkeypatch
):
    """One run that dies again and again; each stage has files of its own, which are compared."""
    with dies(monkeypatch, Earlier, "on_step", die_in_step("1-sft", 1)):
        run_in_process(recipe_file, tmp_path / "runs")  # before its first checkpoint
    (dead,) = record.all_runs(tmp_path / "runs")
    half = dead.stage("1-sft").folder / ".draft-adapter"
    half.mkdir(exist_ok=True)
    deaths: list[tuple[type, str, object]] = [
        (Earlier, "on_step", die_in_step("1-sft", 3)),
        (TrlBackend, "save_adapter", die),
        (Earlier, "on_step", die_in_step("2-dpo", 2)),
        (Earlier, "on_step", die_in_step("3-grpo", 3)),  # the last one, not saved yet
        (Earlier, "stage", die_in_stage("3-grpo/evaluate")),
        (Training, "on_checkpoint", _die_at_the_last_checkpoint()),
    ]
    for death in deaths:
        assert dead.last_checkpoint() is None
        with dies(monkeypatch, *death):
            resume(dead)
        assert not half.exists()
    saved = dead.last_checkpoint()
    assert saved is not None and saved[1] == 4
    resume(dead)
    assert dead.read()["attempts"] == 2 + len(deaths)
    same(dead, staged)


def _die_at_the_last_checkpoint():
    original = Training.on_checkpoint

    def on_checkpoint(self, folder):
        if self.run is self.part and folder.name == "checkpoint-6":
            raise Killed
        original(self, folder)

    return on_checkpoint


def test_a_killed_process_goes_on_in_its_stage(staged, recipe_file, tmp_path):
    """kill -9 of the command, in the second stage."""
    command = [sys.executable, "-m", "r1recipes", "run", recipe_file, "--run-dir", tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = Run(tmp_path / "run")
    metrics = run.stage("3-grpo").metrics
    until = time.monotonic() + 300
    while len(files.read_lines(metrics)) < 2 and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run.status() == "killed" and not run.stage("3-grpo").adapter.exists()
    resume(run)
    same(run, staged)


class Stopping(Observer):
    """Sends Ctrl-C at a step of the stages."""

    sees_stages = True

    def __init__(self, title: str, step: int):
        self.at, self.title = (title, step), ""

    def stage(self, title, plan, *, is_last):
        self.title = title

    def step(self, row):
        if (self.title, row["step"]) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_a_stage_saves_a_checkpoint(staged, recipe_file, tmp_path):
    with pytest.raises(Stopped, match="step 2 of stage 1-sft is saved"):
        run_in_process(recipe_file, tmp_path / "runs", observers=[Stopping("1-sft", 1)])
    (run,) = record.all_runs(tmp_path / "runs")
    with pytest.raises(RecipeError, match="no whole checkpoint to finish with"):
        resume(run, finish=True)
    with pytest.raises(Stopped, match="step 4 of stage 1-sft is saved"):
        resume(run, Stopping("1-sft", 4))
    resume(run)
    same(run, staged)


PPO = """
[[stage]]
algorithm = "ppo"

[stage.train]
max_steps = 2
learning_rate = 1e-3

[[stage]]
algorithm = "online_dpo"
num_generations = 2

[stage.train]
max_steps = 2
learning_rate = 1e-3
save_steps = 1
"""


def test_a_stage_without_checkpoints_begins_anew_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """The attempt that goes on trains by PPO once, and the next one not at all."""
    path = tmp_path / "ppo.toml"
    path.write_text(SMALL.replace("[train]\n", "[train]\nbeta = 0.1\n") + PPO)
    titles = ["1-ppo", "2-online_dpo"]
    whole = run_in_process(path, tmp_path / "whole")
    with dies(monkeypatch, Earlier, "on_step", die_in_step("1-ppo", 1)):
        run_in_process(path, tmp_path / "dead")
    (dead,) = record.all_runs(tmp_path / "dead")
    with dies(monkeypatch, Earlier, "on_step", die_in_step(titles[1], 2)):  # PPO was done anew
        resume(dead)
    resume(dead)
    same(dead, whole, titles)

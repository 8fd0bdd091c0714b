"""Own samples: each problem is sampled before training, scored, and made into examples once."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from r1recipes import training
from r1recipes.algorithms import dpo
from r1recipes.algorithms.examples import Scored
from r1recipes.errors import RunError
from r1recipes.machine import files, settings
from r1recipes.report import curves
from r1recipes.report.run import html
from r1recipes.runs import Run, reading
from r1recipes.training.view import View
from tests.conftest import SMALL
from tests.helpers import run_in_process
from tests.training.test_run import comparable

FLAGS = ("algorithm=dpo", "eval.batch_size=16")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One complete run that learns pairs of its own samples."""
    path = tmp_path_factory.mktemp("sampled") / "small.toml"
    path.write_text(SMALL)
    return run_in_process(path, path.parent / "runs", *FLAGS)


def test_the_samples_are_kept_with_what_they_are_paid(sampled):
    lines = files.read_lines(sampled.own_samples)
    assert len(lines) % 16 == 0 and len({line["row"] for line in lines}) == len(lines)
    samples = [sample for line in lines for sample in line["samples"]]
    assert all(len(line["samples"]) == 4 for line in lines)
    assert len({sample["total"] for sample in samples}) > 1  # of [rewards], not of one alone
    assert all(sample["right"] == (sample["total"] >= 2) for sample in samples)
    recorded = sampled.read()["own_samples"]
    pairs = [
        pair
        for line in lines
        for pair in dpo.choose(
            [Scored(s["text"], s["total"], s["right"]) for s in line["samples"] if not s["cut"]]
        )
    ]
    assert recorded["num_examples"] == len(pairs) >= 6 * 4  # enough for all steps, and no more
    before = sum(line["row"] is not None for line in lines[:-16])
    assert before == len(lines) - 16 and recorded["num_problems"] == len(lines)
    assert recorded["num_cut"] == sum(sample["cut"] for sample in samples)
    assert "own_samples" in sampled.read()["duration_s"] and "probe" not in sampled.read()


def test_a_kill_while_sampling_loses_one_block_and_changes_nothing(sampled, tmp_path):
    killed = Run(shutil.copytree(sampled.folder, tmp_path / "killed"))
    for folder in (killed.adapter, killed.checkpoints):
        shutil.rmtree(folder)
    for path in (killed.metrics, killed.evaluation("after")):
        path.unlink()
    lines = killed.own_samples.read_text().splitlines(keepends=True)
    killed.own_samples.write_text("".join(lines[:19]) + lines[19][:30])  # torn, in a second block
    record = {key: value for key, value in killed.read().items() if key != "own_samples"}
    record |= {"status": "running", "evaluation": {"before": record["evaluation"]["before"]}}
    files.write_json(killed.record, record)
    view = View(Console(file=io.StringIO()), live=False)
    resumed = training.resume(killed, [view], settings.Settings(runs_dir=tmp_path, offline=True))
    assert resumed.own_samples.read_bytes() == sampled.own_samples.read_bytes()
    assert comparable(resumed) == comparable(sampled)
    assert resumed.read()["evaluation"] == sampled.read()["evaluation"]


def test_later_runs_of_a_process_take_the_samples(sampled, tmp_path):
    """As the trials of a study do: nothing is sampled again for another learning rate."""
    from r1recipes import planning, recipe
    from r1recipes.training.warm import Warm

    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    warm = Warm()
    runs = []
    for rate in ("1e-3", "2e-3"):
        loaded = recipe.load(path, [*FLAGS, f"train.learning_rate={rate}"])
        plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)
        machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
        runs.append(training.start(loaded, plan, [], machine, warm=warm))
    warm.close()
    first, second = runs
    assert second.own_samples.read_bytes() == first.own_samples.read_bytes()
    assert first.own_samples.read_bytes() == sampled.own_samples.read_bytes()
    assert "own_samples" not in second.read()["duration_s"]
    assert comparable(first) == comparable(sampled) != comparable(second)


def test_a_model_that_is_never_right_has_nothing_to_teach(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    with pytest.raises(RunError, match="0 demonstrations from 64 problems do not fill") as raised:
        run_in_process(path, tmp_path / "runs", "algorithm=sft")
    assert raised.value.kind == "reward"
    assert "questions with a right sample" in str(raised.value)
    (run,) = (tmp_path / "runs" / "small").iterdir()
    assert Run(run).read()["status"] == "failed" and not Run(run).metrics.exists()


def test_the_page_of_a_run_shows_what_it_learned_from(sampled):
    text = html([sampled])
    assert "4 pairs" in text and "Sampled for examples" in text and "Completions a step" not in text
    keys = {chart.key for chart in curves.every([reading.read(sampled)])}
    assert {"pairs-told-apart", "margin", "loss", "stages"} <= keys
    assert not {"reward", "spread", "groups-without-spread", "cut"} & keys


def test_a_held_out_accuracy_while_training_is_judged(tmp_path: Path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    flags = ("train.max_steps=40", "eval.every=38", "eval.batch_size=16", "train.save_steps=40")
    out = io.StringIO()
    view = View(Console(file=out, width=200), live=False)
    run = run_in_process(path, tmp_path / "runs", "algorithm=dpo", *flags, observers=[view])
    rows = files.read_lines(run.metrics)
    assert json.dumps(rows[37]).count("eval/accuracy") and "eval/accuracy" not in rows[36]
    assert "pairs told apart" in out.getvalue() and "Fits its examples: loss" in out.getvalue()
    assert "reward" not in out.getvalue().split("Training ...")[1].split("Evaluation after")[0]

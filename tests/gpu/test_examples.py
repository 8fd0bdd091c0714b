"""SFT and DPO through Unsloth and vLLM, on one NVIDIA card: from own samples, from a file, resumed.

The recipe is `small` with the keys of the algorithm in [train]. Limits: that a resume is equal to
the bit is shown on a CPU; an engine is started five times, which takes minutes.
"""

import json
import math
import random
import re
import shutil
from pathlib import Path

import pytest

from r1recipes import recipe
from r1recipes.data import generators
from r1recipes.machine import files
from r1recipes.runs import Run, health
from tests.helpers import command

pytestmark = pytest.mark.gpu

TRAIN = {
    "sft": "learning_rate = 5e-4\n",
    "dpo": "learning_rate = 1e-4\nbeta = 0.5\n",
}
STEPS = 40
EXAMPLES = '\n[examples]\nname = "examples.jsonl"\n'


def written(folder: Path, algorithm: str, *, from_file: bool = False) -> Path:
    """The recipe `small` with this algorithm."""
    text = recipe.find("small").read_text().replace('algorithm = "grpo"', "")
    train = f"[train]\nmax_steps = {STEPS}\nsave_steps = 20\nadam_beta2 = 0.999\n"
    text = re.sub(r"(?s)\[train\]\n.*?\n(?=\[eval\])", f"{train}{TRAIN[algorithm]}\n", text)
    text = text.replace("format = 1\n", f'format = 1\nalgorithm = "{algorithm}"\n', 1)
    if from_file:
        text += EXAMPLES
        rng, kind = random.Random(1), generators.KINDS["builtin:arithmetic"]
        rows = [
            {
                "question": row["question"],
                "completion": kind.demonstrate(row, rng),
                "chosen": kind.demonstrate(row, rng),
                "rejected": kind.demonstrate(row, rng, 1.0),
            }
            for row in kind.make("train", 3000, digits=3, seed=5)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "examples.jsonl").write_text(lines)
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def complete(run: Run, *arguments: object) -> str:
    """Run a command that ends a run; returns what it printed."""
    done = command(*arguments, cwd=run.folder.parent)
    log = run.log.read_text()[-6000:] if run.log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    return done.stdout


@pytest.mark.parametrize(
    ("algorithm", "from_file", "standby"),
    [
        ("sft", False, "false"),
        ("dpo", False, "false"),
        ("dpo", False, "true"),
        ("sft", True, "false"),
        ("dpo", True, "false"),
    ],
)
def test_it_learns_and_the_engine_answers_with_what_it_learned(
    tmp_path, algorithm, from_file, standby
):
    path, run = written(tmp_path, algorithm, from_file=from_file), Run(tmp_path / "run")
    flags = ("--set", f"preset.standby={standby}", "--set", "data.size=4000")
    complete(run, "run", path, "--run-dir", run.folder, *flags)
    record, rows = run.read(), files.read_lines(run.metrics)
    before, after = (record["evaluation"][when]["accuracy"] for when in ("before", "after"))
    assert run.plan().backend == "unsloth" and len(rows) == STEPS
    assert all(math.isfinite(row["grad_norm"]) and row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert after > before + 0.1
    assert run.own_samples.exists() == (not from_file)
    if algorithm == "dpo":
        assert abs(rows[0]["loss"] - math.log(2)) < 0.02  # the reference is the model itself
        assert rows[-1]["rewards/accuracies"] > 0.6
    measured, predicted = (record["vram"][f"{key}_bytes"] for key in ("measured", "predicted"))
    print(f"{algorithm} peak {measured / 2**30:.2f} GiB, predicted {predicted / 2**30:.2f}")


def test_it_goes_on_from_its_checkpoint_and_evaluates_while_it_trains(tmp_path):
    path, run = written(tmp_path, "dpo"), Run(tmp_path / "run")
    flags = [
        word
        for key, value in {
            "data.size": 4000,
            "train.max_steps": 600,  # so that an evaluation may take 3 % of the time
            "eval.every": 300,
            "preset.standby": "true",
        }.items()
        for word in ("--set", f"{key}={value}")
    ]
    complete(run, "run", path, "--run-dir", run.folder, *flags)
    rows = files.read_lines(run.metrics)
    assert health.ACCURACY in rows[299]
    shutil.rmtree(run.adapter)
    run.evaluation("after").unlink()
    for checkpoint in run.checkpoints.glob("checkpoint-600"):
        shutil.rmtree(checkpoint)
    evaluation = {"before": run.read()["evaluation"]["before"]}
    sampled = run.own_samples.read_bytes()
    run.update(status="stopped", evaluation=evaluation, finished=None)
    complete(run, "run", "--resume", run.folder)
    assert run.own_samples.read_bytes() == sampled and run.read()["status"] == "complete"
    again = files.read_lines(run.metrics)
    assert [row["step"] for row in again] == [row["step"] for row in rows]
    assert abs(again[-1]["loss"] - rows[-1]["loss"]) < 0.1

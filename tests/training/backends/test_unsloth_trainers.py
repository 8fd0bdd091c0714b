"""r1recipes trains with TRL's trainers as the installed Unsloth rewrites them, on a CPU.

Skipped where Unsloth is not installed. Limits: see `unsloth_trainers`.
"""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1recipes.machine import files
from r1recipes.runs import Run
from tests.conftest import SMALL
from tests.training.backends import unsloth_trainers

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed"
)
ROOT = Path(__file__).parents[3]
PAIRS = (
    ("seed = 1", 'seed = 1\nalgorithm = "online_dpo"'),
    ("num_generations = 4", "num_generations = 2"),
    ("prompts_per_step = 4", "prompts_per_step = 8"),
)


def trained(folder: Path, recipe: str, steps: int) -> tuple[list[str], list[dict[str, Any]]]:
    """What the log says of the trainer, and the steps of a run of `recipe`."""
    path, run = folder / "small.toml", Run(folder / "run")
    path.write_text(recipe)
    flags = ["--set", f"train.max_steps={steps}", "--run-dir", str(run.folder), "--force"]
    done = child(folder, "run", str(path), *flags)
    log = run.log.read_text() if run.log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr[-4000:] + log[-4000:]
    marks = [line for line in log.splitlines() if line.startswith(unsloth_trainers.MARK)]
    return marks, files.read_lines(run.metrics)


def child(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process in which Unsloth is imported; what it compiles lies in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", unsloth_trainers.__name__, *arguments],
        cwd=folder,
        env=os.environ
        | unsloth_trainers.ENVIRONMENT
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        | {"UNSLOTH_COMPILE_LOCATION": str(folder / "compiled")},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_first_step_of_grpo_is_that_of_trl(tmp_path: Path, finished: Run) -> None:
    """Both sample the same completions; later steps begin with other weights, by rounding."""
    marks, rows = trained(tmp_path, SMALL, 2)
    assert marks == [f"{unsloth_trainers.MARK} UnslothGRPOTrainer False"]
    plain = files.read_lines(finished.metrics)
    assert [row["step"] for row in rows] == [1, 2] and rows[0]["reward"] == plain[0]["reward"]
    assert rows[0]["loss"] == pytest.approx(plain[0]["loss"], abs=1e-3)
    assert rows[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=0.05)


def test_online_dpo_trains_on_a_model_with_an_engine(tmp_path: Path) -> None:
    """Its trainer cannot be made while Unsloth sees the engine (`patches.without_engine`)."""
    recipe = SMALL
    for before, after in PAIRS:
        assert before in recipe
        recipe = recipe.replace(before, after, 1)
    marks, rows = trained(tmp_path, recipe, 1)
    assert marks == [f"{unsloth_trainers.MARK} UnslothOnlineDPOTrainer False"]
    assert [row["step"] for row in rows] == [1]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=0.01)  # the adapter is still 0
    assert rows[0]["grad_norm"] > 0


def test_its_function_scores_the_tokens_of_completions_alone(tmp_path: Path) -> None:
    """As its stand-in does in `test_scoring`."""
    done = child(tmp_path, "score")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]

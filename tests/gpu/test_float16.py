"""The path of a card without bfloat16, on a newer one: pynvml says 7.5 (tests/old_card).

It shows float16 in the engine and in training, float32 adapters, and a scaled loss. Limits: the
kernels of such a card are not tested. An engine is started once, which takes some minutes.
"""

import math
import os

import pytest

from r1recipes import recipe, runs
from r1recipes.machine import files
from tests.helpers import command
from tests.local import ROOT, without_network, write_recipe

pytestmark = pytest.mark.gpu

STEPS, COLD_STEPS, COLD_BATCH = 8, 200, 64
CHANGES = {
    "train.max_steps": STEPS,
    "train.save_steps": STEPS,
    "cold_start.steps": COLD_STEPS,
    "data.size": 2000,
    "data.eval_size": 64,
    "eval.samples": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A complete run in float16, from a local model folder whose weights are float32."""
    folder = tmp_path_factory.mktemp("float16")
    path = write_recipe(folder, recipe.find("small").read_text(), COLD_STEPS * COLD_BATCH)
    flags = [word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}")]
    run = runs.Run(folder / "mine")
    environment = without_network(folder / "network.log")
    old_card = str(ROOT / "tests" / "old_card")
    environment["PYTHONPATH"] = os.pathsep.join([old_card, environment["PYTHONPATH"]])
    done = command(
        "run", path, "--run-dir", run.folder, "--force", *flags, cwd=folder, **environment
    )
    log = run.log.read_text()[-4000:] if run.log.exists() else "no log"
    assert done.returncode == 0, done.stdout + done.stderr + log
    return run


def test_the_plan_is_float16(trained):
    plan = trained.plan()
    assert (plan.backend, plan.device, plan.dtype) == ("unsloth", "cuda", "float16")


def test_the_loss_is_scaled_and_training_goes_on(trained):
    """An overflow skips a step and halves the scale, so the first steps may have no gradient."""
    rows = files.read_lines(trained.metrics)
    assert [row["step"] for row in rows] == [*range(1, STEPS + 1)]
    norms = [row["grad_norm"] for row in rows]
    assert all(norm is not None and math.isfinite(norm) and norm > 0 for norm in norms[-3:]), norms
    assert (trained.last_checkpoint()[0] / "scaler.pt").exists()


def test_the_adapter_is_float32_and_has_moved(trained):
    import torch
    from safetensors.torch import load_file

    folder, _ = trained.last_checkpoint()
    weights = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    up = [tensor for name, tensor in weights.items() if "lora_B" in name]
    assert up and all(torch.isfinite(t).all() and torch.count_nonzero(t) for t in up)


def test_engine_and_trainer_agree_on_the_answers(trained):
    """Both load a model that the cold start has taught the format, so its answers are rewarded."""
    evaluation = trained.read()["evaluation"]
    assert evaluation["before"]["accuracy"] > 0 and evaluation["after"]["accuracy"] > 0

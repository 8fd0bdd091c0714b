"""Held-out evaluations while training (`eval.every`) through Unsloth and vLLM, on one NVIDIA card.

Limits: that training is unchanged to the bit is shown on a CPU, where sums have a fixed order.
"""

import math

import pytest

from r1recipes.machine import files
from r1recipes.runs import Run, health
from tests.helpers import command

pytestmark = pytest.mark.gpu

STEPS, EVERY = 42, 20
CHANGES = {
    "train.max_steps": STEPS,
    "eval.every": EVERY,
    "data.eval_size": 64,
    "train.lr_scheduler_type": "linear",  # at the end nothing moves any more
}


@pytest.mark.parametrize("standby", ["false", "true"])
def test_it_answers_with_the_adapter_of_its_step_and_training_goes_on(standby, tmp_path):
    """In standby the engine sleeps while the model trains, and has to wake up in between."""
    changes = CHANGES | {"preset.standby": standby}
    flags = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    run = Run(tmp_path / "mine")
    done = command("run", "small", "--run-dir", run.folder, *flags, cwd=tmp_path)
    log = run.log.read_text()[-4000:] if run.log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    rows, recorded = files.read_lines(run.metrics), run.read()
    held_out = {r["step"]: r[health.ACCURACY] for r in rows if health.ACCURACY in r}
    before, after = (recorded["evaluation"][when]["accuracy"] for when in ("before", "after"))
    assert list(held_out) == [20, 40] and before < 0.6 < after
    assert abs(held_out[40] - after) < 0.1  # of the base, or of a fresh adapter, it is `before`
    assert all(math.isfinite(row["grad_norm"]) for row in rows)
    for step in held_out:  # the rollouts that follow are those of the trained adapter
        assert rows[step]["reward"] > 0.8 * rows[step - 1]["reward"]
    assert recorded["while_training"]["share_of_training"] <= 0.03
    assert "warning: the evaluations" not in done.stdout

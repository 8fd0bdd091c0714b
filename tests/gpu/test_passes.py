"""The levers of a training pass through Unsloth: the same gradient, in less time.

Limits: an engine is started once; the bound on the gradient is the rounding of sums in 16 bits,
measured in the same process by passes of half the rows.
"""

import json
import os
import subprocess
import sys

import pytest

from r1recipes.training.backends import passes
from tests.local import ROOT, without_network

pytestmark = pytest.mark.gpu

LIMIT_S = 900


LOSSES = ("dapo", "grpo", "dr_grpo", "cispo", "bnpo", "dapo:0.04", "grpo:0.04")


def measure(tmp_path_factory, *arguments: str):
    """What tests/gpu/passes.py measures with these arguments."""
    folder = tmp_path_factory.mktemp("passes")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.gpu.passes", folder / "result.json"),
            *("--preset", "8GB", *arguments),
        ],
        cwd=ROOT,
        env=os.environ | without_network(folder / "network.log"),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert (folder / "result.json").exists(), done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((folder / "result.json").read_text())["results"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Each lever with one loss; the last one has other passes and no lever."""
    return measure(tmp_path_factory)


def test_no_lever_changes_the_gradient_by_more_than_rounding(measured):
    *settings, halved = measured
    assert settings[0]["levers"] == "" and settings[0]["gradient_error"] == 0
    for each in settings[1:]:
        assert each["gradient_error"] <= 2 * halved["gradient_error"] + 0.01, each["levers"]
        assert each["grad_norm"][0] == pytest.approx(settings[0]["grad_norm"][0], rel=0.02)


def test_less_is_computed_and_no_more_memory_is_held(measured):
    plain, *_, everything, _ = measured
    assert everything["levers"] == "drop,sort,resize,trim,score"
    assert max(everything["tokens"]) < 0.6 * min(plain["tokens"])
    assert everything["allocated_gib"] <= 1.05 * plain["allocated_gib"]
    assert min(everything["backward_s"][1:]) < 0.8 * min(plain["backward_s"][1:])


def test_all_levers_leave_the_gradient_of_every_loss(tmp_path_factory):
    levers = ",".join(passes.LEVERS)
    rows = measure(tmp_path_factory, "--losses", *LOSSES, "--steps", "2", "--levers", "", levers)
    for loss, (plain, cut, halved) in zip(LOSSES, zip(*[iter(rows)] * 3, strict=True), strict=True):
        assert plain["loss_type"] == loss and cut["levers"] == levers
        assert cut["gradient_error"] <= 2 * halved["gradient_error"] + 0.01, loss
        assert cut["grad_norm"][0] == pytest.approx(plain["grad_norm"][0], rel=0.02), loss

"""Verdicts on runs that learn from examples: held-out accuracy decides, the loss does not."""

import math
from typing import Any

import pytest

from r1recipes.runs import health
from r1recipes.runs.health import HeldOut, Terms, fitted

TERMS = Terms({}, "correctness", 256, 32, 8, 100)
BEFORE = HeldOut(0, 0.4, 400)


def rows(*losses: float, **more: Any) -> list[dict[str, Any]]:
    return [{"step": n, "loss": loss, "grad_norm": 1.0} | more for n, loss in enumerate(losses, 1)]


FALLING = rows(*(0.7 - 0.01 * n for n in range(30)))


def evaluated(accuracy: float, step: int = 30) -> list[dict[str, Any]]:
    held_out = {health.ACCURACY: accuracy, health.NUM_PROBLEMS: 400, health.NUM_SAMPLES: 400}
    return [row | (held_out if row["step"] == step else {}) for row in FALLING]


@pytest.mark.parametrize(
    ("given", "held_out", "kind", "words"),
    [
        ([], [], "waiting", "Waiting"),
        (rows(*[0.7] * 9), [], "too early", "Too early"),
        (rows(0.7, 0.6, grad_norm=math.nan), [], "not finite", "since step 1"),
        (FALLING, [], "fitting", "loss 0.655 -> 0.455; an evaluation tells"),
        (FALLING[::-1], [], "not fitting", "raise `train.learning_rate`"),
        (evaluated(0.41), [BEFORE], "fitting", "40% -> 41%, which is not certain yet"),
        (evaluated(0.6), [BEFORE], "learning", "held-out accuracy 40% -> 60%"),
        (evaluated(0.2), [BEFORE], "overfitting", "40% -> 20%"),
    ],
)
def test_each_verdict(given, held_out, kind, words):
    verdict = health.verdict(given, TERMS, held_out)
    assert verdict.kind == kind and words in verdict.sentence


def test_a_fall_after_a_rise_is_told_from_its_step():
    held_out = [BEFORE, HeldOut(15, 0.8, 400)]
    verdict = health.verdict(evaluated(0.6), TERMS, held_out)
    assert verdict.kind == "overfitting" and verdict.since_step == 15
    assert verdict.change == "stop here"


def test_rows_with_rewards_are_those_of_another_kind():
    assert not fitted.is_fitted([{"step": 1, "reward": 1.0}]) and not fitted.is_fitted([])
    assert fitted.is_fitted([{"step": 1, "loss": 1.0}])

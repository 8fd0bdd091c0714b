"""Whether a run is learning and, if not, why and what to change, from the rows of metrics.jsonl.

The decisive reward is judged first, then everything else. Pure and fast: asked after every step.
"""

from r1recipes.runs.health.rules import (
    not_finite,
    num_not_finite_allowed,
    refuse_not_finite,
    sentence,
    verdict,
)
from r1recipes.runs.health.signs import WINDOW
from r1recipes.runs.health.verdicts import (
    ACCURACY,
    GOOD,
    HIGH,
    LOW,
    NUM_PROBLEMS,
    NUM_SAMPLES,
    HeldOut,
    Terms,
    Verdict,
)

__all__ = [
    "ACCURACY",
    "GOOD",
    "HIGH",
    "LOW",
    "NUM_PROBLEMS",
    "NUM_SAMPLES",
    "WINDOW",
    "HeldOut",
    "Terms",
    "Verdict",
    "not_finite",
    "num_not_finite_allowed",
    "refuse_not_finite",
    "sentence",
    "verdict",
]

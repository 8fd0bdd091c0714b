"""Whether a run is learning and, if not, why and what to change, from the rows of metrics.jsonl.

The decisive reward is judged first, then everything else. Pure and fast: asked after every step.
"""

from r1recipes.runs.health.rules import not_finite, sentence, verdict
from r1recipes.runs.health.signs import WINDOW
from r1recipes.runs.health.verdicts import GOOD, HeldOut, Terms, Verdict

__all__ = ["GOOD", "WINDOW", "HeldOut", "Terms", "Verdict", "not_finite", "sentence", "verdict"]

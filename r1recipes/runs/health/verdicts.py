"""A verdict on a run, and what it needs to know beside the rows of metrics.jsonl.

`health` gives verdicts; nothing is judged here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from r1recipes.algorithms import ALGORITHMS
from r1recipes.runs.statistics import newcombe, wilson

Row = Mapping[str, Any]
"""One line of metrics.jsonl."""

ACCURACY, LOW, HIGH = "eval/accuracy", "eval/accuracy_low", "eval/accuracy_high"
"""Held-out accuracy after a step and its 95 % interval, in the row of the step (`eval.every`)."""
NUM_PROBLEMS, NUM_SAMPLES = "eval/num_problems", "eval/num_samples"
"""Problems of that evaluation, and completions in all."""
HELD_OUT_DESIGN = 2.0
"""Samples of a held-out problem that count as one where only their number is known; assumed, for
4 samples to a problem with the correlation of `trends.CORRELATION`. A problem is never less than
one trial."""


Kind = Literal[
    "waiting",
    "too early",
    "not finite",
    "collapsing",
    "hacked",
    "not transferring",
    "learning",
    "learned",
    "nothing left",
    "nearly all paid",
    "cut",
    "format first",
    "format only",
    "side reward",
    "shorter",
    "longer",
    "all wrong",
    "all same",
    "drifting",
    "no entropy",
    "spikes",
    "not moving",
    "noisy",
    "fitting",
    "not fitting",
    "overfitting",
]
GOOD: frozenset[Kind] = frozenset({"learning", "learned", "nothing left", "nearly all paid"})
"""Kinds in which nothing has to be mended."""
UNDECIDED: frozenset[Kind] = frozenset({"waiting", "too early", "noisy", "format first", "fitting"})
"""Kinds that say neither that the run learns nor that it does not."""


@dataclass(frozen=True)
class Verdict:
    """What the rows say. `text` and `change` are parts of one sentence without a full stop."""

    kind: Kind
    text: str
    change: str = ""
    """The one change that fits; empty where there is none to make."""
    since_step: int | None = None
    """The step at which it began, where that is known."""

    @property
    def sentence(self) -> str:
        return f"{self.text}; {self.change}" if self.change else self.text


@dataclass(frozen=True)
class Terms:
    """The part of a plan that a verdict needs and the rows do not hold."""

    weights: Mapping[str, float]
    """Weight of each reward."""
    decisive: str
    """The reward that decides whether a completion is right."""
    max_completion_length: int
    completions_per_step: int
    num_generations: int
    """Completions to one prompt."""
    max_steps: int
    has_fixed_group: bool = False
    """Whether the algorithm takes no other number of completions to one prompt."""

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> "Terms":
        """The terms of a plan as a table, such as resolved.json. Raises: KeyError if it is none."""
        recipe, preset = resolved["recipe"], resolved["preset"]
        algorithm = ALGORITHMS.get(recipe.get("algorithm", ""))
        return cls(
            weights=recipe["rewards"],
            decisive=recipe["eval"]["reward"],
            max_completion_length=preset["max_completion_length"],
            completions_per_step=preset["prompts_per_step"] * preset["num_generations"],
            num_generations=preset["num_generations"],
            max_steps=recipe["train"]["max_steps"],
            has_fixed_group=algorithm is not None and algorithm.group_size is not None,
        )

    @property
    def num_prompts(self) -> int:
        """Prompts of a step."""
        return self.completions_per_step // self.num_generations

    @property
    def max_reward(self) -> float:
        return sum(self.weights.values())


@dataclass(frozen=True)
class HeldOut:
    """Accuracy on the held-out problems after `step` optimiser steps; 0 is before training."""

    step: int
    accuracy: float
    trials: float
    """Independent completions that would give as narrow an interval."""
    is_part: bool = False
    """Whether it was one of `eval.every`, on a part of the held-out problems."""

    @classmethod
    def of_summary(cls, step: int, summary: Mapping[str, Any]) -> "HeldOut":
        """From `runs.statistics.summary`."""
        problems = summary["num_problems"]
        samples = problems * summary["num_samples"]
        return cls(step, summary["accuracy"], max(problems, samples / HELD_OUT_DESIGN))

    @classmethod
    def of_row(cls, row: Row) -> "HeldOut | None":
        """From a row of metrics.jsonl; None where it has no evaluation."""
        accuracy, samples, problems = (row.get(k) for k in (ACCURACY, NUM_SAMPLES, NUM_PROBLEMS))
        if not (is_number(accuracy) and is_number(samples)):
            return None
        trials = max(problems if is_number(problems) else 0, samples / HELD_OUT_DESIGN)
        return cls(int(row["step"]), accuracy, trials, is_part=True)


def held_out_change(old: HeldOut, new: HeldOut, z: float) -> tuple[float, float]:
    """Interval of the change of held-out accuracy, z standard errors wide (Newcombe)."""
    first, second = wilson(old.accuracy, old.trials, z), wilson(new.accuracy, new.trials, z)
    return newcombe(old.accuracy, first, new.accuracy, second)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a row is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def percent(share: float) -> str:
    """`63%`, and `3.1%` where that makes a difference."""
    return f"{share:.1%}" if 0 < share < 0.095 else f"{share:.0%}"

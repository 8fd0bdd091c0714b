"""How many held-out problems an evaluation while training may have (`eval.every`).

Limits: each completion is counted at its full length.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from r1recipes.algorithms import ALGORITHMS
from r1recipes.errors import PlanError
from r1recipes.recipe.schema import Recipe

MAX_SHARE = 0.03
"""Share of the training time that the evaluations of `eval.every` may take; required."""
MIN_PROBLEMS = 16
"""Problems below which such an evaluation says too little: at 16, the standard error of an accuracy
is 12.5 points at most; assumed."""
CALL_COMPLETIONS = {"cpu": 32, "cuda": 349}
"""Completions that take as long as what a call of generation costs whatever their number. Measured:
0.14 s beside 4.4 ms a completion for the tiny model on one core; 57 to 349 for Phi-4, Llama 3.1 8B
and Qwen2.5 1.5B (benchmarks/speed/choices.md), of which the most is taken."""
GENERATION_SHARE = {"cpu": 0.5, "cuda": 0.86}
"""Share of a step that generates; measured, the most of the tiny recipe and of 23 presets
(recipes/proofs)."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation costs that answers each of some held-out problems once, while training."""

    device: Literal["cpu", "cuda"]
    completions_per_step: int
    batch: int
    """Completions that are generated at once (`eval.batch_size`)."""
    available: int
    """Held-out problems."""
    samples: bool = True
    """Whether a step generates its completions. One that does not takes the rest of the time."""

    def steps(self, problems: int) -> float:
        """Its time, in optimiser steps; at most, with completions as long as those of a step."""
        calls, rest = divmod(problems, self.batch)
        generations = calls * self._call(self.batch) + (self._call(rest) if rest else 0.0)
        share = GENERATION_SHARE[self.device]
        return generations * (share if self.samples else share / (1 - share))

    def _call(self, completions: int) -> float:
        """Time of a call that generates so many, by that of a step's. More than a step has may not
        be worked on at once."""
        of_step, fixed = self.completions_per_step, CALL_COMPLETIONS[self.device]
        return max((fixed + completions) / (fixed + of_step), completions / of_step)

    @property
    def fewest(self) -> int:
        """Problems below which it is of no use."""
        return min(MIN_PROBLEMS, self.available)

    def problems(self, every: int) -> int | None:
        """The most problems that may be answered every so many steps; None if these are too few."""
        sizes = range(self.fewest, self.available + 1)
        number = bisect_right(sizes, MAX_SHARE, key=lambda size: self.share(size, every))
        return sizes[number - 1] if number else None

    def share(self, problems: int, every: int) -> float:
        """Its time by that of the steps from one to the next, at most."""
        return self.steps(problems) / every

    @property
    def least_every(self) -> int:
        """The smallest `eval.every` that `problems` has an answer for."""
        return math.ceil(self.steps(self.fewest) / MAX_SHARE)


def eval_problems(recipe: Recipe, device: Literal["cpu", "cuda"], completions: int) -> int | None:
    """Held-out problems to answer every `eval.every` steps of so many completions; None where no
    step of the recipe is followed by such an evaluation. Raises: PlanError if it costs too much."""
    every = recipe.eval.every
    if every is None or every >= recipe.train.max_steps:
        return None
    samples = ALGORITHMS[recipe.algorithm].samples
    batch, available = recipe.eval.batch_size, recipe.data.eval_size
    cost = Evaluation(device, completions, batch, available, samples)
    problems = cost.problems(every)
    if problems is None:
        raise PlanError(
            f"`eval.every = {every}` costs too much: with steps of {completions} completions, "
            f"answers to {cost.fewest} held-out problems, the fewest that say something, take up "
            f"to {cost.share(cost.fewest, every):.1%} of the time, and {MAX_SHARE:.0%} is "
            "the limit",
            hint=f"set `eval.every = {cost.least_every}` or more",
        )
    return problems

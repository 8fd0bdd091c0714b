"""Lengths for the prompts and completions of a rehearsal: those of a run, and drawn from them.

Limits: of prompts a run folder has the mean of each step alone, from which their deviation is
estimated.
"""

import math
import random
import statistics
from collections.abc import Sequence

from r1recipes.errors import RecipeError, RunError
from r1recipes.planning.plan import Plan
from r1recipes.planning.speed.lengths import Lengths, of_tokens
from r1recipes.runs import reading
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run, schema

TOLERANCE = 0.05
"""Share by which the mean length of the completions may differ from that of the drawn lengths:
random weights hardly ever end a completion by themselves; assumed."""


class Drawn:
    """Draws lengths, and compares them with those that the completions had."""

    def __init__(self, lengths: Lengths, plan: Plan):
        self._lengths, self._limit = lengths, plan.preset.max_completion_length
        self._draw = random.Random(plan.recipe.seed)
        self._tokens: list[int] = []

    def completions(self, count: int) -> list[int]:
        """See `Hooks.lengths`."""
        drawn = self._lengths.completions(self._draw, count, self._limit)
        self._tokens += drawn
        return drawn

    def prompts(self, count: int, least: int, limit: int) -> list[int]:
        """`count` lengths of prompts from `least` to `limit` tokens."""
        return self._lengths.prompts(self._draw, count, least, limit)

    def check(self, steps: Sequence[Row]) -> float:
        """Mean length of the completions of these steps. Raises: RunError where it is not that of
        the lengths that were drawn for them."""
        mean = statistics.fmean(row["completions/mean_length"] for row in steps)
        drawn = statistics.fmean(self._tokens) if self._tokens else 0.0
        if abs(mean - drawn) > TOLERANCE * drawn:
            raise RunError(
                f"the completions have {mean:.0f} tokens on average, and the lengths that were "
                f"drawn for them {drawn:.0f}",
                hint="compare the versions with `r1recipes doctor --update`",
            )
        return mean


def of_run(run: Run) -> Lengths:
    """The lengths of a run's answers to its held-out problems, before and after training, and of
    the prompts of its steps. Raises: RecipeError where it has none."""
    with reading.understood(run):
        tokens = [
            sample["num_tokens"]
            for when in ("before", "after")
            for item in run.answers(when)
            for sample in item["samples"]
        ]
        rows = run.rows(run.metrics, schema.Step)
        if not tokens or not rows:
            missing = "steps" if tokens else "answers to held-out problems"
            raise RecipeError(f"{run.folder} has no {missing} yet", hint=run.to_go_on())
        plan = run.plan()
        prompts = of_prompts(rows, plan.preset.prompts_per_step, plan.completions_per_step)
        return of_tokens(run.folder.name, tokens, prompts)


def of_prompts(rows: Sequence[Row], prompts: int, completions: int) -> tuple[float, float]:
    """Mean and standard deviation of the tokens of a prompt, from the metrics of steps with so many
    prompts and completions. The deviation is that of the means of
    the steps, times the root of the prompts in a step."""
    totals = [0.0, *(row["num_tokens"] for row in rows)]
    means = [
        (after - before) / completions - row["completions/mean_length"]
        for before, after, row in zip(totals, totals[1:], rows, strict=False)
        if after > before  # a resumed run may count from 0 again
    ]
    deviation = statistics.stdev(means) * math.sqrt(prompts) if len(means) > 1 else 0.0
    return statistics.fmean(means), deviation

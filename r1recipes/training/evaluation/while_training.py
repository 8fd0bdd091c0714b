"""The evaluations while training (`eval.every`).

The first `Plan.eval_problems` held-out problems, which are a random choice, are answered once each
at the training temperature. For a number of completions that is fixed by their cost, as many
problems as possible leave the least noise: the variance of the mean is (between problems + within
one / samples) / problems. The same problems and the same seed each time
take the difference between problems out of the curve. A greedy answer would be less noisy, but it
is another measure than the accuracy that is trained, and that studies search for.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from r1recipes.planning.plan import Plan
from r1recipes.planning.speed import MAX_SHARE
from r1recipes.runs import health, statistics
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run, schema
from r1recipes.training.backends.base import Backend, Hooks
from r1recipes.training.evaluation.scoring import Score, right_ones


class WhileTraining:
    """The evaluations of `eval.every`."""

    def __init__(self, plan: Plan, rows: Iterable[Row], backend: Backend, score: Score):
        """`rows`: all held-out problems, in their order."""
        self._every, self._max_steps = plan.recipe.eval.every, plan.recipe.train.max_steps
        self._rows = list(islice(rows, plan.eval_problems or 0))
        self._backend, self._score = backend, score

    def after_step(self, step: int) -> Row:
        """What an evaluation adds to the metrics of its step: accuracy with its 95 % interval, and
        the seconds that it took; empty where none is due.

        The last step has none, since the evaluation after training follows it.
        """
        is_due = self._every and step % self._every == 0 and step < self._max_steps
        if not (is_due and self._rows):
            return {}
        began = time.perf_counter()
        prompts = [row["prompt"] for row in self._rows]
        groups = self._backend.generate(prompts, 1, False, True, Hooks())
        right = right_ones(self._rows, groups, self._score)
        accuracy, (low, high) = statistics.pass_at_1([[one] for one in right])
        return {
            health.ACCURACY: accuracy,
            health.LOW: low,
            health.HIGH: high,
            health.NUM_PROBLEMS: len(groups),
            health.NUM_SAMPLES: len(right),
            TIME: time.perf_counter() - began,
        }

    def record_cost(self, run: Run, note: Callable[[str], None]) -> None:
        """Record what the evaluations took, and say so where it was more than they may take."""
        with suppress(OSError):  # on a full disk the error that ended the training is reported
            spent = _cost(run.rows(run.metrics, schema.Step))
            if spent and self._every:
                run.update(while_training=spent)
                if spent["share_of_training"] > MAX_SHARE:
                    note(_too_much(spent["share_of_training"], self._every))


TIME = "time/evaluation_s"
"""Seconds of an evaluation in metrics.jsonl; they are no part of `time/step_s`."""


def _cost(rows: Sequence[Row]) -> dict[str, Any] | None:
    """What the evaluations in the rows of metrics.jsonl took; None without any."""
    evaluated = [row for row in rows if TIME in row]
    if not evaluated:
        return None
    seconds = sum(row[TIME] for row in evaluated)
    of_steps = sum(row["time/step_s"] for row in rows)
    return {
        "num_evaluations": len(evaluated),
        "num_problems": evaluated[-1][health.NUM_PROBLEMS],
        "seconds": round(seconds, 2),
        "share_of_training": round(seconds / (of_steps + seconds), 4),
    }


def _too_much(share: float, every: int) -> str:
    return (
        f"warning: the evaluations during training took {share:.1%} of its time, more than "
        f"{MAX_SHARE:.0%}; `eval.every = {math.ceil(every * share / MAX_SHARE)}` takes less"
    )

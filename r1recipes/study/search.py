"""Distributions, samplers and pruners of Optuna for a cell, and the values that trials report.

Intermediate values are the held-out accuracy where the recipe has it while it trains
(`eval.every`). Elsewhere they are the accuracy of the completions in training, as the mean of a
window of steps: the decisive reward alone, so that neither the reward weights nor the loss can
mislead.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from r1recipes.runs import health
from r1recipes.study.cell import Cell, is_whole
from r1recipes.study.schema import Range

WINDOW = 10
"""An intermediate value is the mean of so many steps, but of a fifth of a run at most; assumed."""
NUM_REPORTS = 20
"""Intermediate values of a trial, approximately; assumed."""
WARMUP_SHARE = 0.25
"""No trial is pruned in this first share of its steps: the learning rate may still be rising.
Assumed."""
NUM_STARTUP_TRIALS = 3
"""Trials that run to their end before any is pruned; assumed."""
CERTAIN = 2.0
"""A trial is pruned when it is behind by more than so many standard errors; assumed."""
Distribution = CategoricalDistribution | IntDistribution | FloatDistribution


def distributions(cell: Cell) -> dict[str, Distribution]:
    """Optuna's distribution of each searched key."""
    return {key: _distribution(key, searched) for key, searched in cell.search.items()}


def _distribution(key: str, searched: Range) -> Distribution:
    if searched.choices is not None:
        return CategoricalDistribution(searched.choices)
    low, high = searched.bounds()
    if is_whole(key):
        step = 1 if searched.step is None else int(searched.step)
        return IntDistribution(int(low), int(high), log=searched.log, step=step)
    return FloatDistribution(low, high, log=searched.log, step=searched.step)


def suggest(trial: Trial, key: str, values: Distribution) -> Any:
    """The value of a key in this trial: the sampler's proposal, or what was fixed for it."""
    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(key, values.choices)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
    return trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
}
"""Name in a study file -> the sampler with this seed."""


def sampler(cell: Cell, number: int) -> BaseSampler:
    """The study's sampler for the trial of this number."""
    seed = (cell.settings.seed + 1_000_003 * number) % 2**31
    return SAMPLERS[cell.settings.sampler](seed)


class NoisePruner(BasePruner):
    """Ends a trial that is behind the upper quartile of the others by more than chance explains.

    A trial behind the best quarter will not be the best; the median, which Optuna takes, says less
    once the sampler has found good values. The accuracy p is the mean over `num_prompts` prompts;
    the completions of a prompt count as one, which overstates the noise: standard error
    sqrt(p (1 - p) / num_prompts).
    """

    def __init__(self, num_prompts: int, first_step: int):
        self.num_prompts = num_prompts
        self.first_step = first_step

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end after its last intermediate value."""
        step = trial.last_step
        if step is None or step < self.first_step:
            return False
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [value for other in finished if (value := value_at(other, step)) is not None]
        if len(others) < NUM_STARTUP_TRIALS:
            return False
        value = trial.intermediate_values[step]
        quartile = statistics.quantiles(others, n=4, method="inclusive")[2]
        # At 0 or 1 the formula would claim certainty: act as if one more prompt had gone the other
        # way.
        share = min(max(value, 1 / (self.num_prompts + 1)), 1 - 1 / (self.num_prompts + 1))
        error = math.sqrt(share * (1 - share) / self.num_prompts)
        return value + CERTAIN * error < quartile


def value_at(trial: FrozenTrial, step: int) -> float | None:
    """The last intermediate value that is not after `step`."""
    steps = [earlier for earlier in trial.intermediate_values if earlier <= step]
    return trial.intermediate_values[max(steps)] if steps else None


PRUNERS: dict[str, Callable[[int, int, int], BasePruner]] = {
    "noise": lambda first, max_steps, num_prompts: NoisePruner(num_prompts, first),
    "median": lambda first, max_steps, num_prompts: MedianPruner(
        NUM_STARTUP_TRIALS, n_warmup_steps=first
    ),
    "hyperband": lambda first, max_steps, num_prompts: HyperbandPruner(
        min_resource=first, max_resource=max_steps
    ),
    "none": lambda first, max_steps, num_prompts: NopPruner(),
}
"""Name in a study file -> the pruner, from the first step at which a trial may be pruned, the steps
of a trial, and the prompts that an intermediate value is the mean over."""


def pruner(
    cell: Cell, max_steps: int, prompts_per_step: int, eval_problems: int | None = None
) -> BasePruner:
    """The study's pruner for a trial of so many steps; `eval_problems` is that of its plan."""
    first = max(window(max_steps), math.ceil(WARMUP_SHARE * max_steps))
    num_prompts = eval_problems or window(max_steps) * prompts_per_step
    return PRUNERS[cell.settings.pruner_name](first, max_steps, num_prompts)


def window(max_steps: int) -> int:
    """The number of steps that an intermediate value is the mean of."""
    return max(1, min(WINDOW, max_steps // 5))


def intermediate_value(
    rows: Sequence[dict[str, Any]], max_steps: int, eval_problems: int | None = None
) -> float | None:
    """The value to report after these rows of metrics, or None when none is due."""
    if eval_problems:
        return rows[-1].get(health.ACCURACY)
    step, width = rows[-1]["step"], window(max_steps)
    if step < width or step % max(1, max_steps // NUM_REPORTS):
        return None
    values = [row["accuracy"] for row in rows[-width:] if row.get("accuracy") is not None]
    return statistics.fmean(values) if values else None

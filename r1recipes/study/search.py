"""What Optuna proposes for a cell and when it ends a trial: distributions, samplers, pruners.

Intermediate values are the accuracy of the completions in training, as the mean of a window of
steps: the decisive reward alone, so that neither the reward weights nor the loss can mislead.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Choices
from optuna.distributions import FloatDistribution as Floats
from optuna.distributions import IntDistribution as Ints
from optuna.trial import FrozenTrial, Trial, TrialState

from r1recipes.study.cell import Cell, is_whole

WINDOW = 10
"""Steps that an intermediate value is the mean of; assumed, at most a fifth of a run."""
REPORTS = 20
"""Intermediate values of a trial, about."""
WARMUP_SHARE = 0.25
"""Share of the steps before which nothing is pruned: learning rates may still be rising."""
NUM_STARTUP_TRIALS = 3
"""Trials that are run to their end before any is pruned."""
CERTAIN = 2.0
"""Standard errors by which a trial must be behind."""


def distributions(cell: Cell) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each searched key."""
    found: dict[str, BaseDistribution] = {}
    for key, given in cell.search.items():
        if given.choices is not None:
            found[key] = Choices(given.choices)
        elif is_whole(key):
            step = 1 if given.step is None else int(given.step)
            found[key] = Ints(int(given.low), int(given.high), log=given.log, step=step)
        else:
            found[key] = Floats(given.low, given.high, log=given.log, step=given.step)
    return found


def suggest(trial: Trial, key: str, given: BaseDistribution) -> Any:
    if isinstance(given, Choices):
        return trial.suggest_categorical(key, given.choices)
    if isinstance(given, Ints):
        return trial.suggest_int(key, given.low, given.high, step=given.step, log=given.log)
    return trial.suggest_float(key, given.low, given.high, step=given.step, log=given.log)


def sampler(cell: Cell, number: int) -> optuna.samplers.BaseSampler:
    """The study's sampler for the trial of this number."""
    seed = (cell.settings.seed + 1_000_003 * number) % 2**31
    if cell.settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if cell.settings.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


class NoisePruner(optuna.pruners.BasePruner):
    """Ends a trial that is behind the upper quartile of the others by more than chance explains.

    What is behind the best quarter will not be the best; the median, Optuna's measure, says less
    once the sampler has found good values. The accuracy p is the mean over `num_prompts` prompts;
    the completions of a prompt are taken for one, which overstates the noise: standard error
    sqrt(p (1 - p) / num_prompts).
    """

    def __init__(self, num_prompts: int, first_step: int):
        self.num_prompts = num_prompts
        self.first_step = first_step

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None or step < self.first_step:
            return False
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [value for other in finished if (value := value_at(other, step)) is not None]
        if len(others) < NUM_STARTUP_TRIALS:
            return False
        value = trial.intermediate_values[step]
        quartile = statistics.quantiles(others, n=4, method="inclusive")[2]
        # At 0 or 1 the formula would claim certainty: as if one more prompt had gone the other way.
        share = min(max(value, 1 / (self.num_prompts + 1)), 1 - 1 / (self.num_prompts + 1))
        error = math.sqrt(share * (1 - share) / self.num_prompts)
        return value + CERTAIN * error < quartile


def value_at(trial: FrozenTrial, step: int) -> float | None:
    """The last intermediate value that is not after `step`."""
    steps = [known for known in trial.intermediate_values if known <= step]
    return trial.intermediate_values[max(steps)] if steps else None


def pruner(cell: Cell, max_steps: int, prompts_per_step: int) -> optuna.pruners.BasePruner:
    """The study's pruner for a trial of so many steps."""
    first = max(window(max_steps), math.ceil(WARMUP_SHARE * max_steps))
    name = cell.settings.pruner_name
    if name == "median":
        return optuna.pruners.MedianPruner(NUM_STARTUP_TRIALS, n_warmup_steps=first)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=max_steps)
    if name == "noise":
        return NoisePruner(window(max_steps) * prompts_per_step, first)
    return optuna.pruners.NopPruner()


def window(max_steps: int) -> int:
    """Steps that an intermediate value is the mean of."""
    return max(1, min(WINDOW, max_steps // 5))


def intermediate(rows: Sequence[dict[str, Any]], max_steps: int) -> float | None:
    """The value to report after these rows of metrics, or None when none is due."""
    step, width = rows[-1]["step"], window(max_steps)
    if step < width or step % max(1, max_steps // REPORTS):
        return None
    values = [row["accuracy"] for row in rows[-width:] if row.get("accuracy") is not None]
    return statistics.fmean(values) if values else None

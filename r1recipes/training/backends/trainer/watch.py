"""Watches a TRL trainer: what the rewards of a step paid, how long it took, when it may stop.

Limits: nothing is decided or written here; `base.Hooks` has what the caller does.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from r1recipes.algorithms import Algorithm
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward, is_right
from r1recipes.runs.statistics import pass_at_1
from r1recipes.training.backends.base import Hooks

SAMPLES_PER_STEP = 4
"""Completions of a step that are recorded: the best, the worst and the first."""


class Collector:
    """Records what each reward paid for the completions of a step, in the recipe's order."""

    def __init__(self, rewards: dict[str, Reward], plan: Plan):
        self._rewards = rewards
        self._weights, self._decisive = plan.recipe.rewards, plan.recipe.eval.reward
        self._group_size = plan.preset.num_generations
        self._algorithm = plan.algorithm
        self._completions: list[Any] = []
        self._prompts: list[Any] = []
        self._answers: list[Any] = []
        self._ids: list[list[int]] = []
        self._paid: dict[str, list[float | None]] = {}
        self.ends: list[int] | None = None
        """Tokens that end a completion, for a trainer that does not log the rollouts itself."""

    def functions(self) -> list[Callable[..., list[float | None]]]:
        """The rewards with TRL's signature, recorded when TRL calls them."""
        return [self._watched(name, reward) for name, reward in self._rewards.items()]

    def _watched(self, name: str, reward: Reward) -> Callable[..., list[float | None]]:
        def watched(
            prompts: list[Any], completions: list[Any], **columns: Any
        ) -> list[float | None]:
            paid = reward(prompts=prompts, completions=completions, **columns)
            self._prompts, self._completions = prompts, completions
            self._answers = columns.get("answer", [])
            self._ids = columns.get("completion_ids", [])
            self._paid[name] = paid
            return reward.in_training(paid, prompts)

        watched.__name__ = name
        return watched

    def rollouts(self) -> dict[str, float]:
        """What the rewards of the step paid and how long its completions are, under the names and
        in the units of GRPO; empty for a trainer that logs it, for which `ends` is None."""
        if self.ends is None or not self._paid:
            return {}
        row: dict[str, float] = {}
        for name, paid in self._paid.items():
            values = _tensor(paid)
            row |= {f"rewards/{name}/mean": values.nanmean().item()}
            row |= {f"rewards/{name}/std": _spread(values)}
        weights = torch.tensor([self._weights[name] for name in self._paid])
        totals = (torch.stack([*map(_tensor, self._paid.values())], 1) * weights).nansum(1)
        row |= {"reward": totals.mean().item(), "reward_std": _spread(totals)}
        if self._algorithm.compares:
            groups = totals.view(-1, self._group_size)
            row["frac_reward_zero_std"] = (groups == groups[:, :1]).all(1).float().mean().item()
        lengths = torch.tensor([len(ids) for ids in self._ids]).float()
        is_cut = torch.tensor([not ids or ids[-1] not in self.ends for ids in self._ids]).float()
        return row | {
            "completions/mean_length": lengths.mean().item(),
            "completions/min_length": lengths.min().item(),
            "completions/max_length": lengths.max().item(),
            "completions/clipped_ratio": is_cut.mean().item(),
        }

    def accuracy(self) -> dict[str, float | None]:
        """Share of the step's completions that the decisive reward pays 1 or more, and its 95 %
        interval, under their names in metrics.jsonl; empty where a step samples none."""
        if not self._algorithm.samples:
            return {}
        paid = self._paid.get(self._decisive)
        if not paid:
            return {"accuracy": None}
        right = list(map(is_right, paid))
        groups = [right[n : n + self._group_size] for n in range(0, len(right), self._group_size)]
        accuracy, (low, high) = pass_at_1(groups)
        return {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}

    def failures(self) -> dict[str, int]:
        """How often each reward failed since the run began, such as {"my.py:f/timeout": 2}."""
        return {
            f"{name}/{kind}": count
            for name, reward in self._rewards.items()
            for kind, count in reward.failures.items()
        }

    def samples(self) -> list[dict[str, Any]]:
        """The best and the worst completion of the step by the weighted sum, and the first ones."""
        if not self._completions:
            return []
        weights = [self._weights[name] for name in self._paid]
        paid = zip(*self._paid.values(), strict=True)
        totals = [sum(w * (v or 0.0) for w, v in zip(weights, row, strict=True)) for row in paid]
        order = sorted(range(len(totals)), key=lambda i: totals[i])
        indices = dict.fromkeys([order[-1], order[0], *range(len(totals))])
        return [self._row(index) for index in list(indices)[:SAMPLES_PER_STEP]]

    def _row(self, index: int) -> dict[str, Any]:
        return {
            "prompt": self._prompts[index][-1]["content"],
            "completion": self._completions[index][0]["content"],
            "answer": self._answers[index] if self._answers else None,
            "rewards": {name: paid[index] for name, paid in self._paid.items()},
        }


def _tensor(paid: list[float | None]) -> torch.Tensor:
    """What a reward paid; NaN where it paid nothing."""
    return torch.tensor([torch.nan if value is None else value for value in paid])


def _spread(values: torch.Tensor) -> float:
    """The standard deviation of the values that are there; 0 of a single one."""
    values = values[~values.isnan()]
    return values.std().item() if len(values) > 1 else 0.0


class Clock:
    """Seconds of an optimiser step, by the part of the work.

    The timed methods call one another: a step prepares a batch, which generates and pays the
    rewards. The rest of preparing is log-probs before the update and bookkeeping; the rest of the
    step is the forward and backward pass.
    """

    def __init__(self, timed: Mapping[str, str]) -> None:
        self._methods = timed
        self._spent = dict.fromkeys(timed.values(), 0.0)
        self._began = self._step_s = 0.0

    def time(self, trainer: Any) -> None:
        """Time the methods of a TRL trainer."""
        for name, purpose in self._methods.items():
            setattr(trainer, name, self.timed(purpose, getattr(trainer, name)))

    def timed(self, purpose: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same and is timed."""
        self._spent.setdefault(purpose, 0.0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()  # the GPU works on after the call has returned
                self._spent[purpose] += time.perf_counter() - began

        return timed

    def begin(self) -> None:
        self._spent = dict.fromkeys(self._spent, 0.0)
        self._began = time.perf_counter()

    def end(self) -> None:
        self._step_s = time.perf_counter() - self._began

    def row(self) -> dict[str, float]:
        """The times of the last step, under their names in metrics.jsonl."""
        spent = {"generation": 0.0, "rewards": 0.0, "step": self._step_s} | self._spent
        if "generation" not in self._spent:
            return {"time/step_s": self._step_s, "time/backward_s": spent["step"]}
        spent = {"preparing": spent["generation"] + spent["rewards"]} | spent
        return {
            "time/step_s": self._step_s,
            "time/generation_s": spent["generation"],
            "time/rewards_s": spent["rewards"],
            "time/logprobs_s": spent["preparing"] - spent["generation"] - spent["rewards"],
            "time/backward_s": spent["step"] - spent["preparing"],
        }


class _Stoppable(TrainerCallback):
    """Calls the hook for checkpoints; saves a checkpoint and stops when asked to."""

    def __init__(self, hooks: Hooks):
        self.hooks = hooks

    def stop_if_asked(self, control: Any) -> None:
        if self.hooks.should_stop():
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.hooks.on_checkpoint(Path(args.output_dir, f"checkpoint-{state.global_step}"))


class Progress(_Stoppable):
    """Reports the steps of the cold start with their losses, and lets Ctrl-C save a checkpoint and
    stop."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):  # the summary at the end has none
            self.hooks.on_loss(float(logs["loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.hooks.on_progress(state.global_step, state.max_steps)
        if state.global_step < state.max_steps:  # after the last step the model itself is saved
            self.stop_if_asked(control)


class Watch(_Stoppable):
    """Also calls the hook for metrics, and times the steps."""

    def __init__(self, hooks: Hooks, collector: Collector, algorithm: Algorithm):
        super().__init__(hooks)
        self.collector = collector
        self.algorithm = algorithm
        self.clock = Clock(algorithm.timed)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.end()
        if self.algorithm.resumes:
            self.stop_if_asked(control)
        elif state.global_step < state.max_steps and self.hooks.should_stop():
            raise KeyboardInterrupt  # its trainer neither looks whether to stop nor saves a step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        renamed = self.algorithm.metrics
        logs = {renamed.get(name, name): value for name, value in (logs or {}).items()}
        if "loss" not in logs:
            return  # the summary at the end
        logs |= self.collector.rollouts()
        row = {"step": state.global_step, **logs, **self.clock.row(), **self.collector.accuracy()}
        if failures := self.collector.failures():
            row["reward_failures"] = failures
        row |= self.hooks.evaluate(state.global_step)  # before the step's checkpoint is saved
        self.hooks.on_step(row, self.collector.samples())


@dataclass(frozen=True)
class Parts:
    """What every trainer is made of."""

    config: Any
    """TRL's config of the algorithm."""
    model: Any
    tokenizer: Any
    rows: Dataset
    callback: Watch
    ends: list[int]
    """Tokens that end a completion."""

"""Watches a TRL trainer: what the rewards of a step paid, how long it took, when it may stop.

Limits: nothing is decided or written here; `base.Hooks` has what the caller does.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
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
        self._samples = plan.algorithm.samples
        self._completions: list[Any] = []
        self._prompts: list[Any] = []
        self._answers: list[Any] = []
        self._paid: dict[str, list[float | None]] = {}

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
            self._paid[name] = paid
            return reward.in_training(paid, prompts)

        watched.__name__ = name
        return watched

    def accuracy(self) -> dict[str, float | None]:
        """Share of the step's completions that the decisive reward pays 1 or more, and its 95 %
        interval, under their names in metrics.jsonl; empty where a step samples none."""
        if not self._samples:
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
            setattr(trainer, name, self._timed(purpose, getattr(trainer, name)))

    def _timed(self, purpose: str, method: Callable[..., Any]) -> Callable[..., Any]:
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
        spent = {"step": 0.0, "preparing": 0.0, "generation": 0.0, "rewards": 0.0} | self._spent
        if "generation" not in self._spent:
            return {"time/step_s": self._step_s, "time/backward_s": spent["step"]}
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
    """Reports the steps of the cold start, and lets Ctrl-C save a checkpoint and stop."""

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
        self.stop_if_asked(control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return  # the summary at the end
        logs = {self.algorithm.metrics.get(name, name): value for name, value in logs.items()}
        row = {"step": state.global_step, **logs, **self.clock.row(), **self.collector.accuracy()}
        if failures := self.collector.failures():
            row["reward_failures"] = failures
        row |= self.hooks.evaluate(state.global_step)  # before the step's checkpoint is saved
        self.hooks.on_step(row, self.collector.samples())

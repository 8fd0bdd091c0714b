"""What every backend hands to TRL: arguments with nothing left to a default, and the callbacks.

Imported after `unsloth` where that is used, since this imports trl.
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTConfig

from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends.base import Hooks

SAMPLES_PER_STEP = 4
"""Completions of a step that are kept: the best, the worst and the first."""


def sampling(plan: Plan) -> dict[str, Any]:
    """Sampling settings of the recipe under transformers' names."""
    train = plan.recipe.train
    return {
        "temperature": train.temperature,
        "top_p": train.top_p,
        "top_k": train.top_k,
        "min_p": train.min_p,
    }


def common(plan: Plan) -> dict[str, Any]:
    """Arguments that the cold start and GRPO share. Nothing is left to a library's default."""
    return {
        "seed": plan.recipe.seed,
        "data_seed": plan.recipe.seed,
        "bf16": plan.dtype == "bfloat16",
        "fp16": plan.dtype == "float16",
        "use_cpu": plan.device == "cpu",
        "gradient_checkpointing": plan.device == "cuda",
        "dataloader_pin_memory": plan.device == "cuda",
        "dataloader_num_workers": 0,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "push_to_hub": False,
    }


def sft_config(plan: Plan, output_dir: Path) -> SFTConfig:
    """Arguments of the cold start: all weights, loss on the completion only."""
    start = plan.recipe.cold_start
    assert start is not None, "a plan without a cold start has no configuration for it"
    return SFTConfig(
        output_dir=str(output_dir),
        max_steps=start.steps,
        per_device_train_batch_size=start.batch_size,
        gradient_accumulation_steps=1,
        learning_rate=start.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=start.steps // 10,
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        weight_decay=0.01,
        max_grad_norm=1.0,
        loss_type="nll",
        max_length=plan.preset.max_seq_length,
        packing=False,
        completion_only_loss=True,
        save_strategy="no",
        **common(plan),
    )


def grpo_arguments(plan: Plan, output_dir: Path) -> dict[str, Any]:
    """Arguments of a GRPOConfig. Every field of the algorithm is explicit, since TRL, Unsloth and
    their versions have different defaults (loss_type, beta, epsilon_high, learning_rate, ...)."""
    train, preset = plan.recipe.train, plan.preset
    return dict(
        output_dir=str(output_dir),
        max_steps=train.max_steps,
        per_device_train_batch_size=plan.per_device_train_batch_size,
        gradient_accumulation_steps=plan.gradient_accumulation_steps,
        steps_per_generation=plan.gradient_accumulation_steps,
        num_generations=preset.num_generations,
        num_iterations=1,
        max_completion_length=preset.max_completion_length,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=plan.warmup_steps,
        optim=train.optim,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=1e-8,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        loss_type=train.loss_type,
        importance_sampling_level="token",
        scale_rewards=train.scale_rewards,
        multi_objective_aggregation="sum_then_normalize",
        beta=train.beta,
        epsilon=train.epsilon,
        epsilon_high=train.epsilon_high,
        delta=None,
        mask_truncated_completions=train.mask_truncated_completions,
        top_entropy_quantile=1.0,
        entropy_coef=0.0,
        use_adaptive_entropy=False,
        off_policy_mask_threshold=None,
        use_bias_correction_kl=True,
        sync_ref_model=False,
        disable_dropout=False,
        cast_lm_head_to_fp32=False,
        reward_weights=list(plan.recipe.rewards.values()),
        repetition_penalty=train.repetition_penalty,
        use_vllm=False,
        use_transformers_continuous_batching=False,
        shuffle_dataset=True,
        remove_unused_columns=False,
        log_completions=False,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=2,  # a kill while the newest is written leaves the one before
        save_only_model=False,
        **sampling(plan),
        **common(plan),
    )


class Collector:
    """Sees what each reward paid for the completions of a step, in the order of the recipe."""

    def __init__(self, rewards: dict[str, Reward], decisive: str):
        self._rewards = rewards
        self._decisive = decisive
        self._completions: list[Any] = []
        self._prompts: list[Any] = []
        self._answers: list[Any] = []
        self._paid: dict[str, list[float | None]] = {}

    def functions(self) -> list[Any]:
        return [self._watched(name, reward) for name, reward in self._rewards.items()]

    def _watched(self, name: str, reward: Reward) -> Any:
        def watched(prompts: list, completions: list, **columns: Any) -> list[float | None]:
            paid = reward(prompts=prompts, completions=completions, **columns)
            self._prompts, self._completions = prompts, completions
            self._answers = columns.get("answer", [])
            self._paid[name] = paid
            return paid

        watched.__name__ = name
        return watched

    def accuracy(self) -> float | None:
        """Share of the step's completions that the decisive reward calls right."""
        paid = self._paid.get(self._decisive)
        return sum(v is not None and v >= 1.0 for v in paid) / len(paid) if paid else None

    def failures(self) -> dict[str, int]:
        """How often each reward failed since the run began, such as {"my.py:f/timeout": 2}."""
        return {
            f"{name}/{kind}": count
            for name, reward in self._rewards.items()
            for kind, count in reward.failures.items()
        }

    def samples(self) -> list[dict[str, Any]]:
        """The best and the worst paid completion of the step, and the first ones."""
        if not self._completions:
            return []
        weightless = zip(*self._paid.values(), strict=True)
        totals = [sum(v or 0.0 for v in paid) for paid in weightless]
        order = sorted(range(len(totals)), key=lambda i: totals[i])
        picked = dict.fromkeys([order[-1], order[0], *range(len(totals))])
        return [self._row(index) for index in list(picked)[:SAMPLES_PER_STEP]]

    def _row(self, index: int) -> dict[str, Any]:
        return {
            "prompt": self._prompts[index][-1]["content"],
            "completion": self._completions[index][0]["content"],
            "answer": self._answers[index] if self._answers else None,
            "rewards": {name: paid[index] for name, paid in self._paid.items()},
        }


class Clock:
    """Seconds of an optimiser step by what they were spent on.

    A trainer's methods contain one another: training_step prepares a batch, which generates and
    pays the rewards. What is left of preparing is log-probs before the update and bookkeeping; what
    is left of training_step is the forward and backward pass.
    """

    METHODS = ("training_step", "_prepare_inputs", "_generate", "_calculate_rewards")

    def __init__(self) -> None:
        self._spent = dict.fromkeys(self.METHODS, 0.0)
        self._began = self._step_s = 0.0

    def watch(self, trainer: Any) -> None:
        """Time the methods of a TRL GRPOTrainer."""
        for name in self.METHODS:
            setattr(trainer, name, self._timed(name, getattr(trainer, name)))

    def _timed(self, name: str, method: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()  # or the time is that of handing out the work
                self._spent[name] += time.perf_counter() - began

        return timed

    def begin(self) -> None:
        self._spent = dict.fromkeys(self.METHODS, 0.0)
        self._began = time.perf_counter()

    def end(self) -> None:
        self._step_s = time.perf_counter() - self._began

    def row(self) -> dict[str, float]:
        """The last step, under the names that metrics.jsonl has."""
        whole, prepared, generated, paid = self._spent.values()
        return {
            "time/step_s": self._step_s,
            "time/generation_s": generated,
            "time/rewards_s": paid,
            "time/logprobs_s": prepared - generated - paid,
            "time/backward_s": whole - prepared,
        }


class Progress(TrainerCallback):
    """Reports the steps of the cold start."""

    def __init__(self, hooks: Hooks):
        self.hooks = hooks

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.hooks.on_progress(state.global_step, state.max_steps)


class Watch(TrainerCallback):
    """Hands on metrics and checkpoints, and lets Ctrl-C save one and stop."""

    def __init__(self, hooks: Hooks, collector: Collector):
        self.hooks = hooks
        self.collector = collector
        self.clock = Clock()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.end()
        if self.hooks.should_stop():
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "reward" not in logs:
            return  # the summary at the end
        row = {"step": state.global_step, **logs, **self.clock.row()}
        row["accuracy"] = self.collector.accuracy()
        failures = self.collector.failures()
        if failures:
            row["reward_failures"] = failures
        self.hooks.on_step(row, self.collector.samples())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.hooks.on_checkpoint(Path(args.output_dir, f"checkpoint-{state.global_step}"))

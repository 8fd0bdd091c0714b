"""Plan -> TRL trainer, for every backend: its arguments, and the callbacks that watch it.

No argument is left to a library's default. Where Unsloth is used it must be imported before this
module, which imports trl.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig

from r1recipes.algorithms import Algorithm, sft
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward, is_right
from r1recipes.runs.statistics import pass_at_1
from r1recipes.training.backends import passes
from r1recipes.training.backends.base import Hooks

REFERENCE = "ref"
"""TRL's name for a frozen copy of the adapter as the reference, which `make` deletes: the base is
the same reference, as a fresh adapter changes nothing; and from a checkpoint with two adapters
transformers does not load the trained one (trainer.py, `_load_from_checkpoint`)."""
SAMPLES_PER_STEP = 4
"""Completions of a step that are recorded: the best, the worst and the first."""


def sampling(plan: Plan) -> dict[str, Any]:
    """Sampling settings of the recipe under transformers' names."""
    names = ("temperature", "top_p", "top_k", "min_p")
    return {name: getattr(plan.recipe.train, name) for name in names}


def common(plan: Plan) -> dict[str, Any]:
    """Arguments that every trainer gets."""
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
    """Arguments of the cold start; the plan has one."""
    start = plan.recipe.cold_start
    assert start is not None
    own = sft.arguments(start, plan.preset.max_seq_length)
    return SFTConfig(output_dir=str(output_dir), **own, **common(plan))


def arguments(plan: Plan, output_dir: Path) -> dict[str, Any]:
    """Arguments of the trainer's config, with the same names."""
    train, algorithm = plan.recipe.train, plan.algorithm
    own = algorithm.arguments(train, plan.preset, plan.step)
    if algorithm.learns_from == "rewards":
        own["reward_weights"] = list(plan.recipe.rewards.values())
    return {
        "output_dir": str(output_dir),
        "max_steps": train.max_steps,
        "per_device_train_batch_size": plan.per_device_train_batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": plan.warmup_steps,
        "optim": train.optim,
        "adam_beta1": train.adam_beta1,
        "adam_beta2": train.adam_beta2,
        "adam_epsilon": 1e-8,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "repetition_penalty": train.repetition_penalty,
        "remove_unused_columns": False,
        "save_strategy": "steps" if algorithm.resumes else "no",
        "save_steps": train.save_steps,
        "save_total_limit": 2,  # a kill while one is written leaves the one before
        "save_only_model": False,
        **sampling(plan),
        **own,
        **common(plan),
    }


def stop_ids(tokenizer: Any, model: Any) -> list[int]:
    """The tokens that end a completion: the tokenizer's, then others that the model was made with,
    such as Llama's `<|end_of_text|>` beside `<|eot_id|>` (generation_config.json)."""
    others = model.generation_config.eos_token_id
    others = others if isinstance(others, list) else [others]
    ids = [tokenizer.eos_token_id, *(i for i in others if i is not None)]
    return list(dict.fromkeys(ids))


def stop_at(trainer: Any, ids: list[int]) -> None:
    """Let completions of a trainer that generates with transformers end at any of several tokens.

    TRL cuts them at the tokenizer's end token alone and would learn the padding behind another
    (1.12, `_generate_single_turn`). It still counts those that end with another as cut.
    """
    if len(ids) == 1:
        return
    trainer.generation_kwargs["eos_token_id"] = ids
    trainer.generation_config.eos_token_id = ids
    generate = trainer._generate_single_turn

    def cut(*args: Any, **kwargs: Any) -> Any:
        made = generate(*args, **kwargs)
        completions, *rest = made if isinstance(made, tuple) else (made,)
        ends = [next((n for n, i in enumerate(c, 1) if i in ids), len(c)) for c in completions]
        completions = [c[:end] for c, end in zip(completions, ends, strict=True)]
        return (completions, *rest) if isinstance(made, tuple) else completions

    trainer._generate_single_turn = cut


def make(
    plan: Plan,
    *,
    model: Any,
    tokenizer: Any,
    rows: Dataset,
    rewards: dict[str, Reward],
    config_arguments: dict[str, Any],
    hooks: Hooks,
) -> Any:
    """The TRL trainer of a plan's algorithm, with callbacks that call `hooks`."""
    trainer_class, config_class = plan.algorithm.trainer()
    collector = Collector(rewards, plan)
    callback = Watch(hooks, collector, plan.algorithm)
    reward_arguments = {"reward_funcs": collector.functions()} if rewards else {}
    trainer = trainer_class(
        model=model,
        args=config_class(**config_arguments),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[callback],
        **reward_arguments,
    )
    if REFERENCE in getattr(model, "peft_config", {}):
        model.delete_adapter(REFERENCE)
    passes.install(trainer, plan)
    _announce_phases(trainer, plan.algorithm, hooks)
    callback.clock.time(trainer)
    return trainer


def _announce_phases(trainer: Any, algorithm: Algorithm, hooks: Hooks) -> None:
    """Call `hooks.on_phase` when a trainer begins to generate, and when it has its completions.

    An error while it generates belongs to that phase, so the next one does not begin.
    """
    for name, purpose in algorithm.timed.items():
        if purpose == "generation":
            setattr(trainer, name, _announced(getattr(trainer, name), hooks))


def _announced(generate: Callable[..., Any], hooks: Hooks) -> Callable[..., Any]:
    def announced(*args: Any, **kwargs: Any) -> Any:
        hooks.on_phase("generate")
        completions = generate(*args, **kwargs)
        hooks.on_phase("train")
        return completions

    return announced


class Collector:
    """Records what each reward paid for the completions of a step, in the recipe's order."""

    def __init__(self, rewards: dict[str, Reward], plan: Plan):
        self._rewards = rewards
        self._weights, self._decisive = plan.recipe.rewards, plan.recipe.eval.reward
        self._group_size = plan.preset.num_generations
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
            return paid

        watched.__name__ = name
        return watched

    def accuracy(self) -> dict[str, float | None]:
        """Share of the step's completions that the decisive reward pays 1 or more, and its 95 %
        interval, under their names in metrics.jsonl."""
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

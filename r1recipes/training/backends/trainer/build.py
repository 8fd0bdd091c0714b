"""Plan -> the arguments of a TRL trainer, and the trainer.

No argument is left to a library's default. Limits: nothing is loaded here.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig

from r1recipes.algorithms import ONLINE_DPO, PPO, Algorithm, sft
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import passes
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trainer import online_dpo, ppo
from r1recipes.training.backends.trainer.online_dpo import PairSampler
from r1recipes.training.backends.trainer.watch import Collector, Parts, Watch

REFERENCE = "ref"
"""TRL's name for a frozen copy of the adapter as the reference, which `make` deletes: the base is
the same reference, as a fresh adapter changes nothing; and from a checkpoint with two adapters
transformers does not load the trained one (trainer.py, `_load_from_checkpoint`)."""


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
    own = sft.of_cold_start(start, plan.preset.max_seq_length)
    return SFTConfig(output_dir=str(output_dir), **own, **common(plan))


def arguments(plan: Plan, output_dir: Path) -> dict[str, Any]:
    """Arguments of the trainer's config, with the same names."""
    train, algorithm = plan.recipe.train, plan.algorithm
    own = algorithm.arguments(train, plan.preset, plan.step)
    if algorithm.samples:
        rewarded = {"reward_weights": list(plan.recipe.rewards.values())}
        sampled = sampling(plan) | {"repetition_penalty": train.repetition_penalty} | rewarded
        names = {field.name for field in fields(algorithm.trainer()[1])}  # PPO's has few of them
        own = {name: value for name, value in sampled.items() if name in names} | own
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
        "remove_unused_columns": False,
        "save_strategy": "steps" if algorithm.resumes else "no",
        "save_steps": train.save_steps,
        "save_total_limit": 2,  # a kill while one is written leaves the one before
        "save_only_model": False,
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
    if len(ids) == 1 or not hasattr(trainer, "_generate_single_turn"):
        return  # the trainers of other algorithms have been told when they were made
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
    sampler: PairSampler | None = None,
) -> Any:
    """The TRL trainer of a plan's algorithm, with callbacks that call `hooks`.

    `sampler` generates the pairs of online DPO; without it TRL's trainer does with transformers.
    """
    collector = Collector(rewards, plan)
    callback = Watch(hooks, collector, plan.algorithm)
    parts = Parts(
        config=plan.algorithm.trainer()[1](**config_arguments),
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        callback=callback,
        ends=stop_ids(tokenizer, model),
    )
    if plan.algorithm is ONLINE_DPO:
        trainer = online_dpo.make(parts, sampler)
    elif plan.algorithm is PPO:
        trainer = ppo.make(plan, parts)
    else:
        trainer = _plain(plan, parts)
    if REFERENCE in getattr(model, "peft_config", {}):
        model.delete_adapter(REFERENCE)
    _announce_phases(trainer, plan.algorithm, hooks)
    callback.clock.time(trainer)
    return trainer


def _plain(plan: Plan, parts: Parts) -> Any:
    """A trainer that needs nothing beside what each of them takes."""
    functions = parts.callback.collector.functions()
    is_paid = plan.algorithm.samples and functions
    reward_arguments = {"reward_funcs": functions} if is_paid else {}
    trainer = plan.algorithm.trainer()[0](
        model=parts.model,
        args=parts.config,
        train_dataset=parts.rows,
        processing_class=parts.tokenizer,
        callbacks=[parts.callback],
        **reward_arguments,
    )
    if plan.algorithm.advantages:
        _take_advantages(trainer, plan)
    if plan.algorithm.samples:
        passes.install(trainer, plan)
    return trainer


def _take_advantages(trainer: Any, plan: Plan) -> None:
    """Let a trainer learn by the advantages of the algorithm in place of its own."""
    score, advantages = trainer._generate_and_score_completions, plan.algorithm.advantages
    assert advantages is not None

    def scored(batch: Any) -> Any:
        rows = score(batch)
        own = advantages(plan.recipe.train, plan.preset, rows["advantages"])
        return rows | {"advantages": own}

    trainer._generate_and_score_completions = scored


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

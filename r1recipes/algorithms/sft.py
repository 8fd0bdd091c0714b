"""SFT: supervised fine-tuning on demonstrations, of the adapter or, in a cold start, all weights.

The cold start is a short stage before the training; `algorithm = "sft"` is the training itself.
Limits: the loss is that of the completions only.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from r1recipes.algorithms.base import Algorithm, Preset, Train
from r1recipes.algorithms.examples import TIMED, Learned, Scored
from r1recipes.algorithms.step import Step
from r1recipes.config.section import Batch, Section, Steps, Word


class SftTrain(Train):
    """The algorithm and the optimiser. trl: SFTConfig, spelled as there."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate; about ten times that of full fine-tuning."""
    packing: bool = False
    """Put several demonstrations into one sequence of max_seq_length; a step has prompts_per_step
    such sequences."""


class ColdStart(Section):
    """A short supervised stage on all weights before GRPO: teaches the format (2501.12948)."""

    steps: Annotated[Steps, Field(examples=[300])]
    """Optimiser steps."""
    batch_size: Batch = 64
    """Demonstrations in a step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak learning rate; it rises over a tenth of the steps and falls to 0 as a cosine."""
    wrong: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Built-in data: share of demonstrations that make a mistake."""
    data: Annotated[Word | None, Field(examples=["demonstrations.jsonl"])] = None
    """Local file, as in data.name, with columns question and completion."""


def supervised(max_seq_length: int, *, packing: bool = False) -> dict[str, Any]:
    """Arguments of an SFTConfig that say what is learned: the completion only."""
    return {
        "loss_type": "nll",
        "max_length": max_seq_length,
        "packing": packing,
        "completion_only_loss": True,
    }


def of_cold_start(start: ColdStart, max_seq_length: int) -> dict[str, Any]:
    """Arguments of an SFTConfig for a cold start, beyond the common ones."""
    return supervised(max_seq_length) | {
        "max_steps": start.steps,
        "per_device_train_batch_size": start.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": start.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": start.steps // 10,
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "save_strategy": "no",
    }


def arguments(train: SftTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of an SFTConfig."""
    return supervised(preset.max_seq_length, packing=train.packing) | {
        "packing_strategy": "bfd",
        "truncation_mode": "keep_start",
        "padding_free": False,
        "shuffle_dataset": False,  # the trainer draws its batches at random
        "assistant_only_loss": False,
        "activation_offloading": False,
        "remove_unused_columns": True,
    }


def trainer() -> tuple[type, type]:
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer, SFTConfig


def choose(samples: Sequence[Scored]) -> list[dict[str, str | bool]]:
    """The different right samples of a question (rejection sampling, arXiv 2308.01825)."""
    texts = dict.fromkeys(sample.text for sample in samples if sample.is_right)
    return [{"completion": text} for text in texts]


LEARNED = Learned(
    noun="demonstration",
    columns={"completion": "text"},
    choose=choose,
    by_rewards=False,
    teaches="questions with a right sample",
    facts=(("mean_token_accuracy", "tokens right", "%"),),
)

SFT = Algorithm(
    name="sft",
    title="SFT",
    description="Supervised fine-tuning on demonstrations",
    source="arXiv 2308.01825",
    learns_from="demonstrations",
    train=SftTrain,
    arguments=arguments,
    trainer=trainer,
    step=LEARNED.step,
    reference=lambda train: False,
    timed=TIMED,
    loss_note="falls as the demonstrations are learned, whatever the answers",
    backends=("unsloth", "trl"),
    learned=LEARNED,
)

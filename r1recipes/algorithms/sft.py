"""Supervised fine-tuning: the cold start, a short stage on all weights before the training."""

from typing import Annotated, Any

from pydantic import Field

from r1recipes.config.section import Batch, Section, Steps, Word


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


def arguments(start: ColdStart, max_seq_length: int) -> dict[str, Any]:
    """Arguments of an SFTConfig; the loss is that of the completion only."""
    return {
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
        "loss_type": "nll",
        "max_length": max_seq_length,
        "packing": False,
        "completion_only_loss": True,
        "save_strategy": "no",
    }

"""Online DPO: the better of two new completions of each prompt against the other (2402.04792).

The rewards say which one is better. A pair that earns the same teaches nothing and has no gradient;
TRL would prefer its first completion. The reference is the base model, that is, the model with its
adapter switched off. Limits: two completions of a prompt, no more.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import Field

from r1recipes.algorithms.base import Algorithm, Preset, Train
from r1recipes.algorithms.step import Step

PAIR = 2


class OnlineDpoTrain(Train):
    """The algorithm and the optimiser. trl: OnlineDPOConfig, spelled as there."""

    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How strongly the model is held near the base model; less lets it move further."""
    loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    """Loss of a pair (arXiv 2305.18290, 2310.12036)."""


def step_of(preset: Preset) -> Step:
    """The pairs of all prompts are generated at once and trained on in equal passes of whole
    pairs; without a size of the passes, each has one pair."""
    batch = preset.per_device_train_batch_size or PAIR
    return Step(preset.prompts_per_step * PAIR, batch, PAIR)


def arguments(train: OnlineDpoTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of an OnlineDPOConfig; its batches are counted in prompts, and its `max_length` is
    that of prompt and completion together."""
    return {
        "per_device_train_batch_size": step.batch // PAIR,
        "max_new_tokens": preset.max_completion_length,
        "max_length": preset.max_seq_length,
        "beta": train.beta,
        "loss_type": train.loss_type,
        "missing_eos_penalty": None,
        "disable_dropout": False,
        "use_vllm": False,
        "reward_model_path": None,
    }


def trainer() -> tuple[type, type]:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # no warning that it may change
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    return OnlineDPOTrainer, OnlineDPOConfig


ONLINE_DPO = Algorithm(
    name="online_dpo",
    title="Online DPO",
    description="Preference optimisation on new pairs that the rewards order",
    source="arXiv 2402.04792",
    learns_from="rewards",
    train=OnlineDpoTrain,
    arguments=arguments,
    trainer=trainer,
    step=step_of,
    reference=lambda train: True,
    timed={
        "training_step": "step",
        "_generate": "generation",
        "_generate_vllm": "generation",
        "_calculate_rewards_from_functions": "rewards",
    },
    loss_note="falls as pairs are told apart, whatever the answers",
    backends=("unsloth", "trl"),
    group_size=PAIR,
    logit_bytes=14.0,
)

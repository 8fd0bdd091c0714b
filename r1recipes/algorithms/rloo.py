"""RLOO: each completion against the mean of the others of its group (arXiv 2402.14740).

Limits: trained by plain TRL. With Unsloth its trainer would keep all logits in memory, and that has
not been measured.
"""

from typing import Annotated, Any

from pydantic import Field

from r1recipes.algorithms import group
from r1recipes.algorithms.base import Algorithm, PassRules, Preset
from r1recipes.algorithms.step import Step


class RlooTrain(group.GroupTrain):
    """The algorithm and the optimiser. trl: RLOOConfig, spelled as there."""

    beta: Annotated[float, Field(ge=0, le=10)] = 0.05
    """Weight of the KL divergence from the base model, taken off the reward; 0 saves its pass."""
    normalize_advantages: bool = False
    """Divide advantages by their standard deviation over the batch."""


def arguments(train: RlooTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of an RLOOConfig."""
    return group.arguments(train, preset, step) | {
        "normalize_advantages": train.normalize_advantages,
        "reward_clip_range": None,
    }


def pass_rules(train: RlooTrain) -> PassRules:
    """The loss is a mean over the rows of a pass and linear in the advantages, which have the KL
    divergence in them (trl, rloo_trainer.py, `_compute_loss`)."""
    return PassRules(drops=True, sorts=True, resizes=True, weighs=True)


def trainer() -> tuple[type, type]:
    from trl import RLOOConfig, RLOOTrainer

    return RLOOTrainer, RLOOConfig


RLOO = Algorithm(
    name="rloo",
    title="RLOO",
    description="REINFORCE with the other completions of the prompt as the baseline",
    source="arXiv 2402.14740",
    learns_from="rewards",
    train=RlooTrain,
    arguments=arguments,
    trainer=trainer,
    step=group.step_of,
    reference=group.reference,
    pass_rules=pass_rules,
    timed=group.TIMED,
    loss_note=group.LOSS_NOTE,
    backends=("trl",),
)

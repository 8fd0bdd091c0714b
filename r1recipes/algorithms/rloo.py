"""RLOO: each completion against the mean of the others of its group (arXiv 2402.14740).

With Unsloth its gradient is computed by TRL's GRPOTrainer, of which Unsloth never holds the logits
of a whole pass; it would hold those of RLOOTrainer. Both trainers agree where there is no KL term
and a batch is used once, as it is here (`group.arguments`): then every probability ratio is 1.
"""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from r1recipes.algorithms import group, grpo
from r1recipes.algorithms.base import Algorithm, Preset
from r1recipes.algorithms.step import PassRules, Step


class RlooTrain(group.GroupTrain):
    """The algorithm and the optimiser. trl: RLOOConfig, spelled as there."""

    beta: Annotated[float, Field(ge=0, le=10)] = 0.0
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


def grpo_arguments(train: RlooTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of a GRPOConfig whose loss is that of RLOO up to `grpo_advantages`."""
    keys = {name: getattr(train, name) for name in group.GroupTrain.model_fields}
    as_grpo = grpo.GrpoTrain(**keys, loss_type="dr_grpo", scale_rewards="none")
    return grpo.arguments(as_grpo, preset, step)


def grpo_advantages(train: RlooTrain, preset: Preset, advantages: Any) -> Any:
    """What RLOO has in place of the advantages r - mean of a GRPOTrainer, a tensor [rows].

    Of n completions each is held against the mean of the n - 1 others, which is n / (n - 1) times
    its distance from the mean of all. RLOO adds up the log-probs of a completion; "dr_grpo" divides
    them by `max_completion_length`.
    """
    size = preset.num_generations
    advantages = advantages * (size / (size - 1))
    if train.normalize_advantages:  # trl, rloo_trainer.py
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-4)
    return advantages * preset.max_completion_length


def without_unsloth(train: RlooTrain) -> str:
    """RLOO takes the KL divergence off the reward; in GRPO it is a term of the loss."""
    if not train.beta:
        return ""
    return (
        "RLOO with a KL term is trained by plain TRL, on a GPU far slower than with vLLM; "
        "`train.beta = 0.0` trains it with Unsloth"
    )


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
    backends=("unsloth", "trl"),
    without_unsloth=without_unsloth,
)
RLOO = replace(
    RLOO,
    with_unsloth=replace(
        RLOO, arguments=grpo_arguments, trainer=grpo.trainer, advantages=grpo_advantages
    ),
)

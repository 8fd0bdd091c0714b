"""What GRPO and RLOO share: several completions of each prompt, compared with one another.

Arguments are those of TRL (`packages.READ_IN`), whose two trainers have the same methods and
metrics.
"""

from typing import Annotated, Any

from pydantic import Field

from r1recipes.algorithms.base import Preset, Train
from r1recipes.algorithms.step import Step
from r1recipes.config.section import KeyProblems

TIMED = {
    "training_step": "step",
    "_prepare_inputs": "preparing",
    "_generate": "generation",
    "_calculate_rewards": "rewards",
}
LOSS_NOTE = "near 0 by construction"
"""Derived: the advantages of a group have the sum 0, against the mean of the group and against that
of the others, and a batch is used once, so that every probability ratio is 1."""


class GroupTrain(Train):
    """Keys of [train] for algorithms that compare the completions of a prompt."""

    beta: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the KL divergence from the base model; 0 saves the reference pass."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Lower clip range of the probability ratio."""
    epsilon_high: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Upper clip range; DAPO takes 0.28."""
    mask_truncated_completions: bool = False
    """Leave completions that were cut out of the loss."""

    def problems(self) -> KeyProblems:
        problems = super().problems()
        if self.epsilon_high < self.epsilon:
            message = f"`epsilon_high` {self.epsilon_high} is below `epsilon` {self.epsilon}"
            hint = f"set `epsilon_high = {self.epsilon}` or higher"
            problems.append(("epsilon_high", message, hint))
        return problems


def step_of(preset: Preset) -> Step:
    """All completions of all prompts are generated at once and trained on in equal passes."""
    batch = preset.per_device_train_batch_size or preset.num_generations
    return Step(preset.prompts_per_step * preset.num_generations, batch)


def reference(train: GroupTrain) -> bool:
    """The KL divergence from the base model needs its log-probs."""
    return train.beta > 0


def arguments(train: GroupTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments that GRPOConfig and RLOOConfig share."""
    return {
        "num_generations": preset.num_generations,
        "steps_per_generation": step.passes,
        "num_iterations": 1,
        "max_completion_length": preset.max_completion_length,
        "beta": train.beta,
        "epsilon": train.epsilon,
        "epsilon_high": train.epsilon_high,
        "mask_truncated_completions": train.mask_truncated_completions,
        "sync_ref_model": False,
        "disable_dropout": False,
        "use_vllm": False,
        "use_transformers_continuous_batching": False,
        "shuffle_dataset": True,
        "log_completions": False,
    }

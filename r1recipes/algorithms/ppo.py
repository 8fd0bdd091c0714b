"""PPO: each token against what a value function expected at it, clipped (arXiv 1707.06347).

The value of a token is a linear function of the policy's last hidden state there, through which no
gradient reaches the policy: no second model is held. The reference is the model with its adapter
switched off. Limits: TRL's trainer generates with transformers, samples from the whole
distribution, uses no dropout, and has no checkpoints; TRL has it up to 1.12.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import Field

from r1recipes.algorithms.base import Algorithm, Preset, Train
from r1recipes.algorithms.step import Step
from r1recipes.config.section import KeyProblems

LEAST_TO_WHITEN = 8
"""Completions of a step below which TRL does not whiten rewards (1.12, ppo_trainer.py)."""
WHOLE = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}
"""Sampling from the whole distribution, which is that of the log-probs."""


class PpoTrain(Train):
    """The algorithm and the optimiser. trl: PPOConfig, spelled as there."""

    num_ppo_epochs: Annotated[int, Field(ge=1, le=100)] = 4
    """Updates of the policy for each step's completions, all of them in each."""
    kl_coef: Annotated[float, Field(ge=0, le=10)] = 0.05
    """Weight of the KL divergence from the base model, taken off the reward of each token."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """How the divergence is estimated: "k1" is unbiased, "k3" varies less."""
    cliprange: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clip range of the probability ratio."""
    vf_coef: Annotated[float, Field(ge=0, le=100)] = 0.1
    """Weight of the value function's loss."""
    cliprange_value: Annotated[float, Field(gt=0, le=100)] = 0.2
    """Clip range of a value around the one before the update."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount of a reward for each token before it."""
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Below 1, advantages rely on the value function more (GAE, arXiv 1506.02438)."""
    whiten_rewards: bool = False
    """Divide rewards by their standard deviation over the step."""

    def problems(self) -> KeyProblems:
        problems = super().problems()
        for key, value in WHOLE.items():
            if getattr(self, key) != value:
                message = f"PPO samples from the whole distribution: it has no `{key}`"
                problems.append((key, message, "remove this line"))
        return problems


def step_of(preset: Preset) -> Step:
    """All completions of all prompts are generated first and trained on in equal passes."""
    batch = preset.per_device_train_batch_size or preset.num_generations
    return Step(preset.prompts_per_step * preset.num_generations, batch)


def arguments(train: PpoTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of a PPOConfig, whose steps are counted in completions."""
    return {
        "total_episodes": train.max_steps * step.completions,
        "local_rollout_forward_batch_size": step.batch,
        "response_length": preset.max_completion_length,
        "stop_token": "eos",
        "temperature": train.temperature,
        "missing_eos_penalty": None,
        "num_sample_generations": 0,
        "num_mini_batches": 1,
        "num_ppo_epochs": train.num_ppo_epochs,
        "whiten_rewards": train.whiten_rewards,
        "kl_coef": train.kl_coef,
        "kl_estimator": train.kl_estimator,
        "cliprange": train.cliprange,
        "vf_coef": train.vf_coef,
        "cliprange_value": train.cliprange_value,
        "gamma": train.gamma,
        "lam": train.lam,
    }


def trainer() -> tuple[type, type]:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # no warning that it may change
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    return PPOTrainer, PPOConfig


PPO = Algorithm(
    name="ppo",
    title="PPO",
    description="Proximal policy optimisation with a value for each token",
    source="arXiv 1707.06347",
    learns_from="rewards",
    train=PpoTrain,
    arguments=arguments,
    trainer=trainer,
    step=step_of,
    reference=lambda train: True,
    timed={},
    loss_note="of the policy, near 0 by construction",
    backends=("trl",),
    resumes=False,
    compares=False,
    needs_pad=True,
    has_dropout=False,
    limits=(
        "PPO has no checkpoints: a run that is stopped while it trains begins its training anew",
        "PPO generates with transformers on every machine, on a GPU far slower than vLLM",
    ),
    metrics={"loss/policy_avg": "loss", "policy/entropy_avg": "entropy", "lr": "learning_rate"},
    logit_bytes=18.0,
)

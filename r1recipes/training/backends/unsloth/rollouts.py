"""What a trainer needs that samples completions with the engine while it trains.

`unsloth` is imported before this module. Limits: facts about the libraries hold for the versions in
`packages.READ_IN`.
"""

from typing import Any

import torch
from unsloth_zoo.vllm_utils import prepare_merged_rollout

from r1recipes.planning.plan import Plan
from r1recipes.training.backends import passes
from r1recipes.training.backends.unsloth import environment, patches, sampling
from r1recipes.training.backends.unsloth.differences import refuse_differences, rollout_differences


def prepare(trainer: Any, model: Any, plan: Plan) -> None:
    """Set up the rollouts and the passes of a trainer. Raises: RunError, see `differences`."""
    if sampling.ids_alone():
        sampling.let_train_without_logprobs(trainer)
    if environment.merges_rollouts():
        with torch.inference_mode():  # as when a rollout begins
            state = prepare_merged_rollout(model)
        refuse_differences(rollout_differences(model, state))
    if plan.algorithm.reference(plan.recipe.train):
        patches.bound_reference_pass(trainer)
    if "score" in passes.levers(plan.device):
        patches.score_completions_only(trainer)

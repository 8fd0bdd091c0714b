"""What a trainer needs that samples completions with the engine while it trains.

`unsloth` is imported before this module. Limits: facts about the libraries hold for the versions in
`packages.READ_IN`.
"""

from typing import Any

import torch
from unsloth_zoo.vllm_utils import prepare_merged_rollout
from vllm import SamplingParams

from r1recipes.planning.fit import refusals
from r1recipes.planning.plan import Plan
from r1recipes.training.backends import passes
from r1recipes.training.backends.trainer.online_dpo import PairSampler
from r1recipes.training.backends.unsloth import engine, patches, sampling
from r1recipes.training.backends.unsloth.differences import refuse_differences, rollout_differences


def prepare(trainer: Any, model: Any, plan: Plan) -> None:
    """Set up the rollouts and the passes of a trainer. Raises: RunError, see `differences`."""
    if sampling.ids_alone():
        sampling.let_train_without_logprobs(trainer)
    if refusals.merges_rollouts():
        with torch.inference_mode():  # as when a rollout begins
            state = prepare_merged_rollout(model)
        refuse_differences(rollout_differences(model, state))
    if plan.algorithm.reference(plan.recipe.train):
        patches.bound_reference_pass(trainer)
    if "score" in passes.levers():
        patches.score_completions_only(trainer)


def pair_sampler(model: Any, tokenizer: Any, plan: Plan, stops: list[int]) -> PairSampler:
    """Generates the pairs of a step with the engine, in one call; `stops`: tokens that end a
    completion and that the engine does not stop at by itself.

    TRL's trainer would call the engine for each pass with texts, of which vLLM takes the tokens
    with a second BOS (1.12, online_dpo_trainer.py, `_generate_vllm_colocate`).
    """
    params = SamplingParams(
        max_tokens=plan.preset.max_completion_length,
        repetition_penalty=plan.recipe.train.repetition_penalty,
        stop_token_ids=stops or None,
        **sampling.WITHOUT_TEXT,
        **sampling.of_plan(plan),
    )

    def sample(prompts: list[Any]) -> tuple[list[list[int]], list[list[int]]]:
        rendered = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        ids: list[list[int]] = rendered["input_ids"]
        outputs = model.vllm_engine.generate(
            [{"prompt_token_ids": row} for row in ids],
            sampling_params=params,
            lora_request=model.load_lora("online_dpo_lora", load_tensors=True),
            use_tqdm=False,
        )
        engine.rest(model.vllm_engine)
        return ids, [list(output.outputs[0].token_ids) for output in outputs]

    return sample

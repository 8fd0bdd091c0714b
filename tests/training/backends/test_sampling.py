"""What is asked of vLLM for each token, and that TRL's own trainer trains on what comes back."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from trl.generation import vllm_generation

from r1recipes import planning, recipe
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import builtin, trainer
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.unsloth import sampling

OFF: dict[str, Any] = {"vllm_importance_sampling_correction": False}
CORRECTED: dict[str, Any] = {"vllm_importance_sampling_correction": True}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (OFF, {"detokenize": False, "logprobs": None}),
        (OFF | {"off_policy_mask_threshold": None}, {"detokenize": False, "logprobs": None}),
        (OFF | {"off_policy_mask_threshold": 0.1}, {"detokenize": False}),
        (OFF | {"top_p": 1.0, "top_k": 0}, {"detokenize": False, "logprobs": None}),
        (OFF | {"top_p": 0.95, "top_k": 0}, {"detokenize": False}),
        (OFF | {"top_p": 1.0, "top_k": 50}, {"detokenize": False}),
        (CORRECTED, {"detokenize": False}),
        (
            OFF | {"generation_kwargs": {"stop_token_ids": [7]}},
            {"detokenize": False, "logprobs": None, "stop_token_ids": [7]},
        ),
        (OFF | {"generation_kwargs": {"stop": ["."]}}, {"logprobs": None, "stop": ["."]}),
        (CORRECTED | {"generation_kwargs": {"stop": ["."]}}, {"stop": ["."]}),
        (OFF | {"generation_kwargs": {"logprobs": 0}}, {"detokenize": False, "logprobs": 0}),
    ],
)
def test_text_and_log_probs_are_asked_for_only_where_something_reads_them(arguments, asked):
    given = {name: dict(v) if isinstance(v, dict) else v for name, v in arguments.items()}
    assert sampling.rollout_arguments(arguments) == asked
    assert arguments == given  # and it is not changed


class Engine:
    """An `LLM` that answers as vLLM 0.26 does: log-probs of a token where they are asked for."""

    def __init__(self, end: int):
        self.end = end
        self.asked: list[dict[str, Any]] = []

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: dict[str, Any], use_tqdm: bool
    ) -> list[SimpleNamespace]:
        self.asked.append(sampling_params)
        return [
            SimpleNamespace(
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=[self._completion(20 + number % 3, sampling_params)],
            )
            for number, prompt in enumerate(prompts)
        ]

    def _completion(self, token: int, params: dict[str, Any]) -> SimpleNamespace:
        ids = [*range(20, token + 2), self.end][: params["max_tokens"]]
        logprobs = None
        if params["logprobs"] is not None:
            logprobs = [{i: SimpleNamespace(rank=1, logprob=-0.5)} for i in ids]
        return SimpleNamespace(token_ids=ids, logprobs=logprobs)


def pay_by_length(completions: list[Any], **_: Any) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def trained(small, tmp_path, monkeypatch, generation_kwargs: dict[str, Any]) -> tuple[Any, Engine]:
    """Two steps of TRL's trainer, which generates with an `Engine` in place of vLLM's."""
    plan = planning.make(
        recipe.load(small, ["train.max_steps=2"]).recipe,
        planning.Target.here(None, 1),
        base_dir=small.parent,
    )
    tokenizer = builtin.build_tokenizer()
    engine = Engine(tokenizer.eos_token_id)
    kind = vllm_generation.VLLMGeneration
    monkeypatch.setattr(vllm_generation, "SamplingParams", dict, raising=False)
    monkeypatch.setattr(kind, "_init_vllm", lambda self: setattr(self, "llm", engine))
    monkeypatch.setattr(kind, "sync_weights", lambda self: None)  # Unsloth shares the weights
    engine_arguments = OFF | {"use_vllm": True, "vllm_mode": "colocate"}
    arguments = trainer.arguments(plan, tmp_path) | engine_arguments
    arguments["generation_kwargs"] = generation_kwargs
    question = [{"role": "user", "content": "1+1"}]
    rows = Dataset.from_list([{"prompt": question, "answer": "2"}] * 64)
    losses: list[float] = []
    hooks = Hooks(on_step=lambda row, samples: losses.append(row["loss"]))
    made = trainer.make(
        plan,
        model=builtin.build_model(1),
        tokenizer=tokenizer,
        rows=rows,
        rewards={name: Reward(name, pay_by_length) for name in plan.recipe.rewards},
        config_arguments=arguments,
        hooks=hooks,
    )
    sampling.let_train_without_logprobs(made)
    made.train()
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    return made, engine


def test_trl_trains_without_log_probs(small, tmp_path, monkeypatch):
    """Its trainer takes the first log-prob of each token without looking whether there are any."""
    asked = sampling.rollout_arguments(OFF)
    made, engine = trained(small, tmp_path, monkeypatch, asked)
    assert [(a["logprobs"], a["detokenize"]) for a in engine.asked] == [(None, False)] * 2
    batch = made._buffered_inputs[0]
    assert "sampling_per_token_logps" not in batch and "advantages" in batch


def test_a_trainer_that_asks_for_log_probs_gets_them(small, tmp_path, monkeypatch):
    made, engine = trained(small, tmp_path, monkeypatch, {"detokenize": False})
    assert [a["logprobs"] for a in engine.asked] == [0, 0]
    assert float(made._buffered_inputs[0]["sampling_per_token_logps"].min()) == -0.5


def test_without_the_repair_trl_fails(small, tmp_path, monkeypatch):
    """As long as it does, the repair is needed."""
    monkeypatch.setattr(sampling, "let_train_without_logprobs", lambda made: None)
    with pytest.raises(TypeError, match="NoneType"):
        trained(small, tmp_path, monkeypatch, {"detokenize": False, "logprobs": None})

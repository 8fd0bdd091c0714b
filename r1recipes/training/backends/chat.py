"""Base and adapter of a trained run, ready to answer one conversation at a time, token by token.

Transformers generates: it starts in seconds, and vLLM's engine would take a minute for a question.
Limits: one conversation at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, TextStreamer

from r1recipes.data.tokenizer import special_tokens
from r1recipes.errors import RecipeError
from r1recipes.planning.plan import Plan
from r1recipes.training.backends import weights
from r1recipes.training.backends.base import Messages, Sample
from r1recipes.training.backends.trainer import stop_ids


@dataclass(frozen=True)
class Sampling:
    """How an answer is sampled; at temperature 0 each token is the likeliest one."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 1024
    seed: int = 3407


class Chat:
    """Loads on construction. Raises: PlanError, RecipeError when anything cannot be loaded."""

    def __init__(
        self, plan: Plan, base: Path | None, adapter: Path, template: str, *, offline: bool
    ):
        torch.set_num_threads(plan.num_threads)  # as in training: the sums depend on it
        weights.try_template(template, plan)
        weights.check_tokenizer(adapter)
        # Any: the methods of a tokenizer return unions of types.
        self.tokenizer: Any = weights.tokenizer_of(plan, offline)
        self.tokenizer.chat_template = template
        special_tokens.settle_end(self.tokenizer)
        base_model = weights.load_base(plan, base, offline=offline)
        name = str(base or plan.recipe.model.name)
        self.model: Any = weights.with_adapter(base_model, adapter, name)

    def answer(
        self,
        messages: Messages,
        sampling: Sampling,
        adapter: bool,
        on_text: Callable[[str], None],
    ) -> Sample:
        """Answer a conversation; `on_text` gets the text in parts as it is made.

        Raises: RecipeError when the conversation leaves no room for an answer.
        """
        inputs = self.tokenizer.apply_chat_template(
            [messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)
        num_prompt = inputs["input_ids"].shape[1]
        config = self._generation(sampling, self._room(num_prompt, sampling.max_tokens))
        streamer = _Parts(self.tokenizer, on_text)
        with torch.no_grad(), weights.switched(self.model, adapter):
            torch.manual_seed(sampling.seed)
            output = self.model.generate(**inputs, generation_config=config, streamer=streamer)
        ids = output[0, num_prompt:].tolist()
        ended = bool(ids) and ids[-1] in stop_ids(self.tokenizer, self.model)
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Sample(text, len(ids), not ended)

    def _room(self, num_prompt: int, max_tokens: int) -> int:
        positions = getattr(self.model.config, "max_position_embeddings", None)
        room = max_tokens if positions is None else min(max_tokens, positions - num_prompt)
        if room < 1:
            raise RecipeError(
                f"the conversation has {num_prompt} tokens, and this model holds {positions}",
                hint="ask a shorter question, or begin anew",
            )
        return room

    def _generation(self, sampling: Sampling, max_new_tokens: int) -> GenerationConfig:
        sampled = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
        }
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=stop_ids(self.tokenizer, self.model),  # as in training
            bos_token_id=self.tokenizer.bos_token_id,
            **(sampled if sampling.temperature > 0 else {"do_sample": False}),
        )


class _Parts(TextStreamer):
    """Calls back with each part of the text that is final."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)

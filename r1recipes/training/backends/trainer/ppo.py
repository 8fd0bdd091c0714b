"""PPO with TRL's trainer: the recipe's rewards are its reward model, a linear head its value model.

TRL's trainer takes modules for both, draws one completion of each prompt, does not clip gradients,
and keeps the logits of a step and all activations (1.12, ppo_trainer.py). Limits: text alone, one
device.
"""

import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from r1recipes.algorithms import PPO
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.trainer.watch import Parts


class Values(nn.Module):
    """The value of each token of the policy's completions, with the interface of TRL's value model.

    Hidden states are those of the policy with its adapter, without a gradient.
    """

    base_model_prefix = "backbone"

    def __init__(self, policy: Any) -> None:
        super().__init__()
        causal = policy.get_base_model()
        self._trunk = (getattr(causal, causal.base_model_prefix),)  # the policy's, not a part
        self.head = nn.Linear(policy.config.get_text_config().hidden_size, 1, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def backbone(self, **inputs: Any) -> Any:
        with torch.no_grad():
            output = self._trunk[0](**inputs | {"output_hidden_states": False, "use_cache": False})
        return BaseModelOutput(hidden_states=(output.last_hidden_state,))

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states [rows, tokens, size] -> values [rows, tokens, 1]."""
        values: torch.Tensor = self.head(hidden.float())
        return values


class Rollout(nn.Module):
    """The prompts and completions of a step, and what the recipe's rewards pay for them, with the
    interface of TRL's reward model.

    TRL asks for the scores of a few completions at a time, in their order, after all of them have
    been generated; the rewards are called once, with the columns of the data.
    """

    base_model_prefix = "backbone"

    def __init__(self, parts: Parts, plan: Plan) -> None:
        super().__init__()
        self.parts, self.plan = parts, plan
        self.clock, self.collector = parts.callback.clock, parts.callback.collector
        self.pay = self.clock.timed("rewards", self._pay)
        self._generator = torch.Generator().manual_seed(plan.recipe.seed)
        self._rows: dict[str, list[Any]] = {}
        self._completions: list[list[int]] = []
        self._scores: torch.Tensor | None = None
        self._num_scored = 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The prompts of each step without end, each as often as it has completions: the rows are
        drawn one after the other in an order that is new each time all have been drawn."""
        preset, order = self.plan.preset, self._order()
        while True:
            self.clock.begin()
            drawn = [next(order) for _ in range(preset.prompts_per_step)]
            indices = [index for index in drawn for _ in range(preset.num_generations)]
            self._rows = self.parts.rows[indices]
            self._completions, self._scores, self._num_scored = [], None, 0
            yield {"input_ids": self._tokens(self._rows["prompt"])}

    def _order(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(len(self.parts.rows), generator=self._generator).tolist()

    def _tokens(self, prompts: list[Any]) -> torch.Tensor:
        tokens: torch.Tensor = self.parts.tokenizer.apply_chat_template(
            prompts,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        )["input_ids"]
        return tokens

    def add(self, completions: list[list[int]]) -> None:
        """Take completions that have been generated, up to the token that ends each."""
        ends = self.parts.ends
        for ids in completions:
            end = next((n for n, token in enumerate(ids, 1) if token in ends), len(ids))
            self._completions.append(ids[:end])

    def backbone(self, input_ids: torch.Tensor, **_: Any) -> BaseModelOutput:
        """The scores of the next completions, at each of their tokens [rows, tokens, 1]."""
        if self._scores is None:
            self._scores = self.pay().to(input_ids.device)
        start, self._num_scored = self._num_scored, self._num_scored + len(input_ids)
        scores = self._scores[start : self._num_scored]
        hidden = scores[:, None, None].expand(-1, input_ids.shape[1], 1)
        return BaseModelOutput(hidden_states=(cast(torch.FloatTensor, hidden),))

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def _pay(self) -> torch.Tensor:
        """The weighted sum of the rewards of each completion [rows]."""
        texts = self.parts.tokenizer.batch_decode(self._completions, skip_special_tokens=True)
        columns = {name: values for name, values in self._rows.items() if name != "prompt"}
        total = torch.zeros(len(texts))
        weights = self.plan.recipe.rewards.values()
        for weight, function in zip(weights, self.collector.functions(), strict=True):
            paid = function(
                prompts=self._rows["prompt"],
                completions=[[{"role": "assistant", "content": text}] for text in texts],
                completion_ids=self._completions,
                **columns,
            )
            total += weight * torch.tensor([value or 0.0 for value in paid])
        return total


def make(plan: Plan, parts: Parts) -> Any:
    """The trainer; its `train` takes the argument of the others, which must be None."""
    rollout = Rollout(parts, plan)
    parts.callback.collector.ends = parts.ends
    trainer = PPO.trainer()[0](
        args=parts.config,
        processing_class=parts.tokenizer,
        model=parts.model,
        ref_model=None,
        reward_model=rollout,
        value_model=Values(parts.model),
        train_dataset=parts.rows,
        callbacks=[parts.callback],
    )
    trainer.dataloader = rollout
    if parts.config.gradient_checkpointing:
        parts.model.gradient_checkpointing_enable()
        parts.model.enable_input_require_grads()
    norms: list[float] = []
    _clip_gradients(trainer, norms)
    _log_as_others(trainer, parts, norms)
    _let_generate(trainer, plan, parts, rollout)
    return trainer


def _clip_gradients(trainer: Any, norms: list[float]) -> None:
    """Scale gradients down to `max_grad_norm` before each update, and note their norms."""
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]

    def clip(*_: Any) -> None:
        norms.append(nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm).item())

    trainer.optimizer.optimizer.register_step_pre_hook(clip)


def _log_as_others(trainer: Any, parts: Parts, norms: list[float]) -> None:
    """Log the norm of the gradient, and the divergence from the base model for each token."""
    log, callback = trainer.log, parts.callback

    def logged(logs: dict[str, float], *args: Any) -> None:
        callback.clock.end()
        length = callback.collector.rollouts()["completions/mean_length"]
        norm = sum(norms) / len(norms)
        norms.clear()
        del logs["eps"]  # completions a second, without digits
        log(logs | {"grad_norm": norm, "kl": logs["objective/kl"] / length}, *args)

    trainer.log = logged


def _let_generate(trainer: Any, plan: Plan, parts: Parts, rollout: Rollout) -> None:
    """While it trains, let TRL's functions hold the log-probs of completions, not their logits."""
    train, module = trainer.train, sys.modules[type(trainer).__module__]
    generation = Generation(plan, parts, rollout, module)
    ours = {
        "batch_generation": generation.generate,
        "selective_log_softmax": generation.log_softmax,
    }

    def whole_train(resume_from_checkpoint: None = None) -> None:
        assert resume_from_checkpoint is None, "it writes no checkpoints"
        before = {name: getattr(module, name) for name in ours}
        try:
            for name, function in ours.items():
                setattr(module, name, function)
            train()
        finally:
            for name, function in before.items():
                setattr(module, name, function)

    trainer.train = whole_train


class Generation:
    """What TRL's trainer calls to generate. Its own keeps the logits of all tokens of a step in 32
    bits, three times over (1.12, ppo_trainer.py, `batch_generation`)."""

    def __init__(self, plan: Plan, parts: Parts, rollout: Rollout, module: Any) -> None:
        self.parts, self.rollout, self.temperature = parts, rollout, plan.recipe.train.temperature
        self._forward, self._log_softmax = module.forward, module.selective_log_softmax
        self._sample = parts.callback.clock.timed("generation", self._sampled)

    def generate(
        self, model: Any, queries: torch.Tensor, size: int, pad: int, settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts [rows, tokens] -> prompts with completions, and the log-prob of each token of the
        completions in place of its logits; `size` rows at a time."""
        settings.eos_token_id, settings.pad_token_id = self.parts.ends, pad
        settings.use_cache = True
        hooks, width = self.parts.callback.hooks, queries.shape[1]
        hooks.on_phase("generate")
        parts = [self._sample(model, rows, pad, settings) for rows in queries.split(size)]
        hooks.on_phase("train")
        longest = max(rows.shape[1] for rows in parts)
        together = torch.cat([F.pad(p, (0, longest - p.shape[1]), value=pad) for p in parts])
        self.rollout.add(together[:, width:].tolist())
        scores = [self._scored(model, rows, width, pad) for rows in together.split(size)]
        return together, torch.cat(scores)

    @torch.no_grad()
    def _sampled(self, model: Any, rows: torch.Tensor, pad: int, settings: Any) -> torch.Tensor:
        is_training = model.training
        model.eval()  # checkpointing of a model that trains turns its cache off
        output = model.generate(
            input_ids=rows, attention_mask=rows != pad, generation_config=settings
        )
        model.train(is_training)
        tokens: torch.Tensor = output
        return tokens

    @torch.no_grad()
    def _scored(self, model: Any, rows: torch.Tensor, width: int, pad: int) -> torch.Tensor:
        logits = self._forward(model, rows, pad).logits[:, width - 1 : -1]
        logits /= self.temperature + 1e-7  # as TRL has it
        logps: torch.Tensor = self._log_softmax(logits, rows[:, width:])
        return logps

    def log_softmax(self, logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The log-probs of tokens [rows, tokens], which those of `generate` are already."""
        logps: torch.Tensor = logits if logits.ndim == 2 else self._log_softmax(logits, index)
        return logps

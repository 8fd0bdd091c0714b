"""Online DPO with TRL's trainer: the pairs of a whole step are generated and paid at once.

TRL generates for each pass, which leaves an engine idle; does not divide the gradients of a step by
its passes; learns from pairs that earn the same; and copies the model for the reference unless it
makes the adapter itself (1.12, online_dpo_trainer.py). Limits: text alone, one device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from r1recipes.algorithms import ONLINE_DPO
from r1recipes.training.backends.trainer.watch import Parts

PairSampler = Callable[[list[Any]], tuple[list[list[int]], list[list[int]]]]
"""Prompts -> the token ids of each prompt, and of its completion."""


@dataclass
class Pass:
    """The completions of one forward and backward pass: first one of each prompt, then the other
    one of each."""

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    completion_ids: torch.Tensor
    completion_mask: torch.Tensor
    rewards: torch.Tensor | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.prompt_ids, self.prompt_mask, self.completion_ids, self.completion_mask


def make(parts: Parts, sampler: PairSampler | None) -> Any:
    """The trainer; `sampler` generates, or else transformers."""
    collector = parts.callback.collector
    trainer = ONLINE_DPO.trainer()[0](
        model=parts.model,
        ref_model=torch.nn.Identity(),  # else TRL copies the model
        reward_funcs=collector.functions(),
        args=parts.config,
        train_dataset=parts.rows,
        processing_class=parts.tokenizer,
        callbacks=[parts.callback],
    )
    trainer.ref_model = None  # TRL then scores the reference with the adapter switched off
    collector.ends = parts.ends
    Pairs(trainer, parts.ends, sampler).install()
    return trainer


class Pairs:
    """Replaces what an `OnlineDPOTrainer` does for each pass by what is done once for a step."""

    def __init__(self, trainer: Any, ends: list[int], sampler: PairSampler | None) -> None:
        self.trainer, self.ends = trainer, ends
        self.sampler = sampler or self._sample
        self._batches: list[dict[str, list[Any]]] = []
        """What the data have for each pass of the step."""
        self._prompts: list[list[int]] = []
        self._completions: list[list[int]] = []
        """Token ids of the step, the two of a prompt one after the other."""
        self._number = 0
        """Passes of the step that have begun."""
        self._pass: Pass | None = None
        self._rewards: torch.Tensor | None = None
        self._logps: list[torch.Tensor] = []

    def install(self) -> None:
        """Replace the methods of the trainer."""
        trainer = self.trainer
        self._get_batches, self._generate = trainer.get_batch_samples, trainer._generate
        self._pay, self._forward = trainer._calculate_rewards_from_functions, trainer._forward
        self._train = trainer.training_step
        trainer.get_batch_samples = self.get_batches
        trainer._generate = lambda model, prompts, images=None: self.next_pass().tensors
        trainer._generate_vllm = lambda prompts, images=None: self.next_pass().tensors
        trainer._calculate_rewards_from_functions = self.rewards_of_pass
        trainer._forward = self.forward
        trainer.training_step = self.train
        trainer.stats |= {"kl": [], "entropy": []}
        if not trainer.args.use_vllm:
            settings = {"eos_token_id": self.ends, "use_cache": True}
            trainer.generation_kwargs |= settings
            trainer.generation_config.update(**settings)

    def get_batches(self, *args: Any, **kwargs: Any) -> Any:
        batches, count = self._get_batches(*args, **kwargs)
        self._batches, self._number, self._rewards = batches, 0, None
        return batches, count

    def next_pass(self) -> Pass:
        """The completions of the next pass; for the first one, those of the step are generated."""
        if self._number == 0:
            prompts = [prompt for batch in self._batches for prompt in batch["prompt"]]
            twice = [prompt for prompt in prompts for _ in range(2)]
            self._prompts, completions = self.sampler(twice)
            self._completions = [self._cut(ids) for ids in completions]
        self._pass = self._passed(self._rows(self._number))
        self._number += 1
        return self._pass

    def _rows(self, number: int) -> list[int]:
        """The rows of a pass in TRL's order, by their numbers in the step."""
        sizes = [2 * len(batch["prompt"]) for batch in self._batches]
        start, size = sum(sizes[:number]), sizes[number]
        return [*range(start, start + size, 2), *range(start + 1, start + size, 2)]

    def _passed(self, rows: list[int]) -> Pass:
        prompts, prompt_mask = self._padded([self._prompts[n] for n in rows], "left")
        completions, mask = self._padded([self._completions[n] for n in rows], "right")
        return Pass(prompts, prompt_mask, completions, mask)

    def _padded(self, rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of token ids -> ids and mask [rows, longest]."""
        device, pad = self.trainer.accelerator.device, self.trainer._tokenizer.pad_token_id
        tensors = [torch.tensor(row, device=device) for row in rows]
        ids = pad_sequence(tensors, batch_first=True, padding_value=pad, padding_side=side)
        ones = [torch.ones_like(row) for row in tensors]
        return ids, pad_sequence(ones, batch_first=True, padding_side=side)

    def _cut(self, ids: list[int]) -> list[int]:
        """A completion up to the first token that ends it."""
        return ids[: next((n for n, token in enumerate(ids, 1) if token in self.ends), len(ids))]

    def _sample(self, prompts: list[Any]) -> tuple[list[list[int]], list[list[int]]]:
        """Generate with transformers. The model is set to evaluation, without dropout, since one
        that trains with checkpointing has no cache."""
        model = self.trainer.model
        is_training = model.training
        model.eval()
        # TRL samples two of each prompt: one block, then another.
        prompt_ids, prompt_mask, completion_ids, _ = self._generate(model, prompts[::2])
        model.train(is_training)
        half = len(prompts) // 2
        order = [
            row for pair in zip(range(half), range(half, 2 * half), strict=True) for row in pair
        ]
        prompt_rows = [prompt_ids[n][prompt_mask[n].bool()].tolist() for n in order]
        return prompt_rows, [completion_ids[n].tolist() for n in order]

    def rewards_of_pass(self, *args: Any, **columns: Any) -> torch.Tensor:
        """The weighted rewards [rows] of the pass that has begun last."""
        if self._rewards is None:
            self._rewards = self._rewards_of_step()
        assert self._pass is not None
        rewards = self._rewards[self._rows(self._number - 1)]
        first, second = rewards.chunk(2)
        # Without tokens a pair has the same log-probs twice, and so no gradient. TRL reads the mask
        # again after this.
        self._pass.completion_mask *= (first != second).repeat(2)[:, None]
        return rewards

    def _rewards_of_step(self) -> torch.Tensor:
        trainer = self.trainer
        texts = trainer.processing_class.batch_decode(self._completions, skip_special_tokens=True)
        columns = {
            name: [value for batch in self._batches for value in batch[name] for _ in range(2)]
            for name in self._batches[0]
        }
        paid: torch.Tensor = self._pay(
            prompts=columns.pop("prompt"),
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            completion_ids_list=self._completions,
            **columns,
        )
        return paid

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        logps: torch.Tensor = self._forward(*args, **kwargs)
        self._logps.append(logps.detach())
        return logps

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """One pass. Its gradient counts as a share of the step, and what it says of the distance
        from the base model is recorded under the names and in the units of GRPO."""
        trainer, self._logps = self.trainer, []
        trainer.accelerator.gradient_accumulation_steps = len(self._batches)
        try:
            loss = self._train(*args, **kwargs)
        finally:
            trainer.accelerator.gradient_accumulation_steps = 1
        assert self._pass is not None
        mask = self._padded([self._completions[n] for n in self._rows(self._number - 1)], "right")[
            1
        ]
        policy, reference = self._logps
        distance = reference - policy
        trainer.stats["kl"].append(_mean(distance.exp() - distance - 1, mask))
        trainer.stats["entropy"].append(_mean(-policy, mask))
        return loss


def _mean(values: torch.Tensor, mask: torch.Tensor) -> float:
    """The mean over the tokens of completions."""
    return (torch.where(mask.bool(), values, 0).sum() / mask.sum()).item()

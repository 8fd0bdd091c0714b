"""Plan -> transformers model, PEFT adapter, TRL trainer: on a CPU, or a GPU without Unsloth.

On a CPU a run with the same seed and number of threads gives the same numbers to the bit, also
when it is resumed: checkpoints carry the random state, and each optimiser step generates anew. On
a GPU sums are not ordered, so the last digits differ. Limits: one device; text models only;
transformers generates, far slower on a GPU than vLLM does.
"""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl import SFTTrainer

from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import trainer, weights
from r1recipes.training.backends.base import ColdStarted, Hooks, Messages, Sample


class TrlBackend:
    """See `base.Backend`."""

    def __init__(self, plan: Plan, *, offline: bool):
        self.plan = plan
        self.recipe = plan.recipe
        self.offline = offline
        self.model: Any = None
        self._base: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        torch.set_num_threads(plan.num_threads)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        if self._tokenizer is None:
            self._tokenizer = weights.tokenizer_of(self.plan, self.offline)
        return self._tokenizer

    def cold_start(
        self,
        rows: list[dict[str, Any]],
        folder: Path,
        start: Path | None,
        checkpoints: Path,
        resume_from: Path | None,
        hooks: Hooks,
    ) -> ColdStarted:
        set_seed(self.recipe.seed)
        model = weights.load_base(self.plan, start, offline=self.offline, is_trainable=True)
        sft_trainer = SFTTrainer(
            model=model,
            args=trainer.sft_config(self.plan, checkpoints),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer(),
            callbacks=[trainer.Progress(hooks)],
        )
        sft_trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        is_complete = sft_trainer.state.global_step >= sft_trainer.state.max_steps
        if is_complete:
            model.save_pretrained(folder)
            self.tokenizer().save_pretrained(folder)
        return ColdStarted(weights.commit(model), is_complete)

    def load(
        self, base: Path | None, adapter: Path | None, *, quantised: Path | None = None
    ) -> str | None:
        if self._base is None:
            self._base = weights.load_base(self.plan, base, offline=self.offline)
        if adapter:
            name = str(base or self.recipe.model.name)
            self.model = weights.with_adapter(self._base, adapter, name, is_trainable=True)
            return weights.commit(self._base)
        lora, preset = self.recipe.lora, self.plan.preset
        set_seed(self.recipe.seed)
        config = LoraConfig(
            r=preset.lora_rank,
            lora_alpha=self.plan.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=list(lora.target_modules),
            use_rslora=lora.use_rslora,
            bias="none",
            task_type="CAUSAL_LM",
        )
        self.model = get_peft_model(self._base, config)
        return weights.commit(self._base)

    def commit(self) -> str | None:
        return weights.commit(self._base) if self._base is not None else None

    def facts(self) -> dict[str, float]:
        return {}

    def checkpoint_bytes(self) -> int:
        return weights.checkpoint_bytes(self.model)

    def block_size(self) -> int:
        return self.recipe.eval.batch_size

    def generate(
        self, prompts: list[Messages], num_samples: int, greedy: bool, adapter: bool, hooks: Hooks
    ) -> list[list[Sample]]:
        train, preset, tokenizer = self.recipe.train, self.plan.preset, self.tokenizer()
        config = GenerationConfig(
            max_new_tokens=preset.max_completion_length,
            do_sample=not greedy,
            num_return_sequences=1 if greedy else num_samples,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=trainer.stop_ids(tokenizer, self.model),
            bos_token_id=tokenizer.bos_token_id,
            repetition_penalty=train.repetition_penalty,
            **({} if greedy else trainer.sampling(self.plan)),
        )
        size = max(1, self.recipe.eval.batch_size // config.num_return_sequences)
        groups: list[list[Sample]] = []
        is_training = self.model.training
        self.model.eval()
        devices = [self.model.device] if self.plan.device == "cuda" else []
        random_state = torch.random.fork_rng(devices=devices)
        with random_state, torch.no_grad(), weights.switched(self.model, adapter):
            torch.manual_seed(self.recipe.seed)
            for start in range(0, len(prompts), size):
                groups += self._generate_batch(prompts[start : start + size], config)
                hooks.on_progress(len(groups), len(prompts))
        self.model.train(is_training)
        return groups

    def _generate_batch(
        self, prompts: list[Messages], config: GenerationConfig
    ) -> list[list[Sample]]:
        tokenizer: Any = self.tokenizer()  # its methods return unions of types
        inputs = tokenizer.apply_chat_template(
            prompts,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        ).to(self.model.device)
        output = self.model.generate(**inputs, generation_config=config)
        samples = [self._sample(ids) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]
        n = config.num_return_sequences
        return [samples[i : i + n] for i in range(0, len(samples), n)]

    def _sample(self, ids: list[int]) -> Sample:
        tokenizer: Any = self.tokenizer()
        stops = trainer.stop_ids(tokenizer, self.model)
        end = next((n for n, token in enumerate(ids, 1) if token in stops), None)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Sample(text, len(ids[:end]), end is None)

    def train(
        self,
        rows: Dataset,
        rewards: dict[str, Reward],
        output_dir: Path,
        resume_from: Path | None,
        hooks: Hooks,
        *,
        plan: Plan | None = None,
    ) -> None:
        plan = plan or self.plan
        trl_trainer = trainer.make(
            plan,
            model=self.model,
            tokenizer=self.tokenizer(),
            rows=rows,
            rewards=rewards,
            config_arguments=trainer.arguments(plan, output_dir),
            hooks=hooks,
        )
        ends = trainer.stop_ids(self.tokenizer(), self.model)
        if plan.algorithm.samples:
            trainer.stop_at(trl_trainer, ends)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # TRL silently makes those of a 4-bit model bfloat16
                parameter.data = parameter.data.float()
        with _ended(self.model, hooks.lengths, ends):
            trl_trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

    def save_adapter(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)

    def reset(self, plan: Plan) -> None:
        self.plan, self.recipe = plan, plan.recipe
        if self.model is not None:
            self._base, self.model = self.model.unload(), None
        gc.collect()
        if plan.device == "cuda":
            torch.cuda.empty_cache()
            if self._base is not None:  # the trainer turned checkpointing on and the cache off
                self._base.gradient_checkpointing_disable()
                self._base.config.use_cache = True

    def held_bytes(self) -> int:
        if self.plan.device == "cuda":
            return torch.cuda.memory_allocated()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """Nothing runs beside this model."""


@contextlib.contextmanager
def _ended(
    model: Any, lengths: Callable[[int], list[int]] | None, ends: list[int]
) -> Iterator[None]:
    """End each completion of a model at a length that `lengths` gives; see `Hooks.lengths`."""
    if lengths is None:
        yield
        return
    generate = model.generate

    def ended(*args: Any, **options: Any) -> Any:
        count, start = options["input_ids"].shape
        end = _End(torch.tensor(lengths(count), device=model.device), start, ends)
        return generate(*args, **options, logits_processor=LogitsProcessorList([end]))

    model.generate = ended
    try:
        yield
    finally:
        del model.generate


class _End(LogitsProcessor):
    """Lets the end be sampled as the last token of a completion, and nowhere else."""

    def __init__(self, lengths: torch.Tensor, start: int, ends: list[int]):
        self._lengths, self._start, self._ends = lengths, start, ends

    def __call__(self, input_ids: Any, scores: Any) -> torch.FloatTensor:
        is_last = self._lengths.to(scores.device) == input_ids.shape[1] - self._start + 1
        scores[:, self._ends] = -torch.inf
        scores[is_last] = -torch.inf
        scores[is_last, self._ends[0]] = 0.0
        ended: torch.FloatTensor = scores
        return ended

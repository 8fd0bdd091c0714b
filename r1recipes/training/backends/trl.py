"""Plan -> transformers model, PEFT adapter, TRL trainer: on a CPU, or a GPU without Unsloth.

On a CPU a run with the same seed and number of threads gives the same numbers to the bit, also
when it is resumed: checkpoints carry the random state, and each optimiser step generates anew. On
a GPU sums are not ordered, so the last digits differ. Limits: one device; text models only;
generation is transformers', so a GPU is used far below what vLLM gets from it.
"""

import contextlib
import gc
import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    set_seed,
)
from trl import SFTTrainer

from r1recipes.planning.plan import Plan
from r1recipes.recipe.schema import BUILTIN_MODELS
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import builtin, trainer
from r1recipes.training.backends.base import Hooks, Messages, Sample
from r1recipes.training.backends.weights import _nf4, checkpoint_bytes, load_tokenizer, resolve_name


class TrlBackend:
    """See `backends.Backend`."""

    def __init__(self, plan: Plan, *, offline: bool):
        self.plan = plan
        self.recipe = plan.recipe
        self.offline = offline
        self.model: Any = None
        self._weights: Any = None
        self._tokenizer: Any = None
        torch.set_num_threads(plan.num_threads)

    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.recipe.model, self.plan.base_dir, self.offline)
        return self._tokenizer

    def cold_start(self, rows: list[dict[str, Any]], folder: Path, hooks: Hooks) -> str | None:
        set_seed(self.recipe.seed)
        model = self.load_weights(None, trainable=True)
        cold = SFTTrainer(
            model=model,
            args=trainer.sft_config(self.plan, folder),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer(),
            callbacks=[trainer.Progress(hooks)],
        )
        cold.train()
        model.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)
        return getattr(model.config, "_commit_hash", None)

    def load(self, base: Path | None, adapter: Path | None) -> str | None:
        weights = self._weights if self._weights is not None else self.load_weights(base)
        self._weights = weights
        if adapter:
            self.model = PeftModel.from_pretrained(weights, adapter)
            return getattr(weights.config, "_commit_hash", None)
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
        self.model = get_peft_model(weights, config)
        return getattr(weights.config, "_commit_hash", None)

    def checkpoint_bytes(self) -> int:
        return checkpoint_bytes(self.model)

    def load_weights(self, base: Path | None, *, trainable: bool = False) -> Any:
        """The base in the precision of the plan; `trainable`: not quantised, and not in float16,
        whose gradients cannot be unscaled."""
        if base is None and self.recipe.model.name in BUILTIN_MODELS:
            return builtin.build_model(self.recipe.seed, self.recipe.model.name)
        name = str(base) if base else resolve_name(self.recipe.model.name, self.plan.base_dir)
        options: dict[str, Any] = {"dtype": getattr(torch, self.plan.dtype)}
        if trainable and self.plan.dtype == "float16":
            options["dtype"] = torch.float32
        if self.plan.preset.load_in_4bit and not trainable:
            options["quantization_config"] = _nf4(self.plan.dtype)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=None if base else self.recipe.model.revision,
            local_files_only=self.offline,
            trust_remote_code=False,  # left open, transformers would ask at the terminal
            device_map={"": self.plan.device},
            **options,
        )
        return model

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
        self.model.eval()
        devices = [self.model.device] if self.plan.device == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), self.switched(adapter):
            torch.manual_seed(self.recipe.seed)
            for start in range(0, len(prompts), size):
                groups += self._generate_batch(prompts[start : start + size], config)
                hooks.on_progress(len(groups), len(prompts))
        return groups

    def switched(self, enabled: bool) -> Any:
        """With the adapter, or without it, for a `with`."""
        return contextlib.nullcontext() if enabled else self.model.disable_adapter()

    def _generate_batch(self, prompts: list[Messages], config: Any) -> list[list[Sample]]:
        tokenizer = self.tokenizer()
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
        tokenizer = self.tokenizer()
        stops = trainer.stop_ids(tokenizer, self.model)
        end = next((n for n, token in enumerate(ids, 1) if token in stops), None)
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Sample(text, len(ids[:end]), end is None)

    def train(
        self,
        rows: Any,
        rewards: dict[str, Reward],
        output_dir: Path,
        resume_from: Path | None,
        hooks: Hooks,
    ) -> None:
        made = trainer.make(
            self.plan,
            model=self.model,
            tokenizer=self.tokenizer(),
            rows=rows,
            rewards=rewards,
            arguments=trainer.arguments(self.plan, output_dir),
            hooks=hooks,
        )
        trainer.stop_at(made, trainer.stop_ids(self.tokenizer(), self.model))
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # of a 4-bit model TRL makes them bfloat16, without a word
                parameter.data = parameter.data.float()
        made.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

    def save_adapter(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)

    def reset(self, plan: Plan) -> None:
        self.plan, self.recipe = plan, plan.recipe
        if self.model is not None:
            self._weights, self.model = self.model.unload(), None
        gc.collect()
        if plan.device == "cuda":
            torch.cuda.empty_cache()
            if self._weights is not None:  # which the trainer turned on
                self._weights.gradient_checkpointing_disable()
                self._weights.config.use_cache = True

    def held_bytes(self) -> int:
        if self.plan.device == "cuda":
            return torch.cuda.memory_allocated()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """Nothing runs beside this model."""

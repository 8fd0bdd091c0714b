"""Plan -> Unsloth model that shares its weights with a vLLM engine in this process -> TRL trainer.

`unsloth` is imported before trl, transformers and peft, which it patches; nothing else may import
them first. What was asked for and what the stack made of it are compared after loading, and a
difference stops the run: Unsloth lowers max_seq_length, raises batch sizes and drops unknown
arguments with no more than a printed line. Limits: one NVIDIA GPU; numbers of two runs differ in
the last digits. Facts on the libraries are from unsloth and unsloth_zoo 2026.10.7, vllm 0.26.0.
"""

import unsloth  # isort: skip
import contextlib
import copy
import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from transformers import set_seed
from unsloth import FastLanguageModel
from vllm import SamplingParams

from r1recipes.errors import PlanError
from r1recipes.machine import settings
from r1recipes.planning.memory.predict import OUTSIDE_TORCH, TORCH_SHARE
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import builtin, nf4, trainer
from r1recipes.training.backends.base import Hooks, Messages, Sample
from r1recipes.training.backends.unsloth import child, patches
from r1recipes.training.backends.unsloth.differences import (
    adapter_differences,
    argument_differences,
    engine_differences,
    refuse_differences,
    refuse_second_try,
)
from r1recipes.training.backends.weights import (
    at_commit,
    checkpoint_bytes,
    load_tokenizer,
    resolve_name,
)

assert unsloth  # imported for what it does


class UnslothBackend:
    """See `backends.Backend`."""

    def __init__(self, plan: Plan, *, offline: bool):
        self.plan = plan
        self.recipe = plan.recipe
        self.offline = offline
        self.model: Any = None
        self.trainer: Any = None
        self._tokenizer: Any = None
        self._stop: list[int] = []
        """Tokens that end a completion and that the engine does not stop at by itself."""
        self._commit: str | None = None

    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.recipe.model, self.plan.base_dir, self.offline)
        return self._tokenizer

    def cold_start(self, rows: list[dict[str, Any]], folder: Path, hooks: Hooks) -> str | None:
        """In a child process with plain TRL: this process's is patched, and its memory is ours."""
        template = self.tokenizer().chat_template
        return child.in_child(self.plan, template, rows, folder, hooks, offline=self.offline)

    def load(self, base: Path | None, adapter: Path | None) -> str | None:
        if self.model is None:
            self._load_engine(base)
        else:
            self._add_fresh_adapter()
        if adapter:
            from safetensors.torch import load_file

            weights = load_file(adapter / "adapter_model.safetensors")
            set_peft_model_state_dict(self.model, weights)
        return self._revision()

    def _revision(self) -> str | None:
        """The commit of the weights, where they are from the repository that the recipe names.

        Of a model that it knows Unsloth loads the 4-bit form from another one, and a resume could
        not find that commit in the recipe's.
        """
        if self._commit:
            return self._commit
        if self.plan.preset.load_in_4bit and not self.recipe.model.name.endswith("bnb-4bit"):
            return None
        return getattr(self.model.config, "_commit_hash", None)

    def _load_engine(self, base: Path | None) -> None:
        preset, lora = self.plan.preset, self.recipe.lora
        limit_allocator(self.plan)
        model, tokenizer = FastLanguageModel.from_pretrained(
            model_name=self._weights(base),
            max_seq_length=preset.max_seq_length,
            dtype=getattr(torch, self.plan.dtype),
            load_in_4bit=preset.load_in_4bit,
            fast_inference=True,
            gpu_memory_utilization=share_of_free(self.plan),
            max_lora_rank=preset.lora_rank,
            max_num_seqs=self.plan.max_num_seqs,
            random_state=self.recipe.seed,
            disable_log_stats=True,
            local_files_only=self.offline,
            use_exact_model_name=preset.load_in_4bit,  # as `_weights` has chosen it
        )
        own = self.tokenizer()
        if not builtin.is_own(own):  # else Unsloth's has another splitting: see `load_tokenizer`
            tokenizer.chat_template = own.chat_template  # as preflight has checked it
            tokenizer.padding_side = "left"
            if own.eos_token != tokenizer.eos_token:  # the engine has read the model's own
                tokenizer.eos_token, self._stop = own.eos_token, [own.eos_token_id]
            if own.pad_token != own.eos_token:  # else Unsloth has found one, or added it
                tokenizer.pad_token = own.pad_token
            self._tokenizer = tokenizer
        refuse_second_try(model, self.plan)
        refuse_differences(engine_differences(model, self.plan))
        self.model = FastLanguageModel.get_peft_model(
            model,
            r=preset.lora_rank,
            lora_alpha=self.plan.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=list(lora.target_modules),
            use_rslora=lora.use_rslora,
            bias="none",
            use_gradient_checkpointing="unsloth",
            random_state=self.recipe.seed,
        )
        refuse_differences(adapter_differences(self.model, self.plan))

    def _add_fresh_adapter(self) -> None:
        """A new adapter in place of a trained one, drawn as PEFT draws that of a new model.

        Unsloth has patched the layers for an adapter of this form, and the engine has room for its
        rank, so only numbers may differ from the one before (`warm.engine_key`).
        """
        # A new object: the engine is told of a config once (unsloth_zoo, `_live_lora_config`).
        config = copy.deepcopy(self.model.peft_config["default"])
        self.model.delete_adapter("default")
        config.lora_alpha = self.plan.lora_alpha
        set_seed(self.recipe.seed)
        self.model.add_adapter("default", config)
        self.model.set_adapter("default")

    def reset(self, plan: Plan) -> None:
        self.plan, self.recipe, self.trainer = plan, plan.recipe, None
        gc.collect()
        torch.cuda.empty_cache()

    def held_bytes(self) -> int:
        return torch.cuda.memory_allocated() + patches.paged_bytes()

    def _weights(self, base: Path | None) -> str:
        """What Unsloth is to load: where 4 bits are asked for, the published NF4 form of a Hub id.

        A Hub id without one, or at a revision (the engine would load the default branch), becomes a
        folder, and a 16-bit folder goes to NF4 first.
        """
        wanted = self.recipe.model
        name = str(base) if base else resolve_name(wanted.name, self.plan.base_dir)
        four_bit = self.plan.preset.load_in_4bit
        if not Path(name).is_dir():
            published = published_in_4bit(name) if four_bit else name
            if published and not wanted.revision:
                return published
            name = str(at_commit(name, wanted.revision, self.offline))
            self._commit = Path(name).name
        folder = Path(name)
        if not four_bit or nf4.is_quantised(folder):
            return name
        cache = (base.parent if base else settings.load().cache_dir) / "nf4"
        return str(nf4.cached(folder, cache, getattr(torch, self.plan.dtype)))

    def checkpoint_bytes(self) -> int:
        return checkpoint_bytes(self.model)

    def generate(
        self, prompts: list[Messages], num_samples: int, greedy: bool, adapter: bool, hooks: Hooks
    ) -> list[list[Sample]]:
        tokenizer, size = self.tokenizer(), self.recipe.eval.batch_size
        ids = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        params = SamplingParams(
            n=1 if greedy else num_samples,
            max_tokens=self.plan.preset.max_completion_length,
            seed=self.recipe.seed,
            repetition_penalty=self.recipe.train.repetition_penalty,
            stop_token_ids=self._stop or None,
            **({"temperature": 0.0} if greedy else sampling(self.plan)),
        )
        groups: list[list[Sample]] = []
        with self._lora_request(adapter) as lora:
            for start in range(0, len(ids), size):
                batch = [{"prompt_token_ids": row} for row in ids[start : start + size]]
                outputs = self.model.fast_generate(
                    batch, sampling_params=params, lora_request=lora, use_tqdm=False
                )
                groups += [[_sample(o, tokenizer) for o in out.outputs] for out in outputs]
                hooks.on_progress(len(groups), len(ids))
        return groups

    @contextlib.contextmanager
    def _lora_request(self, adapter: bool) -> Any:
        """The engine applies an adapter only when it is told to in each request."""
        if not adapter:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_lora(folder)
            yield self.model.load_lora(folder)

    def train(
        self,
        rows: Any,
        rewards: dict[str, Reward],
        output_dir: Path,
        resume_from: Path | None,
        hooks: Hooks,
    ) -> None:
        asked = trainer.arguments(self.plan, output_dir) | ENGINE_ARGUMENTS
        if self._stop:
            asked["generation_kwargs"] = {"stop_token_ids": self._stop}
        self.trainer = trainer.make(
            self.plan,
            model=self.model,
            tokenizer=self.tokenizer(),
            rows=rows,
            rewards=rewards,
            arguments=asked,
            hooks=hooks,
        )
        refuse_differences(argument_differences(asked, self.trainer.args))
        if self.plan.algorithm.reference(self.recipe.train):
            patches.bound_reference_pass(self.trainer)
        self.trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

    def save_adapter(self, folder: Path) -> None:
        self.model.save_lora(str(folder))
        self.tokenizer().save_pretrained(folder)

    def close(self) -> None:
        """Shut the engine down; else NCCL warns at exit of a process group that was left.

        After a CUDA error each call of CUDA raises it again, also here: the first one is told.
        """
        with contextlib.suppress(Exception):
            if self.model is not None:
                self.model.vllm_engine.llm_engine.engine_core.shutdown()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


ENGINE_ARGUMENTS = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    # One update per batch: the ratio is 1 up to the engine's rounding, and a pass is saved.
    "vllm_importance_sampling_correction": False,
    # Else chosen from the memory that happens to be free in each step.
    "unsloth_grpo_mini_batch": 1,
    # The length of a part of the logits is set by backends._prepare_unsloth.
    "unsloth_logit_chunk_multiplier": 1,
}


def published_in_4bit(name: str) -> str | None:
    """The repository of a model's weights in NF4, of those that Unsloth knows; None without one.

    Left to itself Unsloth takes the "dynamic" form, some of whose layers are in 16 bits: larger
    than what is predicted and was measured (`-unsloth-bnb-4bit`, unsloth/models/mapper.py).
    """
    from unsloth.models.loader_utils import BAD_MAPPINGS
    from unsloth.models.mapper import FLOAT_TO_INT_MAPPER

    if name.lower().endswith("-bnb-4bit"):
        return name
    dynamic = FLOAT_TO_INT_MAPPER.get(name.lower(), "")
    plain = dynamic.replace("-unsloth-bnb-4bit", "-bnb-4bit")
    known = dynamic and FLOAT_TO_INT_MAPPER.get(plain.lower(), plain) == dynamic
    return plain if known and plain.lower() not in BAD_MAPPINGS else None


def sampling(plan: Plan) -> dict[str, Any]:
    """Sampling settings of the recipe under vLLM's names; there, top_k is off at -1."""
    train = plan.recipe.train
    return {
        "temperature": train.temperature,
        "top_p": train.top_p,
        "top_k": train.top_k or -1,
        "min_p": train.min_p or 0.0,
    }


def limit_allocator(plan: Plan) -> None:
    """Let torch give back what it has cached before the card is full.

    It keeps freed blocks until an allocation fails, and what others need then, cuBLAS or the
    engine's graphs, fails in its place. In standby the engine's released pool counts as taken
    although it is not, so there is no limit.
    """
    if plan.preset.standby or plan.usable_bytes is None:
        return
    free, total = torch.cuda.mem_get_info()
    limit = min(free, TORCH_SHARE * min(plan.usable_bytes, total) - OUTSIDE_TORCH)
    torch.cuda.set_per_process_memory_fraction(max(0.0, limit / total))


def share_of_free(plan: Plan) -> float:
    """The recipe's share of the card's usable memory as Unsloth means it: a share of what is free.

    Raises: PlanError when less is free than the engine may take.
    """
    free, _ = torch.cuda.mem_get_info()
    utilization = plan.preset.gpu_memory_utilization
    assert utilization is not None and plan.usable_bytes is not None, "a GPU preset has both"
    wanted = utilization * plan.usable_bytes
    if wanted > free:
        raise PlanError(
            f"the engine may take {wanted / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of the card "
            "are free",
            hint="end the other processes on the card, or set a lower `gpu_memory_utilization`",
        )
    return wanted / free


def _sample(output: Any, tokenizer: Any) -> Sample:
    text = tokenizer.decode(output.token_ids, skip_special_tokens=True)
    return Sample(text, len(output.token_ids), output.finish_reason == "length")

"""Plan -> Unsloth model that shares its weights with a vLLM engine in this process -> TRL trainer.

`unsloth` is imported before trl, transformers and peft, which it patches; nothing else may import
them first. After loading, what the plan asks for is compared with what the stack made of it, and a
difference stops the run (`differences`). Limits: one NVIDIA GPU; numbers of two runs differ in the
last digits; facts about the libraries hold for the versions in `packages.READ_IN`.
"""

import unsloth  # isort: skip
import contextlib
import copy
import functools
import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import set_peft_model_state_dict
from transformers import PreTrainedTokenizerBase, set_seed
from unsloth import FastLanguageModel
from vllm import SamplingParams

from r1recipes.algorithms import ONLINE_DPO
from r1recipes.machine import settings
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import builtin, quantised, trainer, weights
from r1recipes.training.backends.base import ColdStarted, Hooks, Messages, Sample
from r1recipes.training.backends.unsloth import (
    cold_start,
    engine,
    environment,
    lengths,
    patches,
    rollouts,
    sampling,
    scheduling,
)
from r1recipes.training.backends.unsloth.differences import (
    adapter_differences,
    argument_differences,
    engine_differences,
    refuse_differences,
    refuse_second_try,
)

assert unsloth  # imported for its patches


class UnslothBackend:
    """See `base.Backend`."""

    def __init__(self, plan: Plan, *, offline: bool):
        self.plan = plan
        self.recipe = plan.recipe
        self.offline = offline
        self.model: Any = None
        self.trainer: Any = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._stop: list[int] = []
        """Tokens that end a completion and that the engine does not stop at by itself."""
        self._commit: str | None = None

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
        """In a child process: TRL is patched here, and the memory of the training is given back."""
        return cold_start.in_child(
            self.plan,
            self.tokenizer().chat_template,
            rows,
            folder,
            start,
            checkpoints,
            resume_from,
            hooks,
            offline=self.offline,
        )

    def load(
        self, base: Path | None, adapter: Path | None, *, quantised: Path | None = None
    ) -> str | None:
        if self.model is None:
            self._load_engine(base, quantised)
        else:
            self._add_fresh_adapter()
        if adapter:
            from safetensors.torch import load_file

            state = load_file(adapter / "adapter_model.safetensors")
            set_peft_model_state_dict(self.model, state)
        return self._revision()

    def _revision(self) -> str | None:
        """The commit of the weights, where they are from the repository that the recipe names.

        Unsloth loads the 4-bit form of a known model from another repository, and a resume would
        not find that commit in the recipe's repository.
        """
        if self._commit:
            return self._commit
        if self.plan.preset.weights == "4bit" and not references.is_4bit_name(
            self.recipe.model.name
        ):
            return None
        return weights.commit(self.model)

    def _load_engine(self, base: Path | None, quantised: Path | None) -> None:
        preset, lora = self.plan.preset, self.recipe.lora
        engine.limit_allocator(self.plan)
        scheduling.prepare()
        with patches.engine_arguments(functools.partial(engine.follow, self.plan)):
            model, tokenizer = FastLanguageModel.from_pretrained(
                model_name=self._weights(base, quantised),
                max_seq_length=preset.max_seq_length,
                dtype=getattr(torch, self.plan.dtype),
                load_in_4bit=preset.weights == "4bit",
                load_in_fp8=False,  # the folder has FP8 weights: nothing is quantised while loading
                fast_inference=True,
                gpu_memory_utilization=engine.share_of_free(self.plan),
                float8_kv_cache=preset.kv_cache_dtype == "fp8",
                max_lora_rank=preset.lora_rank,
                max_num_seqs=self.plan.max_num_seqs,
                random_state=self.recipe.seed,
                disable_log_stats=True,
                local_files_only=self.offline,
                use_exact_model_name=preset.weights != "16bit",  # as `_weights` has chosen it
            )
        if preset.weights == "fp8":
            patches.take_rows_of_fp8(model)
        checked = self.tokenizer()
        if not builtin.is_own(checked):  # Unsloth would split text otherwise: `load_tokenizer`
            tokenizer.chat_template = checked.chat_template  # as preflight has checked it
            tokenizer.padding_side = "left"
            if checked.eos_token != tokenizer.eos_token:  # the engine has read the model's own
                tokenizer.eos_token, self._stop = checked.eos_token, [checked.eos_token_id]
            if checked.pad_token != checked.eos_token:  # else Unsloth has found one, or added it
                tokenizer.pad_token = checked.pad_token
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
            use_gradient_checkpointing=environment.checkpointing(),
            checkpoint_skip_layers=preset.layers_not_recomputed,
            random_state=self.recipe.seed,
        )
        patches.draw_on_fp8(self.model, self.plan)
        refuse_differences(adapter_differences(self.model, self.plan))

    def _add_fresh_adapter(self) -> None:
        """Replace a trained adapter by a new one, drawn as PEFT draws that of a new model.

        Unsloth has patched the layers for an adapter of this form, and the engine has room for its
        rank, so only numbers may differ from the adapter before (`warm.engine_key`).
        """
        # A new object: each config object reaches the engine once (unsloth_zoo,
        # `_live_lora_config`).
        config = copy.deepcopy(self.model.peft_config["default"])
        self.model.delete_adapter("default")
        config.lora_alpha = self.plan.lora_alpha
        set_seed(self.recipe.seed)
        self.model.add_adapter("default", config)
        self.model.set_adapter("default")
        patches.draw_on_fp8(self.model, self.plan)

    def reset(self, plan: Plan) -> None:
        self.plan, self.recipe, self.trainer = plan, plan.recipe, None
        gc.collect()
        torch.cuda.empty_cache()

    def held_bytes(self) -> int:
        return torch.cuda.memory_allocated() + patches.paged_bytes()

    def _weights(self, base: Path | None, own: Path | None = None) -> str:
        """The name or folder that Unsloth loads; in 4 bits the published NF4 form of a Hub id.

        A Hub id without such a form, or at a revision (the engine would load the default branch),
        is downloaded to a folder first. A 16-bit folder is converted to NF4 or FP8.
        """
        model = self.recipe.model
        name = str(base) if base else weights.resolve_name(model.name, self.plan.base_dir)
        form = quantised.FORMS.get(self.plan.preset.weights)
        if not Path(name).is_dir():
            is_4bit = self.plan.preset.weights == "4bit"
            published = published_in_4bit(name) if is_4bit else None if form else name
            if published and not model.revision:
                return published
            name = str(weights.at_commit(name, model.revision, self.offline))
            self._commit = Path(name).name
        folder = Path(name)
        if form is None or quantised.is_quantised(folder):
            return name
        cache = own if base and own else settings.load().cache_dir / form.name
        return str(quantised.cached(folder, cache, getattr(torch, self.plan.dtype), form))

    def commit(self) -> str | None:
        return self._commit or weights.commit(self.model)

    def facts(self) -> dict[str, float]:
        return engine.facts(self.model.vllm_engine)

    def checkpoint_bytes(self) -> int:
        return weights.checkpoint_bytes(self.model)

    def block_size(self) -> int:
        return sampling.COMPLETIONS_PER_BLOCK // self.plan.preset.num_generations

    def generate(
        self, prompts: list[Messages], num_samples: int, greedy: bool, adapter: bool, hooks: Hooks
    ) -> list[list[Sample]]:
        tokenizer: Any = self.tokenizer()  # its methods return unions of types
        size = sampling.PROMPTS_PER_CALL
        ids = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        params = SamplingParams(
            n=1 if greedy else num_samples,
            max_tokens=self.plan.preset.max_completion_length,
            seed=self.recipe.seed,
            repetition_penalty=self.recipe.train.repetition_penalty,
            stop_token_ids=self._stop or None,
            **sampling.WITHOUT_TEXT,
            **({"temperature": 0.0} if greedy else sampling.of_plan(self.plan)),
        )
        groups: list[list[Sample]] = []
        # In standby the engine wakes up here, and sleeps again after the next step's completions
        # (unsloth_zoo, vllm_utils.py, `get_patched_generate`). Each request has its seed, and what
        # else it draws is not taken from the numbers that training draws.
        random_state = torch.random.fork_rng(devices=[self.model.device])
        with random_state, self._lora_request(adapter) as lora:
            for start in range(0, len(ids), size):
                outputs = self.model.fast_generate(
                    [{"prompt_token_ids": row} for row in ids[start : start + size]],
                    sampling_params=params,
                    lora_request=lora,
                    use_tqdm=sampling.progress(hooks, start, len(ids), params.n),
                )
                groups += [[sampling.sample(o, tokenizer) for o in out.outputs] for out in outputs]
        if not self.plan.algorithm.samples:  # no later generation will put it to sleep
            engine.rest(self.model.vllm_engine)
        return groups

    @contextlib.contextmanager
    def _lora_request(self, adapter: bool) -> Iterator[Any]:
        """The engine applies an adapter only to requests that name it."""
        if not adapter:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_lora(folder)
            yield self.model.load_lora(folder)

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
        arguments = trainer.arguments(plan, output_dir)
        sampler = None
        if plan.algorithm is ONLINE_DPO:
            patches.return_logits()
            sampler = rollouts.pair_sampler(self.model, self.tokenizer(), plan, self._stop)
        elif plan.algorithm.samples:
            arguments |= engine.ARGUMENTS
            if self._stop:
                arguments["generation_kwargs"] = {"stop_token_ids": self._stop}
            if sampling.ids_alone():
                arguments["generation_kwargs"] = sampling.rollout_arguments(arguments)
        else:
            patches.return_logits()
            engine.rest(self.model.vllm_engine)
        with patches.without_engine(self.model) if sampler else contextlib.nullcontext():
            self.trainer = trainer.make(
                plan,
                model=self.model,
                tokenizer=self.tokenizer(),
                rows=rows,
                rewards=rewards,
                config_arguments=arguments,
                hooks=hooks,
                sampler=sampler,
            )
        refuse_differences(argument_differences(arguments, self.trainer.args))
        if plan.algorithm.samples and sampler is None:
            rollouts.prepare(self.trainer, self.model, plan)
        with lengths.ended(self.trainer, hooks.lengths):
            self.trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

    def save_adapter(self, folder: Path) -> None:
        self.model.save_lora(str(folder))
        self.tokenizer().save_pretrained(folder)

    def close(self) -> None:
        """Shut the engine down; else NCCL warns at exit about a process group that was left.

        After a CUDA error every call of CUDA raises it again, also here: only the first one is
        reported.
        """
        with contextlib.suppress(Exception):
            if self.model is not None:
                self.model.vllm_engine.llm_engine.engine_core.shutdown()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def published_in_4bit(name: str) -> str | None:
    """The repository with a model's weights in NF4, if Unsloth knows one; else None.

    By default Unsloth takes the "dynamic" form, which has some layers in 16 bits and is larger than
    what is predicted and was measured (`-unsloth-bnb-4bit`, unsloth/models/mapper.py).
    """
    from unsloth.models.loader_utils import BAD_MAPPINGS
    from unsloth.models.mapper import FLOAT_TO_INT_MAPPER

    if references.is_4bit_name(name):
        return name
    dynamic = FLOAT_TO_INT_MAPPER.get(name.lower(), "")
    plain = dynamic.replace("-unsloth-bnb-4bit", "-bnb-4bit")
    exists = dynamic and FLOAT_TO_INT_MAPPER.get(plain.lower(), plain) == dynamic
    return plain if exists and plain.lower() not in BAD_MAPPINGS else None

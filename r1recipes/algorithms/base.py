"""What algorithms share: the keys of [train] and of a preset, and the row that describes one.

An algorithm is one module and one row of `ALGORITHMS`: everything about it that is not drawn or
measured. Limits: TRL is not imported before a backend asks for a trainer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from r1recipes.algorithms.examples import Learned
from r1recipes.algorithms.step import PassRules, Step
from r1recipes.config.section import (
    ADDED_LATER,
    AUTO,
    AutoBool,
    AutoCount,
    AutoLayers,
    AutoShare,
    KeyProblems,
    Section,
    Steps,
    refuse,
)


class Train(Section):
    """The optimiser and the sampling. transformers: TrainingArguments, spelled as there."""

    max_steps: Steps = 300
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Peak learning rate; about ten times that of full fine-tuning."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "cosine"
    """Course of the learning rate after the warmup. "constant" has no warmup."""
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = (
        "adamw_torch"
    )
    """Optimiser; the 8-bit ones need an NVIDIA GPU."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pull of the adapter's weights towards 0, that is, towards the base model."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Gradients are scaled down to this norm."""
    temperature: Annotated[float, Field(gt=0, lt=10)] = 1.0
    """Sampling temperature of the rollouts and of the sampled evaluation."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of the sampling; 1 turns it off."""
    top_k: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Only the k likeliest tokens are sampled; 0 turns it off."""
    min_p: Annotated[float | None, Field(ge=0, le=1, examples=[0.05])] = None
    """Tokens below this share of the likeliest one's probability are not sampled."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Above 1, tokens that occurred become less likely."""
    save_steps: Steps = 25
    """Steps between two checkpoints; the last two are kept."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self.problems())
        return self

    def problems(self) -> KeyProblems:
        """Keys that contradict one another, as `(key, message, hint)`."""
        if self.lr_scheduler_type == "constant" and self.warmup_ratio > 0:
            message = f'"constant" ignores `warmup_ratio` {self.warmup_ratio}'
            hint = 'set `lr_scheduler_type = "constant_with_warmup"` or `warmup_ratio = 0.0`'
            return [("lr_scheduler_type", message, hint)]
        return []


Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Lora(Section):
    """The adapter, apart from its rank, which depends on the card. peft: LoraConfig."""

    lora_alpha: Annotated[int | None, Field(ge=1, le=4096, examples=[32])] = None
    """Scale of the adapter; without it equal to lora_rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of adapter inputs that are zeroed in training."""
    target_modules: Annotated[list[Projection], Field(min_length=1)] = [*get_args(Projection)]
    """Layers that get an adapter. All linear layers learn best (arXiv 2106.09685 took fewer)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) in place of alpha / rank."""


LoadIn = Literal["4bit", "fp8", "16bit"]
"""How the weights of the linear layers lie in memory: NF4, FP8 with a scale for each output
channel, or the precision that the model is trained in."""
OTHER_NAMES = {"load_in": "load_in_4bit", "load_in_4bit": "load_in"}
"""Keys of a preset that set the same thing, by each other: the later of two flags counts."""
_OLD_VALUES: dict[str, bool | str] = {"4bit": True, "16bit": False, AUTO: AUTO}
"""A value of `load_in` -> that of `load_in_4bit`, under which files have kept it since before there
was `load_in`."""
KvCacheDtype = Literal["int8_per_token_head", "fp8"]
"""vLLM's names for 8 bits: with a scale for each token and head, or without any."""


class Preset(Section):
    """What depends on the card's memory. Values that may be "auto" are chosen by the planner."""

    load_in: Annotated[
        Literal["4bit", "fp8", "16bit", "auto"] | None, ADDED_LATER, Field(examples=["4bit"])
    ] = None
    """Base weights as 4-bit NF4, a memory tool, in 16 bits (the default), faster where they fit, or
    in FP8, for cards from compute capability 8.9 on. "auto" takes 4bit or 16bit."""
    load_in_4bit: AutoBool = False
    """Older name: true is load_in = "4bit", false "16bit"."""
    max_seq_length: Annotated[int, Field(ge=16, le=1_000_000, examples=[2048])]
    """Tokens of prompt and completion together at most."""
    max_completion_length: Annotated[int, Field(ge=1, le=1_000_000, examples=[768])]
    """Tokens of a completion at most; the prompt gets the rest of max_seq_length."""
    lora_rank: Annotated[int, Field(ge=1, le=512, examples=[32])]
    """Rank of the adapter."""
    num_generations: Annotated[int, Field(ge=2, le=1024, examples=[8])]
    """Completions for each prompt, that is, the size of a group; for sft and dpo, the samples of a
    problem that examples are chosen from."""
    prompts_per_step: Annotated[AutoCount, Field(examples=[4])]
    """Prompts in an optimiser step; a step has prompts_per_step x num_generations completions, for
    sft and dpo prompts_per_step examples."""
    per_device_train_batch_size: Annotated[AutoCount | None, Field(examples=[8])] = None
    """Completions in one forward and backward pass; without it num_generations."""
    gpu_memory_utilization: Annotated[AutoShare | None, Field(examples=[0.5])] = None
    """Share of the card's usable memory that the vLLM engine may take."""
    standby: AutoBool = False
    """Give the engine's KV cache back while training; saves memory, costs time in each step."""
    layers_not_recomputed: Annotated[AutoLayers, ADDED_LATER, Field(examples=[8])] = 0
    """Decoder layers whose activations a training pass keeps instead of computing them again in its
    backward pass: more memory, and with all layers, or a number above theirs, a third less
    arithmetic. Needs Unsloth."""
    kv_cache_dtype: Annotated[
        KvCacheDtype | None, ADDED_LATER, Field(examples=["int8_per_token_head"])
    ] = None
    """How vLLM stores keys and values; without it in 16 bits, of which these are about half."""
    num_threads: Annotated[int | None, Field(ge=1, le=1024, examples=[1])] = None
    """CPU threads, for the preset `cpu`; without it one a core. The last digits depend on it."""

    @model_validator(mode="before")
    @classmethod
    def _under_one_name(cls, data: Any) -> Any:
        """A table with `load_in` as one with `load_in_4bit`, unless they contradict one another, so
        that both spellings have one fingerprint. Only "fp8" has no older name."""
        if not isinstance(data, Mapping) or not isinstance(data.get("load_in"), str):
            return data
        old = _OLD_VALUES.get(data["load_in"])
        other = data.get("load_in_4bit", old)
        if old is None or type(other) is not type(old) or other != old:
            return data
        return {k: v for k, v in data.items() if k != "load_in"} | {"load_in_4bit": old}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(of_preset(self))
        return self

    @property
    def weights(self) -> LoadIn:
        """How the weights are loaded. Only of a preset in which that is not "auto"."""
        if self.load_in == "fp8":
            return "fp8"
        return "4bit" if self.load_in_4bit else "16bit"

    def written(self) -> dict[str, Any]:
        """The keys as a new recipe would have them: none under its older name."""
        values = {key: getattr(self, key) for key in type(self).model_fields}
        is_open = values.pop("load_in_4bit") == AUTO
        return values | {"load_in": AUTO if is_open else self.weights}

    def with_weights(self, load_in: LoadIn) -> Self:
        """A copy that loads its weights so."""
        keys = {"load_in": "fp8" if load_in == "fp8" else None, "load_in_4bit": load_in == "4bit"}
        return self.model_copy(update=keys)


PRESET_NAME = re.compile(r"cpu|[1-9][0-9]{0,3}GB")
"""What a preset may be called."""


def preset_gb(name: object) -> int | None:
    """The size in the name of a preset, also one that no card has; None where it names none."""
    match = re.fullmatch(r"(\d+)GB", name) if isinstance(name, str) else None
    return int(match[1]) if match else None


def preset_bytes(name: str) -> int:
    """Marketing size of a preset's card in bytes; 0 for the CPU. `8GB` is 8 GiB of memory chips."""
    return (preset_gb(name) or 0) * 2**30


def likely_preset(name: str) -> str | None:
    """The preset's name that was meant by `CPU`, `24`, `024 gb` or `24GiB`; None for no size."""
    text = name.strip().lower()
    size = re.fullmatch(r"0*([1-9]\d{0,3})[\s_-]*(g|gb|gib)?", text)
    return "cpu" if text == "cpu" else f"{size[1]}GB" if size else None


GPU_ONLY = (
    "gpu_memory_utilization",
    "load_in",
    "load_in_4bit",
    "standby",
    "layers_not_recomputed",
    "kv_cache_dtype",
)
CPU_ONLY = ("num_threads",)
AUTO_ON_GPU = ("prompts_per_step", "per_device_train_batch_size")


def of_preset(preset: Any) -> KeyProblems:
    """No room for a prompt, and weights loaded in two ways, as `(key, message, hint)`; `preset` is
    a Preset."""
    problems: KeyProblems = []
    if preset.load_in and (preset.load_in != "fp8" or preset.load_in_4bit):
        old = str(preset.load_in_4bit).lower()
        message = f'`load_in = "{preset.load_in}"` contradicts `load_in_4bit = {old}`'
        hint = "remove `load_in_4bit`, the older name of the same setting"
        problems.append(("load_in", message, hint))
    if preset.max_completion_length >= preset.max_seq_length:
        problems.append(
            (
                "max_completion_length",
                f"`max_completion_length` {preset.max_completion_length} leaves no room for a "
                f"prompt in `max_seq_length` {preset.max_seq_length}",
                f"set `max_seq_length = {preset.max_completion_length + 256}`",
            )
        )
    return problems


@dataclass(frozen=True)
class Algorithm:
    """One way to train: what the schema, the planner, the backends and the reports know of it."""

    name: str
    title: str
    """The name in a sentence, such as "GRPO"."""
    description: str
    """What it does, in one line for users."""
    source: str
    """Where it was published."""
    learns_from: Literal["rewards", "preferences", "demonstrations"]
    train: type[Train]
    """The keys of [train]."""
    arguments: Callable[[Any, Preset, Step], dict[str, Any]]
    """Arguments of the trainer's config beyond the common ones; nothing is left to a default."""
    trainer: Callable[[], tuple[type, type]]
    """TRL's trainer and its config. Called after a backend is loaded: Unsloth is imported first."""
    step: Callable[[Preset], Step]
    """The step of a preset in which nothing is "auto"."""
    reference: Callable[[Any], bool]
    """Whether the keys of [train] make the base model score the completions too."""
    timed: Mapping[str, str]
    """Methods of the trainer that are timed -> the part of a step that they do. The method of
    "generation" also begins and ends that phase (`Hooks.on_phase`)."""
    backends: tuple[str, ...]
    """Names of the backends that can train it."""
    with_unsloth: "Algorithm | None" = None
    """The row that Unsloth trains in its place, where another trainer of TRL has its gradient and
    Unsloth makes that one save memory; None where it takes the same trainer."""
    without_unsloth: Callable[[Any], str] = lambda train: ""
    """Why keys of [train] keep it from Unsloth, as a sentence without a full stop; empty where they
    do not."""
    advantages: Callable[[Any, Preset, Any], Any] | None = None
    """The advantages of a step, a tensor [rows], from those of the trainer, group after group; None
    where those of the trainer are right."""
    pass_rules: Callable[[Any], PassRules] = lambda train: PassRules(False, False, False, False)
    """How the rows of a step may be cut into passes, by the keys of [train]; not at all where none
    is named."""
    resumes: bool = True
    """Whether the trainer can go on from a checkpoint."""
    loss_note: str = ""
    """What users must know of the value of its loss, such as "near 0 by construction"; empty where
    a falling loss is a sign of progress."""
    group_size: int | None = None
    """Completions of a prompt where it takes no other number; None where `num_generations` has it.
    """
    compares: bool = True
    """Whether the completions of a prompt are compared, so that equal rewards teach nothing."""
    needs_pad: bool = False
    """Whether it takes every token to pad with for padding, so that none may end a completion."""
    has_dropout: bool = True
    """Whether its trainer uses `lora_dropout`."""
    limits: tuple[str, ...] = ()
    """What users have to know before they start it, as sentences without a full stop."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The trainer's name of a metric -> ours, where they differ."""
    learned: Learned | None = None
    """The examples that it learns from; None where it samples completions while it trains, which
    rewards pay."""
    logit_bytes: float = 0.0
    """Bytes for each logit of a whole pass that its trainer holds; derived from its source. 0 where
    the logits of a few rows at a time are computed."""

    def trains_on(self, backend: str, train: Train) -> bool:
        """Whether a backend can train it with these keys."""
        is_kept_off = backend == "unsloth" and self.without_unsloth(train)
        return backend in self.backends and not is_kept_off

    def on(self, backend: str) -> "Algorithm":
        """The row that a backend trains."""
        return self.with_unsloth or self if backend == "unsloth" else self

    def notes_on_plan(self, train: Train) -> list[str]:
        """What users have to know of a plan, a sentence each."""
        derived = "its passes take memory that is derived from the source of TRL, not measured"
        notes = [*self.limits, self.without_unsloth(train), derived if self.logit_bytes else ""]
        return [note for note in notes if note]

    @property
    def samples(self) -> bool:
        """Whether it samples completions while it trains."""
        return self.learned is None

    @property
    def sampled_when(self) -> str:
        """Where completions are sampled, in words for people."""
        return "in a step" if self.samples else "sampled at once before training"

    def step_in_words(self, preset: Preset) -> str:
        """The completions of a step: `4 prompts x 8 completions = 32 completions a step`."""
        if self.learned is None:
            parts = f"{preset.prompts_per_step} prompts x {preset.num_generations} completions"
        else:
            parts = self.learned.example(preset.prompts_per_step)
            if self.learned.sequences == 1:
                return f"{parts} a step"
        return f"{parts} = {self.step(preset).completions} completions a step"

    @property
    def note_on_loss(self) -> str:
        """`loss_note` with the name of the algorithm: "near 0 by construction in GRPO"."""
        return f"{self.loss_note} in {self.title}" if self.loss_note else ""

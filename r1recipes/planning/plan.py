"""Recipe + machine -> Plan: the preset chosen, every open value resolved, the batch arithmetic.

After this no value is open. A plan is written into the run folder as `resolved.json` and is all
that training reads. Presets are picked by the size of the card; what is "auto" in one is chosen by
`fitting`, and one whose predicted memory does not fit is refused.
"""

import importlib.util
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationError

from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.algorithms.base import Preset, preset_bytes
from r1recipes.errors import PlanError
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import auto, verdict
from r1recipes.planning.memory.case import MAX_NUM_SEQS
from r1recipes.planning.verdict import Predicted
from r1recipes.recipe.schema import Recipe

# A card sold as 16 GB reports less: T4 14.74, L4 22.16, RTX 4090 23.64, A100 39.56, H100 79.2 GiB
# (saved logs of the Unsloth notebooks at bdda2efc). 90 % of the name separates the classes.
USABLE_SHARE = 0.90
MIN_CAPABILITY = 7.5
"""Oldest compute capability that vLLM's wheels have kernels for, and CUDA 13, which they are built
with (read in vllm, _C_stable_libtorch.abi3.so: sm_75 and newer)."""


class Plan(BaseModel):
    """What a run does, with nothing left open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: SerializeAsAny[Recipe]
    base_dir: Path
    """Folder that relative file names of the recipe are meant from."""
    backend: Literal["unsloth", "trl"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    preset_name: str
    preset: Preset
    lora_alpha: int
    warmup_steps: int
    per_device_train_batch_size: int
    """Completions in one forward and backward pass."""
    gradient_accumulation_steps: int
    usable_bytes: int | None
    """Memory of the card, None without one."""
    max_num_seqs: int
    """Sequences that the engine works on at once."""
    num_threads: int
    """CPU threads of torch; the sums, and so the last digits, depend on it."""
    predicted: Predicted | None = None
    """Memory on the card; None on a CPU, without the engine, or for a model of unknown shape."""

    @property
    def algorithm(self) -> Algorithm:
        return ALGORITHMS[self.recipe.algorithm]

    @property
    def completions_per_step(self) -> int:
        return self.algorithm.step(self.preset).completions

    @property
    def max_prompt_length(self) -> int:
        """Tokens that a prompt may have."""
        return self.preset.max_seq_length - self.preset.max_completion_length

    def batch_sentence(self) -> str:
        """The arithmetic of one optimiser step in words."""
        preset, micro = self.preset, self.gradient_accumulation_steps
        passes = f"{micro} passes of {self.per_device_train_batch_size}" if micro > 1 else "1 pass"
        return (
            f"{preset.prompts_per_step} prompts x {preset.num_generations} completions = "
            f"{self.completions_per_step} completions a step, in {passes}"
        )


def make(
    recipe: Recipe,
    *,
    base_dir: Path,
    gpu: Gpu | None,
    num_cores: int,
    preset_name: str | None = None,
    chosen: dict[str, Any] | None = None,
    offline: bool = True,
    elsewhere: bool = False,
    refuse: bool = True,
) -> Plan:
    """Resolve a recipe for a machine.

    `chosen`: values for what is "auto", of a run that is to be repeated; without it the planner
    chooses. `offline`: read the shape of an unknown model from the Hub's cache only. `elsewhere`:
    the plan is for another machine, which has the packages that a GPU needs. Such a plan, or one
    that is not to `refuse`, is returned also where its memory does not fit. Raises: PlanError with
    what the recipe needs and what would run here.
    """
    name = choose_preset(recipe, gpu, preset_name)
    preset = _settled(recipe.preset[name], chosen or {})
    device = "cpu" if name == "cpu" or gpu is None else "cuda"
    if device == "cpu" and "8bit" in recipe.train.optim:
        raise PlanError(
            f'`train.optim = "{recipe.train.optim}"` needs an NVIDIA GPU',
            hint="`--set train.optim=adamw_torch`",
        )
    algorithm = ALGORITHMS[recipe.algorithm]
    has_engine = "unsloth" in algorithm.backends and (elsewhere or has_unsloth())
    backend = "unsloth" if device == "cuda" and has_engine else "trl"
    predicted = None
    if gpu and backend == "unsloth" and gpu.compute_capability < MIN_CAPABILITY:
        raise PlanError(
            f"{gpu.name} has compute capability {gpu.compute_capability}; vLLM needs "
            f"{MIN_CAPABILITY} or more",
            hint=_HINT,
        )
    if gpu and backend == "unsloth":
        shape = verdict.shape_of(recipe, preset, base_dir, offline=offline, strict=elsewhere)
        if shape:
            verdict.check_cold_start(recipe, shape, gpu, choose_dtype(device, gpu))
            refuse = refuse and not elsewhere
            preset, predicted = verdict.fitted(recipe, preset, shape, gpu, refuse=refuse)
    if opened := auto.open_keys(preset):
        raise PlanError(
            f'`{opened[0]} = "auto"` needs Unsloth, vLLM and a model of known shape',
            hint=f"write a value for `preset.{name}.{opened[0]}`",
        )
    step = algorithm.step(preset)
    return Plan(
        recipe=recipe,
        base_dir=base_dir.absolute(),
        backend=backend,
        device=device,
        dtype=choose_dtype(device, gpu),
        preset_name=name,
        preset=preset,
        lora_alpha=recipe.lora.lora_alpha or preset.lora_rank,
        warmup_steps=round(recipe.train.warmup_ratio * recipe.train.max_steps),
        per_device_train_batch_size=step.batch,
        gradient_accumulation_steps=step.passes,
        usable_bytes=gpu.total_bytes if gpu and device == "cuda" else None,
        max_num_seqs=min(step.completions, MAX_NUM_SEQS),
        num_threads=preset.num_threads or num_cores,
        predicted=predicted,
    )


def _settled(preset: Preset, chosen: dict[str, Any]) -> Preset:
    values = {key: chosen[key] for key in auto.open_keys(preset) if key in chosen}
    if not values:
        return preset
    try:
        return Preset.model_validate(preset.model_dump() | values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        raise PlanError(
            f'what the lock says was chosen for "auto" makes no preset: {first}',
            hint="run without --locked: the planner then chooses anew",
        ) from error


def opened(recipe: Recipe, gpu: Gpu, asked: str | None) -> tuple[str, Recipe]:
    """A preset named after the card's class, with every value open that the planner can choose.

    The rest comes from the preset that the card would get, or from the smallest there is.
    """
    names = sorted((name for name in recipe.preset if name != "cpu"), key=preset_bytes)
    held = [name for name in names if preset_bytes(name) * USABLE_SHARE <= gpu.total_bytes]
    base = choose_preset(recipe, gpu, asked) if asked else (held or names)[-1 if held else 0]
    preset = recipe.preset[base].model_copy(update=dict.fromkeys(auto.OPEN, "auto"))
    name = asked or cards.size_class(gpu.total_bytes, USABLE_SHARE)
    return name, recipe.model_copy(update={"preset": recipe.preset | {name: preset}})


def pinned(plan: Plan, began: dict[str, Any]) -> Plan:
    """The plan with the commits that a run began with: a branch may have moved since."""
    recipe = plan.recipe
    model = began.get("model_revision") or recipe.model.revision
    rows = began.get("data_revision") or recipe.data.revision
    revised = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"revision": model}),
            "data": recipe.data.model_copy(update={"revision": rows}),
        }
    )
    return plan.model_copy(update={"recipe": revised})


def has_unsloth() -> bool:
    """Whether Unsloth and vLLM are installed; looks, and imports neither."""
    return all(importlib.util.find_spec(name) for name in ("unsloth", "vllm"))


def choose_preset(recipe: Recipe, gpu: Gpu | None, asked: str | None) -> str:
    """The preset for a card: the one that was asked for, or the largest that it can hold."""
    names = sorted(recipe.preset, key=preset_bytes)
    if asked is not None:
        if asked not in recipe.preset:
            raise PlanError(
                f"there is no preset `{asked}` in this recipe", hint="it has " + ", ".join(names)
            )
        if asked != "cpu" and gpu is None:
            raise PlanError(f"preset `{asked}` needs an NVIDIA GPU, and there is none", hint=_HINT)
        return asked
    if gpu is None:
        if "cpu" in recipe.preset:
            return "cpu"
        raise PlanError(
            f"this recipe needs an NVIDIA GPU with {names[0]} or more (presets: "
            f"{', '.join(names)}), and this machine has none",
            hint=_HINT,
        )
    fitting = [name for name in names if preset_bytes(name) * USABLE_SHARE <= gpu.total_bytes]
    if not fitting:
        smaller = "" if names[0] == "6GB" else ", or `r1recipes run qwen2.5-1.5b`, which needs 6GB"
        raise PlanError(
            f"the smallest preset is {names[0]}, and {gpu.name} has "
            f"{gpu.total_bytes / 2**30:.1f} GiB",
            hint=f"`r1recipes plan RECIPE --fit` looks for settings that fit this card{smaller}",
        )
    return fitting[-1]


_HINT = (
    "`python -m r1recipes run tiny` does the whole job on a CPU in minutes; "
    "on a machine with an NVIDIA GPU run the same command as here"
)


def choose_dtype(device: str, gpu: Gpu | None) -> str:
    """float32 on a CPU; bfloat16 from compute capability 8 on, float16 below.

    The capability decides, since torch.cuda.is_bf16_supported() also counts emulation.
    """
    if device == "cpu" or gpu is None:
        return "float32"
    return "bfloat16" if gpu.compute_capability >= 8.0 else "float16"

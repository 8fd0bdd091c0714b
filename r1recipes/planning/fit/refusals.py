"""What a card, a CPU or a model cannot do at all, refused by name before anything is loaded.

Memory is not among it: `fit` refuses what is too large. Nothing is imported to find out: versions
are those of the installed packages' metadata.
"""

import os
from pathlib import Path

from packaging.version import InvalidVersion, Version

from r1recipes.algorithms.base import Preset
from r1recipes.errors import PlanError, command
from r1recipes.machine import cards, packages
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import gib
from r1recipes.planning import architectures, auto, models
from r1recipes.planning.architectures.families import FAMILIES
from r1recipes.planning.models import ModelShape
from r1recipes.recipe.schema import BUILTIN_MODELS, Recipe

FP8_CAPABILITY = 8.9
"""Oldest compute capability with arithmetic in fp8 (published, NVIDIA)."""
FP8_MULTIPLE = 16
"""What inputs and outputs of a layer in FP8 must be multiples of (torch, _scaled_mm; vllm,
cutlass_scaled_mm)."""
FP8_PACKAGES = {"unsloth_zoo": "2026.10.7", "vllm": "0.26", "torch": "2.9"}
"""Package -> oldest version for FP8 weights: those that were read, and Unsloth's own limit
(loader_utils.py, _get_fp8_mode_and_check_settings)."""
MERGED_ROLLOUT = "UNSLOTH_VLLM_MERGED_ROLLOUT"
"""Unsloth's variable: with 1 it adds the adapter to 16-bit weights for each rollout and takes it
off again, to the bit, and the engine uses its CUDA graphs without LoRA (unsloth_zoo/vllm_utils.py).
The engine then samples from weights that are rounded to 16 bits with the adapter in them, so
numbers differ. Off where the user has not set it: what it gains has not been measured here.

Both versions that were read do it in the same way, in place (merged_rollout_exact.py). Numbers that
the way back would miss wait in main memory while the engine works; while they are added and taken
off, all of them lie on the card, 6 bytes each, which no plan counts. In a simulation with weights
of 0.02 they were 0.8 % of the weights for changes of 0.0001, 5 % for changes of 0.001 (standard
deviations, bfloat16). Where Triton cannot do it, all adapted weights are copied to main memory.
Without the variable 2026.10.9 does it by itself on one NVIDIA GPU with 16-bit weights (unsloth_zoo/
vllm_utils.py, lines 6307 to 6370): for one behaviour of both it is set to 0 then."""
TINY = (
    f"`{command('run', 'tiny')}` does the whole job on a CPU in minutes; "
    "on a machine with an NVIDIA GPU run the same command as here"
)


def without_card(recipe: Recipe) -> str:
    """What to do where a recipe needs a GPU and there is none."""
    if "cpu" in recipe.preset:
        return "`--preset cpu`"
    is_builtin = recipe.model.name in BUILTIN_MODELS
    shape = models.find(recipe.model.name)
    if not is_builtin and (shape is None or shape.parameters > models.CPU_PARAMETERS):
        return TINY
    like = "tiny" if is_builtin else "smollm2-135m"
    shown = command("show", like)
    return f"a CPU trains a model of this size: add a section `[preset.cpu]`, as `{shown}` has it"


def merges_rollouts() -> bool:
    """Whether Unsloth is asked to add the adapter to the weights for each rollout."""
    return os.environ.get(MERGED_ROLLOUT, "0").strip() == "1"


def check_model(recipe: Recipe, base_dir: Path, *, offline: bool) -> str | None:
    """Refuse a model that nothing here trains, in the words in which `plan` refuses it.

    The only place where that is done, for every command and before a weight is loaded. Gives a line
    where the model's config.json cannot be reached, or where a card with Unsloth will be refused
    (`check_family`). Raises: PlanError for experts, models that see or hear, other quantisations, a
    config.json that is damaged, layers that the model has merged; for an unknown family too unless
    the recipe can run on a CPU.
    """
    model = recipe.model
    try:
        checkpoint = architectures.find(
            model.name, base_dir, revision=model.revision, offline=offline
        )
    except architectures.Unreachable:
        return unpredicted(model.name)
    except architectures.UnknownFamily as error:
        if "cpu" not in recipe.preset:
            raise
        return f"memory is not predicted, and a GPU needs a known family: {error}"
    check_targets(recipe, model.name, checkpoint.shape)
    unshared = FAMILIES[checkpoint.shape.family].unshared
    if unshared and "cpu" not in recipe.preset:
        alone = "trains with plain TRL alone, where Unsloth is not installed"
        return f"`{model.name}` {alone}: {unshared}"
    return None


def check_targets(recipe: Recipe, name: str, shape: ModelShape) -> None:
    """Raises: PlanError for layers of [lora] that the model has merged into one: PEFT would pass
    over them without a word."""
    targets = recipe.lora.target_modules
    for merged, layers in FAMILIES[shape.family].merged.items():
        if inside := [layer for layer in layers if layer in targets]:
            others = [layer for layer in targets if layer not in layers]
            hint = "take a copy in Llama's layout, such as unsloth/phi-4"
            if others:
                hint = f"`--set lora.target_modules={others}`, or {hint}"
            raise PlanError(
                f"`{name}` ({shape.family}) has one layer `{merged}` in place of "
                f"{', '.join(inside)}, which [lora] names",
                hint=hint,
            )


def unpredicted(name: str) -> str:
    """What is to be said of a model that may pass, as nobody can tell what it is."""
    return f"memory is not predicted: the config.json of `{name}` cannot be reached"


def check_card(recipe: Recipe, card: Gpu | None, has_engine: bool) -> None:
    """Raises: PlanError for what a CPU, or so old a card, cannot do at all."""
    if card is None and "8bit" in recipe.train.optim:
        raise PlanError(
            f'`train.optim = "{recipe.train.optim}"` needs an NVIDIA GPU',
            hint="`--set train.optim=adamw_torch`",
        )
    if card and has_engine and card.compute_capability < cards.MIN_CAPABILITY:
        raise PlanError(
            f"{card.name} has compute capability {card.compute_capability}; vLLM needs "
            f"{cards.MIN_CAPABILITY} or more",
            hint=TINY,
        )


def check_weights(preset: Preset, card: Gpu, *, has_engine: bool, is_here: bool) -> None:
    """Raises: PlanError for FP8 weights that the card or what is installed cannot load, and for
    rollouts with the adapter added to weights that are not in 16 bits.

    `is_here`: the packages of this machine count.
    """
    if "load_in_4bit" in auto.open_keys(preset):
        return  # what the planner takes is checked after loading (`rollout_differences`)
    if preset.weights != "16bit" and has_engine and merges_rollouts():
        raise PlanError(
            f'`load_in = "{preset.weights}"`: {MERGED_ROLLOUT}=1 adds the adapter to 16-bit '
            "weights only",
            hint=f"unset {MERGED_ROLLOUT}, or `--set preset.load_in=16bit`",
        )
    if preset.weights != "fp8":
        return
    capability = card.compute_capability
    hint = "`--set preset.load_in=4bit` takes less memory, `--set preset.load_in=16bit` more"
    if capability < FP8_CAPABILITY:
        reason = f"{card.name} has compute capability {capability}, and FP8 needs {FP8_CAPABILITY}"
    elif not has_engine:
        reason = "FP8 weights need Unsloth and vLLM, and plain TRL would train here"
    elif is_here and (old := _too_old()):
        reason = f"FP8 weights need {old}"
        hint = f"`{command('doctor')}` has the command that installs it"
    else:
        return
    raise PlanError(f'`load_in = "fp8"`: {reason}', hint=hint)


def _too_old() -> str | None:
    """What FP8 weights need and the installed packages are older than, in words."""
    for name, least in FP8_PACKAGES.items():
        installed = packages.version(name)
        try:
            if installed and Version(installed) < Version(least):
                return f"{name} {least} or newer, and {installed} is installed"
        except InvalidVersion:  # a private build, which nobody can judge
            continue
    return None


def check_fp8_shape(preset: Preset, shape: ModelShape) -> None:
    """Raises: PlanError for a model with layers whose sizes no kernel for FP8 takes."""
    if preset.weights != "fp8":
        return
    for name, sizes in shape.projections.items():
        if any(size % FP8_MULTIPLE for size in sizes):
            raise PlanError(
                f'`load_in = "fp8"`: `{name}` of this model has {sizes[0]} inputs and {sizes[1]} '
                f"outputs, and FP8 needs multiples of {FP8_MULTIPLE}",
                hint="`--set preset.load_in=16bit`, or `--set preset.load_in=4bit`",
            )


def check_kv_cache(preset: Preset, shape: ModelShape, card: Gpu) -> None:
    """Raises: PlanError for a KV cache in which a model's keys are lost, or that a card lacks.

    Keys of Qwen2 have a bias of up to hundreds, and numbers of 8 bits without a scale keep too
    little of what tells keys apart: with vLLM, Qwen2.5-Math 7B answered nothing rightly (verl, pull
    request 4435).
    """
    if preset.kv_cache_dtype != "fp8":
        return
    reason = None
    if shape.attention_bias:
        reason = (
            "the keys of this model have a bias, beside which fp8 without scales loses the rest"
        )
    elif card.compute_capability < FP8_CAPABILITY:
        capability = f"{card.name} has compute capability {card.compute_capability}"
        reason = f"{capability}, and fp8 needs {FP8_CAPABILITY}"
    if reason:
        hint = "`--set preset.kv_cache_dtype=int8_per_token_head`, or leave it out"
        raise PlanError(f'`kv_cache_dtype = "fp8"`: {reason}', hint=hint)


def check_family(name: str, shape: ModelShape, dtype: str) -> None:
    """Raises: PlanError for a model whose weights the engine and the training cannot share, or that
    vLLM refuses in the precision of the card (`architectures.families`)."""
    family = FAMILIES[shape.family]
    if family.unshared:
        raise PlanError(
            f"`{name}` ({shape.family}) cannot be trained beside vLLM: {family.unshared}",
            hint="take a model of another family; where Unsloth and vLLM are not installed, plain "
            "TRL trains this one",
        )
    if family.no_float16 and dtype == "float16":
        raise PlanError(
            f"`{name}` ({shape.family}) needs bfloat16, which cards have from compute capability "
            "8.0 on: vLLM refuses it in float16, in which its activations overflow",
            hint="take a newer card, or a model of another family",
        )


def check_cold_start(recipe: Recipe, shape: ModelShape, card: Gpu, dtype: str) -> None:
    """Refuse a cold start, which trains all weights, on a card that is surely too small for it.

    Weights, gradient and AdamW's two moments have one precision, 32 bits where the card has no
    bfloat16. Raises: PlanError when these alone do not fit; activations come on top.
    """
    if recipe.cold_start is None:
        return
    needed = 4 * models.whole_weight_bytes(recipe.model.name, dtype) * shape.parameters
    if needed > card.total_bytes:
        raise PlanError(
            f"[cold_start] trains all {shape.parameters / 1e9:.1f} billion weights, which takes "
            f"more than {gib(needed)} GiB, and {card.name} has {gib(card.total_bytes)}",
            hint="remove [cold_start], or take a smaller model or a larger card",
        )

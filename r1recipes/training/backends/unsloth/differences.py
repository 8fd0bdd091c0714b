"""Compares what a plan asks of Unsloth and vLLM with what they made of it.

Unsloth lowers max_seq_length, raises batch sizes and drops unknown arguments with no more than a
printed line. Limits: imports neither of them; needs a GPU for the size of its memory.
"""

from typing import Any

import torch

from r1recipes.errors import RunError
from r1recipes.machine.units import GIB
from r1recipes.planning import out_of_memory
from r1recipes.planning.plan import Plan

Difference = tuple[str, Any, Any]
"""(name, asked for, got)."""
SHARE_TOLERANCE = 0.01
"""Relative error of the engine's share; assumed. In 15 rehearsals the share was the one asked for,
to four digits (H200)."""
NF4 = "nf4, double"
FP8 = "FP8 in every linear layer, a scale for each output channel"
LOADED_AS = {None: "16bit", "bitsandbytes": "4bit", "compressed-tensors": "fp8"}
"""vLLM's name of a quantisation -> the preset's."""


def engine_differences(model: Any, plan: Plan) -> list[Difference]:
    """Everything in which a loaded model's engine is not what the plan says."""
    if not hasattr(model, "vllm_engine"):
        return [("engine", "vLLM", "none: Unsloth fell back to its own generation")]
    config, preset = model.vllm_engine.llm_engine.vllm_config, plan.preset
    quantization = config.model_config.quantization
    tokens = config.cache_config.num_gpu_blocks * config.cache_config.block_size
    compared: list[Difference] = [
        ("max_seq_length", preset.max_seq_length, config.model_config.max_model_len),
        ("sequences at once", plan.max_num_seqs, config.scheduler_config.max_num_seqs),
        ("dtype", plan.dtype, str(config.model_config.dtype).removeprefix("torch.")),
        ("load_in", preset.weights, LOADED_AS.get(quantization, quantization)),
    ]
    differences = [row for row in compared if row[1] != row[2]]
    if preset.kv_cache_dtype and preset.kv_cache_dtype != config.cache_config.cache_dtype:
        differences.append(("KV cache", preset.kv_cache_dtype, config.cache_config.cache_dtype))
    if preset.kv_cache_dtype == "fp8" and has_key_bias(model):
        differences.append(("KV cache", "fp8, for keys without a bias", "keys with a bias"))
    if config.lora_config.max_lora_rank < preset.lora_rank:
        differences.append(("lora_rank", preset.lora_rank, config.lora_config.max_lora_rank))
    asked, actual = share_bytes(config, plan)
    if abs(actual - asked) > SHARE_TOLERANCE * asked:
        share = ("the engine's share", f"{asked / GIB:.2f} GiB", f"{actual / GIB:.2f} GiB")
        differences.append(share)
    if tokens < preset.max_seq_length:
        differences.append(("KV cache tokens", f"{preset.max_seq_length} or more", tokens))
    if preset.weights == "4bit" and (stored := quantisation(model)) != NF4:
        differences.append(("quantisation", NF4, stored))
    if preset.weights == "fp8" and (other := other_than_fp8(model)):
        differences.append(("quantisation", FP8, other))
    return differences


def other_than_fp8(model: Any) -> str | None:
    """The first linear layer of the decoder that trains on other weights than FP8 with a scale for
    each output channel, in words; None where there is none."""
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and ".layers." in name
    }
    for name, layer in layers.items():
        weight, scale = layer.weight, getattr(layer, "weight_scale", None)
        if weight.dtype != torch.float8_e4m3fn:
            return f"{name} in {str(weight.dtype).removeprefix('torch.')}"
        if scale is None or scale.shape != (weight.shape[0], 1):
            return f"{name} with {'no scales' if scale is None else f'scales {tuple(scale.shape)}'}"
    return None if layers else "no linear layer"


def has_key_bias(model: Any) -> bool:
    """Whether keys have a bias, which only the weights say of a model of unknown shape; see
    `refusals.check_kv_cache`."""
    return any(name.endswith("k_proj.bias") for name, _ in model.named_parameters())


def adapter_differences(model: Any, plan: Plan) -> list[Difference]:
    """Everything in which PEFT's adapter is not what the plan says."""
    actual, lora = model.peft_config["default"], plan.recipe.lora
    # PEFT skips modules that a model does not have: Phi-3's own layout has one for q, k and v.
    adapted = {n.rpartition(".")[2] for n, part in model.named_modules() if hasattr(part, "lora_A")}
    compared: list[Difference] = [
        ("lora_rank", plan.preset.lora_rank, actual.r),
        ("lora_alpha", plan.lora_alpha, actual.lora_alpha),
        ("lora_dropout", lora.lora_dropout, actual.lora_dropout),
        ("use_rslora", lora.use_rslora, actual.use_rslora),
        ("target_modules", sorted(lora.target_modules), sorted(adapted)),
    ]
    layers = model.config.get_text_config().num_hidden_layers
    layers = min(layers, plan.preset.layers_not_recomputed)
    compared.append(("layers_not_recomputed", layers, _not_recomputed(model)))
    return [row for row in compared if row[1] != row[2]]


def _not_recomputed(model: Any) -> int:
    """Layers that Unsloth has marked (unsloth/models/_utils.py, skip_checkpointing)."""
    return sum(vars(part).get("_unsloth_skip_checkpoint", False) for part in model.modules())


def rollout_differences(model: Any, state: object) -> list[Difference]:
    """Why rollouts that are asked for with the adapter in the weights would be without.

    `state` is what Unsloth prepared for them: None where it falls back to the engine's LoRA, with
    no more than a printed line, and leaves the reason at the model (unsloth_zoo/vllm_utils.py,
    `prepare_merged_rollout`).
    """
    if state is not None:
        return []
    reason = getattr(getattr(model, "_unsloth_merged_rollout_state", None), "reason", None)
    return [("UNSLOTH_VLLM_MERGED_ROLLOUT", "1", f"the engine's LoRA, because {reason}")]


def share_bytes(config: Any, plan: Plan) -> tuple[float, float]:
    """GPU memory in bytes that the plan gives the engine, and that the engine's config gives it.

    `config` is a VllmConfig, whose share is one of the whole card.
    """
    assert plan.preset.gpu_memory_utilization and plan.usable_bytes, "a GPU preset has both"
    _, total = torch.cuda.mem_get_info()
    asked = plan.preset.gpu_memory_utilization * plan.usable_bytes
    return asked, config.cache_config.gpu_memory_utilization * total


def refuse_second_try(model: Any, plan: Plan) -> None:
    """Refuse an engine that found no room and that Unsloth loaded again, with less memory.

    (unsloth_zoo, vllm_utils.py, `_shrink_for_memory_retry`.) Raises: RunError of kind "oom".
    """
    if not hasattr(model, "vllm_engine"):
        return
    asked, actual = share_bytes(model.vllm_engine.llm_engine.vllm_config, plan)
    if actual < (1 - SHARE_TOLERANCE) * asked:
        cause = out_of_memory.explain("", "load", plan)
        raise RunError(
            f"out of memory, {cause.kind}: it asked for {asked / GIB:.1f} GiB, and Unsloth would "
            f"go on with {actual / GIB:.1f}",
            kind="oom",
            hint=f"try `{cause.change}`",
        )


def quantisation(model: Any) -> str:
    """How the first quantised weight is stored, by its state (QuantState of bitsandbytes).

    The model's configuration only says what was intended: with weights that Unsloth quantised
    itself, the two differed.
    """
    states = (getattr(weight, "quant_state", None) for weight in model.parameters())
    state = next((state for state in states if state is not None), None)
    return f"{state.quant_type}, {'double' if state.nested else 'single'}" if state else "none"


def argument_differences(asked: dict[str, Any], actual: Any) -> list[Difference]:
    """Every training argument in which `got`, a trainer's config, differs from `asked`."""
    return [
        (name, value, getattr(actual, name, "dropped"))
        for name, value in asked.items()
        if name not in _NORMALISED and not _same(value, getattr(actual, name, "dropped"))
    ]


# Arguments whose spelling changes and not their meaning: an enum or its name, vLLM's -1 for "off",
# the dtype that Unsloth takes from the model.
_NORMALISED = {"report_to", "top_k", "min_p", "output_dir", "bf16", "fp16", "disable_tqdm"}


def _same(asked: Any, actual: Any) -> bool:
    return asked == getattr(actual, "value", actual) or asked == actual


def refuse_differences(differences: list[Difference]) -> None:
    """Raises: RunError that names each difference with both values, if there is one."""
    if differences:
        lines = "; ".join(
            f"{name}: asked {asked}, got {actual}" for name, asked, actual in differences
        )
        raise RunError(
            f"the stack changed what the recipe asks for: {lines}",
            hint="set the recipe to what fits, or compare versions: `r1recipes doctor --update`",
        )

"""The vLLM engine beside the trained model: the memory that it may take, and what it chose itself.

Imports neither Unsloth nor vLLM; needs a GPU for the size of its memory.
"""

import os
from typing import Any

import torch

from r1recipes.errors import PlanError, RunError
from r1recipes.machine.units import GIB
from r1recipes.planning.memory.predict import OUTSIDE_TORCH, TORCH_SHARE
from r1recipes.planning.plan import Plan

GRAPHS = "R1RECIPES_GRAPHS"
"""Environment variable for the numbers of sequences of which a CUDA graph is captured, for
measurements: those of vLLM ("all", the default, which `plan` counts), or fewer ("few")."""
FEW_SIZES = (1, 2, 4, 8, 16, *range(32, 257, 32), 384, 512)
"""Assumed. A number in between is padded to the next one, which costs little where reading the
weights takes most of the time."""


def follow(plan: Plan, arguments: dict[str, Any]) -> None:
    """Change the arguments that Unsloth has for vLLM's `LLM` to what the plan says beside them.

    Unsloth has an argument for a KV cache in "fp8" alone, and may ask for an attention backend that
    knows no scales for each token and head; Triton's does (unsloth_zoo/vllm_utils.py, load_vllm;
    vllm/v1/attention/backends/triton_attn.py). Raises: RunError for another value of an environment
    variable than there is.
    """
    if dtype := plan.preset.kv_cache_dtype:
        arguments["kv_cache_dtype"] = dtype
        if dtype.endswith("per_token_head"):
            arguments["attention_backend"] = "TRITON_ATTN"
    graphs = os.environ.get(GRAPHS, "all")
    if graphs not in ("all", "few"):
        raise RunError(f"{GRAPHS} is {graphs!r}", hint=f"set {GRAPHS} to all or few")
    if graphs == "few":
        arguments["compilation_config"].cudagraph_capture_sizes = few_sizes(plan.max_num_seqs)


def few_sizes(num_seqs: int) -> list[int]:
    """`FEW_SIZES` up to twice as many sequences as the engine works on at once, where vLLM ends
    too, and that number itself: one that is padded beyond it has no graph of its own."""
    own = num_seqs // 8 * 8 if num_seqs > 8 else num_seqs
    return sorted({size for size in FEW_SIZES if size <= 2 * num_seqs} | {own})


def limit_allocator(plan: Plan) -> None:
    """Let torch give back what it has cached before the GPU memory is full.

    Torch keeps freed blocks until an allocation fails; then an allocation of others, such as cuBLAS
    or the engine's graphs, fails in its place. In standby the engine's released pool counts as in
    use although it is free, so there is no limit.
    """
    if plan.preset.standby or plan.usable_bytes is None:
        return
    free, total = torch.cuda.mem_get_info()
    limit = min(free, TORCH_SHARE * min(plan.usable_bytes, total) - OUTSIDE_TORCH)
    torch.cuda.set_per_process_memory_fraction(max(0.0, limit / total))


def share_of_free(plan: Plan) -> float:
    """The recipe's share of the usable GPU memory as Unsloth means it: a share of what is free.

    Raises: PlanError when less is free than the engine may take.
    """
    free, _ = torch.cuda.mem_get_info()
    utilization = plan.preset.gpu_memory_utilization
    assert utilization is not None and plan.usable_bytes is not None, "a GPU preset has both"
    engine_bytes = utilization * plan.usable_bytes
    if engine_bytes > free:
        raise PlanError(
            f"the engine may take {engine_bytes / GIB:.1f} GiB, and {free / GIB:.1f} GiB of the "
            "card are free",
            hint="end the other processes on the card, or set a lower `gpu_memory_utilization`",
        )
    return engine_bytes / free


def rest(engine: Any) -> None:
    """Let a vLLM engine in standby give its KV cache back until it generates again.

    Trainers that sample do so after each generation; the engine wakes up by itself (unsloth_zoo,
    vllm_utils.py, `get_patched_generate`). Nothing happens without standby.
    """
    if engine.llm_engine.vllm_config.model_config.enable_sleep_mode:
        engine.sleep(1)


def facts(engine: Any) -> dict[str, float]:
    """Sizes that a vLLM engine chose for itself (vllm, v1/worker/gpu_worker.py).

    Keys end in their unit. A size that this version of vLLM does not have is left out: 0.26 has
    `non_torch_gib`, what lies outside torch; 0.27.1 has `consumed_gib`, all that the driver counts
    before there is a KV cache, which has weights, torch's buffers and what lies outside torch.
    """
    config = engine.llm_engine.vllm_config
    free, _ = torch.cuda.mem_get_info()
    cache = config.cache_config
    blocks = cache.num_gpu_blocks * cache.block_size
    sizes = {
        # Where some layers have a window, each group of layers has blocks of its own.
        "kv_tokens": getattr(cache, "kv_cache_size_tokens", None) or blocks,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "free_after_load_gib": round(free / GIB, 3),
    }
    core = getattr(engine.llm_engine.engine_core, "engine_core", None)
    worker = getattr(getattr(core, "model_executor", None), "driver_worker", None)
    worker = getattr(worker, "worker", worker)
    runner = getattr(worker, "model_runner", None)
    for name, owner, attribute in (
        ("weights_gib", runner, "model_memory_usage"),
        ("profile_gib", worker, "peak_activation_memory"),
        ("non_torch_gib", worker, "non_torch_memory"),
        ("consumed_gib", worker, "total_consumed"),
        ("requested_gib", worker, "requested_memory"),
    ):
        if isinstance(value := getattr(owner, attribute, None), int | float):
            sizes[name] = round(value / GIB, 3)
    return sizes


ARGUMENTS = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    # One update per batch: the ratio is 1 up to the engine's rounding, and a pass is saved.
    "vllm_importance_sampling_correction": False,
    # Else chosen from the memory that happens to be free in each step.
    "unsloth_grpo_mini_batch": 1,
    # `environment.prepare` sets the length of a part of the logits.
    "unsloth_logit_chunk_multiplier": 1,
}
"""Arguments of a trainer that samples with the engine while it trains."""

"""Environment variables of Unsloth and vLLM, which must be set before torch is imported."""

import os
from pathlib import Path

from r1recipes.errors import PlanError, RunError
from r1recipes.planning.fit.refusals import MERGED_ROLLOUT
from r1recipes.planning.memory.training import CHUNK_ROWS
from r1recipes.planning.plan import Plan

LOGIT_ROWS = "R1RECIPES_LOGIT_ROWS"
"""Environment variable with the rows of logits that are computed at a time, for measurements:
`plan` counts `CHUNK_ROWS`, and each more takes 4 bytes for each token of the vocabulary."""
CHECKPOINTS = "R1RECIPES_CHECKPOINTS"
"""Environment variable for where the inputs of layers wait for the backward pass, for measurements:
in main memory ("host", the default), or on the card ("card"), for which `plan` counts them."""


def prepare(plan: Plan, cache_dir: Path) -> None:
    """Set the variables that the plan needs; compiled code is kept below `cache_dir`."""
    # Standby picks the allocator when unsloth is imported; without the override it replaces the
    # recipe's gpu_memory_utilization by a table of its own (unsloth_zoo/vllm_utils.py, load_vllm).
    os.environ["UNSLOTH_VLLM_STANDBY"] = "1" if plan.preset.standby else "0"
    os.environ["UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE"] = "1"
    # The logits of a pass are computed 256 rows at a time, and computed again in the backward pass:
    # a pass of 8 completions of Qwen2.5-1.5B fits 8 GB, and the first step compiles a loop body
    # instead of an unrolled loop, 9 to 18 s instead of 21 to 50 (H200, 2026-11-21).
    os.environ["UNSLOTH_GRPO_LOGPROB_RECOMPUTE"] = "1"
    os.environ["UNSLOTH_GRPO_MAX_ROWS_PER_CHUNK"] = os.environ.get(LOGIT_ROWS) or str(CHUNK_ROWS)
    # Without a kernel for rows of several lengths, packing makes one call of attention for each row
    # and layer: the training pass took 4.5 s packed and 2.1 s padded (Qwen2.5-Coder 0.5B, 256
    # completions of 120 tokens on average, H100, 2026-11-25).
    os.environ.setdefault("UNSLOTH_GRPO_SEQ_PACKING", "0")
    # Layers that are not computed again are a key of the recipe, whose memory is planned.
    os.environ["UNSLOTH_GC_KEEP_LAYERS"] = "0"
    os.environ.setdefault(MERGED_ROLLOUT, "0")  # 2026.10.9 would choose by itself
    if os.environ[MERGED_ROLLOUT].strip().lower() not in ("0", "1"):
        # With "attention" the engine has no LoRA there, and an evaluation, which hands it the saved
        # adapter, could not be served.
        raise PlanError(
            f"{MERGED_ROLLOUT} is `{os.environ[MERGED_ROLLOUT]}`, and r1recipes runs with 0 or 1",
            hint=f"set {MERGED_ROLLOUT}=1, or unset it",
        )
    # Both count their users: Unsloth by downloads from the Hub, vLLM by a server of its own.
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")  # the engine is one process
    # Compiled code is kept between runs, so that the second start does not compile it again. The
    # source that Unsloth writes depends on the card; processes would overwrite each other's.
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "any")
    for name, folder in {
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
        "VLLM_CACHE_ROOT": "vllm",
        "UNSLOTH_COMPILE_LOCATION": f"unsloth/{card}",
    }.items():
        os.environ.setdefault(name, str(cache_dir / folder))


def levers() -> dict[str, str]:
    """The environment variables that turn on what is off without them, and their values.
    Imports torch."""
    from r1recipes.training.backends import passes
    from r1recipes.training.backends.unsloth import engine, scheduling

    names = [passes.VARIABLE, scheduling.VARIABLE, engine.GRAPHS, CHECKPOINTS, LOGIT_ROWS]
    values = {name: os.environ[name] for name in names if name in os.environ}
    merged = os.environ.get(MERGED_ROLLOUT, "0")
    return values | ({MERGED_ROLLOUT: merged} if merged != "0" else {})


def checkpointing() -> str | bool:
    """How Unsloth keeps the inputs of layers, as `get_peft_model` means it. Raises: RunError for
    another value of the environment variable than there is."""
    place = os.environ.get(CHECKPOINTS, "host")
    if place not in ("host", "card"):
        raise RunError(f"{CHECKPOINTS} is {place!r}", hint=f"set {CHECKPOINTS} to host or card")
    return "unsloth" if place == "host" else True

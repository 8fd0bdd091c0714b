"""Out of memory on a GPU: which kind it was, and one change of the preset that answers it.

One message stands for several troubles: the engine found no room at load, its cache was too small,
a training pass was too large, or memory grew from step to step. Text and phase tell them apart.
"""

import json
from dataclasses import dataclass
from typing import Literal

from r1recipes.consistency import divisors
from r1recipes.plan import Plan

Phase = Literal["cold start", "load", "generate", "first step", "steps"]
NO_ROOM = (
    "out of memory",
    "alloc_failed",
    "on startup is less than desired GPU memory utilization",
)
"""torch, cuBLAS and cuDNN, and vllm 0.26.0 where others hold the card (v1/worker/utils.py)."""
NO_CACHE = ("No available memory for the cache blocks", "is larger than the available KV cache")
"""What vllm 0.26.0 says when the share leaves too little beside the weights
(v1/core/kv_cache_utils.py)."""


@dataclass(frozen=True)
class OutOfMemory:
    """What ran out and the option that gives it more room."""

    kind: str
    change: str


def is_out_of_memory(message: str) -> bool:
    """Whether an error's text says that the card is full."""
    return any(text.lower() in message.lower() for text in (*NO_ROOM, *NO_CACHE))


def explain(message: str, phase: Phase, plan: Plan) -> OutOfMemory:
    """The kind of an out-of-memory error in a phase of a run, and a change."""
    if any(text in message for text in NO_CACHE):
        return OutOfMemory("the engine's share leaves no KV cache for one sequence", _share(plan))
    if phase == "cold start":
        return OutOfMemory(
            "the cold start, of all weights, was too large", _smaller_cold_start(plan)
        )
    if phase == "load":
        return OutOfMemory("the engine found no room when it was loaded", _smaller_engine(plan))
    if phase == "generate":
        return OutOfMemory("the engine ran out while it generated", _smaller_engine(plan))
    if phase == "first step":
        return OutOfMemory("the first training pass was too large", _smaller_pass(plan))
    return OutOfMemory("memory grew after the first step", _smaller_pass(plan))


def _smaller_cold_start(plan: Plan) -> str:
    start = plan.recipe.cold_start
    if start and start.batch_size > 1:
        return f"--set cold_start.batch_size={start.batch_size // 2}"
    return _shorter(plan)


def _share(plan: Plan) -> str:
    share = plan.preset.gpu_memory_utilization or 0.5
    if share < 0.9:
        return _set(gpu_memory_utilization=round(min(0.9, share + 0.1), 2))
    return _lighter_weights(plan)


def _smaller_engine(plan: Plan) -> str:
    share = plan.preset.gpu_memory_utilization or 0.5
    if share > 0.4:
        return _set(gpu_memory_utilization=round(share - 0.1, 2))
    return _lighter_weights(plan)


def _smaller_pass(plan: Plan) -> str:
    """Fewer completions in a pass change no number; standby frees the cache while training."""
    batch = plan.per_device_train_batch_size
    if batch > 1:
        smaller = max(n for n in divisors(batch) if n < batch)
        return _set(per_device_train_batch_size=smaller)
    return _set(standby=True) if not plan.preset.standby else _smaller_engine(plan)


def _lighter_weights(plan: Plan) -> str:
    if not plan.preset.load_in_4bit:
        return _set(load_in_4bit=True)
    return _shorter(plan)


def _shorter(plan: Plan) -> str:
    completion = plan.preset.max_completion_length // 2
    prompt = plan.preset.max_seq_length - plan.preset.max_completion_length
    return f"{_set(max_completion_length=completion)} {_set(max_seq_length=completion + prompt)}"


def _set(**change: object) -> str:
    ((key, value),) = change.items()
    return f"--set preset.{key}={json.dumps(value)}"

"""Out of memory on a GPU: the kind of error, and one change of the preset that answers it.

The same message has several causes: the engine found no room when it was loaded, its cache was too
small, a training pass was too large, others hold the card, or memory grew from step to step. Text
and phase tell them apart; torch writes who holds the card and what lies in pieces (`full_card`).
Limits: the memory of the card; main memory is `doctor.texts`'s.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from r1recipes.machine import gpu
from r1recipes.planning import auto, disk
from r1recipes.planning.doctor import full_card
from r1recipes.planning.doctor.card import end_another, other_processes
from r1recipes.planning.fit import flags
from r1recipes.planning.memory import predict
from r1recipes.planning.plan import Plan

Phase = Literal["cold start", "load", "generate", "first step", "steps"]
NO_ROOM = (
    "out of memory",
    "out_of_memory",
    "OutOfMemory",
    "No executable batch size found",
    "limited GPU memory",
    "enough GPU RAM",
    "cudaErrorMemoryAllocation",
    "alloc_failed",
    "Failed to CUDA calloc",
    "NVML_SUCCESS ==",
    "modules are dispatched on the",
    "unable to find an engine to execute this computation",
)
"""Messages of torch and CUDA, of cuBLAS, cuDNN and NCCL; the last one where torch cannot ask the
driver who holds the memory that it did not get (torch, c10/cuda/CUDACachingAllocator.cpp).
transformers and accelerate say that weights or any batch do not fit, and cuDNN that none of its
kernels found a place."""
AT_LOAD = re.compile(
    r"warming up \w+ with \d+ dummy|captur\w* (?:the )?(?:model for )?(?:CUDA|cuda) ?graphs?|"
    r"modules are dispatched|loading vLLM with standby|warm[- ]?up run"
)
"""Messages that come only while an engine or a model is loaded, whatever the phase."""
AT_WAKE = re.compile(r"cumem_allocator|wake_up method failed|create_and_map")
"""Messages of vLLM's allocator where weights or cache do not find their room again after sleep."""
NO_PLACE = re.compile(
    r"(?:not enough|insufficient|ran out of|out of) (?:free |available )?(?:GPU|VRAM|CUDA|video|"
    r"device|graphics) (?:memory|RAM)|(?:GPU|VRAM|CUDA|device)(?: memory| RAM)? (?:is |"
    r"was )?(?:full|exhausted|insufficient)|not enough VRAM|RESOURCE_EXHAUSTED|"
    r"cudaMalloc(?:Async)?\b.* failed|fail\w* to (?:re)?alloc(?:ate)?\b.*\b(?:GPU|CUDA|VRAM|"
    r"on device|device memory)|exceeds (?:the )?(?:available )?(?:GPU|VRAM) memory|"
    r"mem[-_]fraction[-_]static|STATUS_(?:ALLOCATION_FAILED|INSUFFICIENT_RESOURCES)",
    re.IGNORECASE,
)
"""Other words for the same, as CUDA's libraries, JAX and programs beside torch write them."""
HELD = re.compile(r"on startup is less than desired GPU memory utilization")
"""Message of vLLM where others hold the card (vllm, v1/worker/utils.py)."""
NO_HANDLE = re.compile(
    r"CU(?:BLAS|DNN|SOLVER|SPARSE|FFT|RAND)(?:LT)?_(?:STATUS_)?NOT_INITIALIZED|"
    r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_INTERNAL_ERROR.*Create\w*\(|"
    r"CUDNN_STATUS_\w*(?:ALLOCATION_FAILED|INITIALIZATION_FAILED)|"
    r"cu(?:blas|dnn|solver|sparse|fft|rand)\w* (?:handle (?:creation )?|initialization )failed|"
    r"create (?:a )?cu(?:blas|dnn|solver|sparse|rand)\w* handle",
    re.IGNORECASE,
)
"""Messages of CUDA's libraries where their handle finds no memory: most often, as little else keeps
one from being made."""
NO_CACHE = (
    "No available memory for the cache blocks",
    "is larger than the available KV cache",
    "maximum number of tokens that can be stored in KV cache",
    "exceeds available Mamba cache blocks",
    "memory for the KV cache",
    "space for the KV cache",
)
"""Messages of vLLM when the share leaves too little beside the weights (vllm,
v1/core/kv_cache_utils.py)."""
SMALL_CACHE = re.compile(
    r"(?:insufficient|not enough|too little|no)\b.{0,30}\bKV[ -]?cache|"
    r"KV[ -]?cache\b.{0,40}(?:insufficient|not enough|too small|exceed)",
    re.IGNORECASE,
)
"""The same in the words of other versions and engines."""

LEAST_SHARE = 0.3
"""The engine's share below which no less is advised, for a model of unknown shape; assumed."""
SHARE_STEP = 0.1
"""How much the engine's share is changed at a time; assumed."""
NO_RESOURCES = re.compile(r"out of resources?:", re.IGNORECASE)
"""Message of Triton for a kernel that needs more of a processor's own memory than the card has."""
NOT_FULL = "NOT an out of memory error"
"""Message of Unsloth when other processes freed memory while the engine measured it (unsloth_zoo,
vllm_utils.py, _memory_profiling_race_message)."""

NO_SIZE = "more than 1EB memory"
"""Message of torch for a size that no tensor has: a damaged number, whatever the card's memory
(torch, c10/cuda/CUDACachingAllocator.cpp)."""


@dataclass(frozen=True)
class OutOfMemory:
    """The kind of an error, and the option that gives more room."""

    kind: str
    change: str


def is_out_of_memory(message: str) -> bool:
    """Whether an error's text says that the card is full."""
    if NOT_FULL in message or NO_SIZE in message or NO_RESOURCES.search(message):
        return False
    plain = any(text.lower() in message.lower() for text in NO_ROOM) or _lacks_cache(message)
    return plain or any(p.search(message) for p in (NO_PLACE, HELD, NO_HANDLE))


def _lacks_cache(message: str) -> bool:
    return any(text in message for text in NO_CACHE) or bool(SMALL_CACHE.search(message))


def telling_line(message: str) -> str:
    """The line of an error's text that says what happened; Unsloth puts its advice first."""
    lines = message.strip().splitlines() or [""]
    telling = (line for line in lines if _lacks_cache(line) or HELD.search(line))
    return next(telling, lines[0])


def explain(message: str, phase: Phase, plan: Plan) -> OutOfMemory:
    """The kind of an out-of-memory error in a phase of a run, and a change that answers it."""
    if _lacks_cache(message):
        return OutOfMemory("the engine's share leaves no KV cache for one sequence", _share(plan))
    if HELD.search(message):
        return OutOfMemory(_who_holds(), _end_holders())
    if NO_HANDLE.search(message):
        return OutOfMemory(
            "no memory was left for the handle of one of CUDA's libraries", _smaller_engine(plan)
        )
    if phase == "cold start":
        return OutOfMemory(
            "the cold start, of all weights, was too large", _smaller_cold_start(plan)
        )
    if cause := _of_allocator(message, phase, plan):
        return cause
    if AT_LOAD.search(message):
        phase = "load"
    subject = "the engine" if plan.backend == "unsloth" else "the model"
    if phase == "load":
        return OutOfMemory(f"{subject} found no room when it was loaded", _smaller_engine(plan))
    if phase == "generate":
        return OutOfMemory(f"{subject} ran out while it generated", _smaller_engine(plan))
    if phase == "first step":
        return OutOfMemory("the first training pass was too large", _smaller_pass(plan))
    return OutOfMemory("memory grew after the first step", _smaller_pass(plan))


def _of_allocator(message: str, phase: Phase, plan: Plan) -> OutOfMemory | None:
    """What torch's own figures, or the place in vLLM, say of the cause."""
    figures = full_card.read(message)
    if figures and figures.others_bytes >= max(figures.tried_bytes, full_card.LEAST_BYTES):
        return OutOfMemory(_who_holds(), _end_holders())
    if figures and figures.unused_bytes >= max(figures.tried_bytes, full_card.LEAST_BYTES):
        change = "export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
        return OutOfMemory(
            "the free memory lies in pieces (fragmentation)",
            _smaller_pass(plan) if plan.preset.standby else change,
        )
    if AT_WAKE.search(message) and phase != "load":
        kind = "the engine found no room when it woke after a training step"
        return OutOfMemory(kind, _smaller_engine(plan))
    return None


def _who_holds() -> str:
    """Who holds the memory that the engine was to have, as far as the driver tells."""
    card = gpu.current()
    others = other_processes(card) if card else []
    holders = [f"{p.name or 'a program'} (process {p.pid})" for p in others]
    return f"the card is held by {' and '.join(holders) or 'other processes'}"


def _end_holders() -> str:
    card = gpu.current()
    return end_another(card) if card else "nvidia-smi"


def _smaller_cold_start(plan: Plan) -> str:
    start = plan.recipe.cold_start
    if start and start.batch_size > 1:
        return f"--set cold_start.batch_size={start.batch_size // 2}"
    return _shorter(plan)


def _share(plan: Plan) -> str:
    share = plan.preset.gpu_memory_utilization
    if share is None:
        return _lighter_weights(plan)
    larger = max(share + SHARE_STEP, _least_share(plan))
    if larger <= auto.MAX_SHARE:
        return flags({"gpu_memory_utilization": round(larger, 2)})
    return _lighter_weights(plan)


def _smaller_engine(plan: Plan) -> str:
    share = plan.preset.gpu_memory_utilization
    if plan.backend == "trl" or share is None:  # without an engine, or a share of its own
        return _lighter_weights(plan)
    smaller = max(share - SHARE_STEP, _least_share(plan))
    if smaller < share:
        return flags({"gpu_memory_utilization": round(smaller, 2)})
    return _lighter_weights(plan)


def _least_share(plan: Plan) -> float:
    """The smallest share whose cache holds one sequence; `LEAST_SHARE` for an unknown shape."""
    shape = disk.shape_of(plan, offline=True)
    if shape is None or plan.usable_bytes is None:
        return LEAST_SHARE
    case = auto.case_of(plan.recipe, plan.preset, shape, plan.usable_bytes)
    return math.ceil(100 * predict.least_share_bytes(case) / plan.usable_bytes) / 100


def _smaller_pass(plan: Plan) -> str:
    """Layers that are computed again, then fewer completions in a pass, which change no result;
    else standby, which frees the cache."""
    if plan.preset.layers_not_recomputed:
        return flags({"layers_not_recomputed": 0})
    batch = plan.per_device_train_batch_size
    smaller = [n for n in plan.step.batches() if n < batch and batch % n == 0]
    if smaller:
        return flags({"per_device_train_batch_size": smaller[-1]})
    if plan.backend == "unsloth" and not plan.preset.standby:
        return flags({"standby": True})
    return _smaller_engine(plan)


def _lighter_weights(plan: Plan) -> str:
    if plan.preset.weights != "4bit":
        return flags({"load_in": "4bit"})
    return _shorter(plan)


def _shorter(plan: Plan) -> str:
    completion = plan.preset.max_completion_length // 2
    prompt = plan.preset.max_seq_length - plan.preset.max_completion_length
    return flags({"max_completion_length": completion, "max_seq_length": completion + prompt})

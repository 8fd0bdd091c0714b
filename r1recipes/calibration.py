"""The constants of the memory prediction that no source derives, each with its physics.

`benchmarks/fit_vram.py` fits those marked "fitted" to measured runs and rewrites the values here;
nothing else may. Status: measured (where and when in `source`), published, or assumed. Limits: one
stack (vllm 0.26.0, unsloth 2026.10.7, torch 2.11), cards of the Hopper generation.
"""

from dataclasses import dataclass
from typing import Literal

GIB = 2**30


@dataclass(frozen=True)
class Constant:
    """A number with what it stands for."""

    value: float
    unit: str
    status: Literal["measured", "published", "assumed"]
    source: str
    physics: str


CALIBRATED: dict[str, Constant] = {
    "context": Constant(
        0.70,
        "GiB",
        "measured",
        "six rehearsals of 2026-11-21, H100 and H200",
        "CUDA context and the kernels that torch, Unsloth and vLLM load when they are imported",
    ),
    "engine_outside": Constant(
        0.13,
        "GiB",
        "published",
        "table in unsloth_zoo 2026.10.7 vllm_utils.py, load_vllm",
        "kernels and workspaces outside torch's allocator, loaded by the engine's first pass",
    ),
    "engine_hidden": Constant(
        4.0,
        "tensors",
        "published",
        "slope of the same table, less the MLP's part",
        "tensors as wide as the hidden state that the engine holds for each token of a pass",
    ),
    "sampler": Constant(
        38.0,
        "bytes",
        "published",
        "slope of the same table from 512 to 1,024 sequences",
        "bytes for each logit while the engine samples: 32-bit logits, sorted ones, indices",
    ),
    "weights_slack": Constant(
        0.008,
        "share",
        "measured",
        "six rehearsals of 2026-11-21, H100 and H200",
        "rounding of each tensor to the allocator's blocks",
    ),
    "graph": Constant(
        0.65,
        "MiB",
        "measured",
        "six rehearsals of 2026-11-21, H100 and H200",
        "a captured CUDA graph's memory for one decoder layer",
    ),
    "graph_pool": Constant(
        0.0,
        "GiB",
        "assumed",
        "nothing measured yet",
        "memory that all captured graphs share, whatever their number",
    ),
    "hidden_copies": Constant(
        10.0,
        "tensors",
        "assumed",
        "counted in unsloth 2026.10.7: norms, residuals, query, output, two gradients",
        "tensors as wide as the hidden state in the recomputed backward pass of one layer",
    ),
    "checkpoints_kept": Constant(
        0.7,
        "share",
        "measured",
        "six rehearsals of 2026-11-21; by the source all but the last are offloaded",
        "share of the layers' checkpoints that are still on the card when the forward pass ends",
    ),
    "logits_kept": Constant(
        2.0,
        "bytes",
        "assumed",
        "the product in 16 bits; 4 if the compiler keeps the 32-bit copy",
        "bytes that stay for each logit of a pass until its backward pass",
    ),
    "logits_at_work": Constant(
        8.0,
        "bytes",
        "assumed",
        "32-bit logits and their gradient",
        "bytes for each logit of one chunk while it is computed",
    ),
    "training_outside": Constant(
        0.15,
        "GiB",
        "assumed",
        "nothing measured yet",
        "kernels and workspaces outside torch's allocator that the first training pass loads",
    ),
    "slack": Constant(
        0.05,
        "share",
        "assumed",
        "5 to 7 % in fitcheck-llm 0.3.1 and agilerl-arena 1.29.0",
        "free space between blocks: share of what a training pass allocates",
    ),
    "error": Constant(
        0.08,
        "share",
        "assumed",
        "the bar; the fit puts the worst error on the points set aside here",
        "how far a measured peak may lie from the prediction",
    ),
}


def values() -> dict[str, float]:
    """The constants by name, sizes in bytes."""
    scale = {"GiB": GIB, "MiB": 2**20}
    return {name: c.value * scale.get(c.unit, 1) for name, c in CALIBRATED.items()}

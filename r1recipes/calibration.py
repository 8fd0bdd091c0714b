"""The constants of the memory prediction that no source derives, each with its physics.

`benchmarks/fit_vram.py` fits those that it has a range for to measured runs and rewrites the values
here; nothing else may. Status: measured (where and when in `source`), published, or assumed.
Limits: one stack (vllm 0.26.0, unsloth 2026.10.7, torch 2.11), cards of the Hopper generation.
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
        0.699,
        "GiB",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "CUDA context and the kernels that torch, Unsloth and vLLM load when they are imported",
    ),
    "engine_outside": Constant(
        0.0613,
        "GiB",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "kernels and workspaces outside torch's allocator, loaded by the engine's first pass",
    ),
    "engine_hidden": Constant(
        6.2,
        "tensors",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
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
        0.0103,
        "share",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "rounding of each tensor to the allocator's blocks",
    ),
    "graph": Constant(
        0.132,
        "MiB",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "what a captured CUDA graph keeps outside torch for one decoder layer in 16 bits",
    ),
    "graph_unpacking": Constant(
        0.171,
        "MiB",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "what such a graph has on top in 4 bits: each matrix is unpacked by a kernel of its own",
    ),
    "load_copy": Constant(
        0.894,
        "share",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "share of the 4-bit weights that is there twice while they are loaded, if there is room",
    ),
    "graph_pool": Constant(
        0.0244,
        "GiB",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "memory that all captured graphs share, whatever their number",
    ),
    "hidden_copies": Constant(
        3.0,
        "tensors",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "tensors as wide as the hidden state in the recomputed backward pass of one layer",
    ),
    "capped_scores": Constant(
        12.0,
        "bytes",
        "assumed",
        "tensors of _softcapping_attention and its backward pass (unsloth 2026.10.7); not measured",
        "bytes for each attention score of one layer where scores are capped (Gemma 2)",
    ),
    "logits_at_work": Constant(
        4.17,
        "bytes",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "bytes for each logit of one chunk while it is computed",
    ),
    "training_outside": Constant(
        0.129,
        "GiB",
        "measured",
        "fit to 22 rehearsals, benchmarks/vram_points",
        "kernels and workspaces outside torch's allocator that the first training pass loads",
    ),
    "error": Constant(
        0.04,
        "share",
        "measured",
        "worst of 38 rehearsals, each model once left out of the fit, rounded up",
        "how far a measured peak may lie from the prediction",
    ),
}


def values() -> dict[str, float]:
    """The constants by name, sizes in bytes."""
    scale = {"GiB": GIB, "MiB": 2**20}
    return {name: c.value * scale.get(c.unit, 1) for name, c in CALIBRATED.items()}

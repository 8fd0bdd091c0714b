"""The constants of the memory prediction that cannot be derived from sources, with their physics.

`benchmarks/memory/fit.py` fits the constants that it has a range for to measured runs and rewrites
their values here; nothing else may. Status: measured (`source` says where and when), published, or
assumed. Limits: one stack (`packages.READ_IN`, torch 2.11), Hopper cards.
"""

from dataclasses import dataclass
from typing import Literal

from r1recipes.machine.units import GIB


@dataclass(frozen=True)
class Constant:
    """A number, where it is from, and what it stands for."""

    value: float
    unit: str
    status: Literal["measured", "published", "assumed"]
    source: str
    physics: str


CALIBRATED: dict[str, Constant] = {
    "context": Constant(
        0.7,
        "GiB",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "CUDA context and the kernels that torch, Unsloth and vLLM load when they are imported",
    ),
    "engine_outside": Constant(
        0.0593,
        "GiB",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "kernels and workspaces outside torch's allocator, loaded by the engine's first pass",
    ),
    "engine_hidden": Constant(
        6.7,
        "tensors",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "tensors as wide as the hidden state that the engine holds for each token of a pass",
    ),
    "sampler": Constant(
        16.0,
        "bytes",
        "measured",
        "torch's peak while generating, 128 and 255 sequences in 16 bits: 12 to 17 (H200)",
        "bytes for each logit while the engine samples: it in 16 and 32 bits, probability, noise",
    ),
    "weights_slack": Constant(
        0.0138,
        "share",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "rounding of each tensor to the allocator's blocks",
    ),
    "graph": Constant(
        0.113,
        "MiB",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "what a captured CUDA graph keeps outside torch for one decoder layer in 16 bits",
    ),
    "graph_unpacking": Constant(
        0.126,
        "MiB",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "what such a graph has on top in 4 bits: each matrix is unpacked by a kernel of its own",
    ),
    "load_copy": Constant(
        0.998,
        "share",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "share of the 4-bit weights that is there twice while they are loaded, if there is room",
    ),
    "hidden_copies": Constant(
        4.09,
        "tensors",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "tensors as wide as the hidden state in the recomputed backward pass of one layer",
    ),
    "capped_scores": Constant(
        12.0,
        "bytes",
        "assumed",
        "tensors of _softcapping_attention and its backward pass (unsloth); not measured",
        "bytes for each attention score of one layer where scores are capped (Gemma 2)",
    ),
    "fragmentation": Constant(
        0.163,
        "share",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "blocks that torch keeps beside the activations of a training pass, while there is room",
    ),
    "standby_kept": Constant(
        0.814,
        "GiB",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "blocks that torch cannot give back when the engine wakes, as something still lies in them",
    ),
    "training_outside": Constant(
        0.117,
        "GiB",
        "measured",
        "fit to 46 rehearsals, benchmarks/memory/points",
        "kernels and workspaces outside torch's allocator that the first training pass loads",
    ),
    "error": Constant(
        0.04,
        "share",
        "measured",
        "worst of 80 rehearsals, each model once left out, rounded up; 1% for other cards",
        "how far a measured peak may lie from the prediction",
    ),
    "error_beyond": Constant(
        0.09,
        "share",
        "measured",
        "worst of 33 settings without standby that were predicted before they were measured, 8.9%",
        "the same beyond the settings and families that were measured (`domain`)",
    ),
    "error_fp8": Constant(
        0.1,
        "share",
        "assumed",
        "FP8 weights are derived from sources alone; settings far from the presets were off by 5%",
        "the same with FP8 weights",
    ),
}


def values() -> dict[str, float]:
    """The constants by name, sizes in bytes."""
    scale = {"GiB": GIB, "MiB": 2**20}
    return {name: c.value * scale.get(c.unit, 1) for name, c in CALIBRATED.items()}

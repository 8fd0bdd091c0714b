"""FP8 with a scale for each output channel, in the layout of compressed-tensors ("FP8-dynamic").

vLLM runs such checkpoints on cards from compute capability 8.9 on, and quantises what goes into a
layer token by token (compressed_tensors_w8a8_fp8.py). Unsloth shares the tensors for training. It
can also let vLLM quantise while loading, but then only from 9.0 on, and its estimate of the
engine's memory counts the weights in 16 bits (load_vllm, `is_fp8`): neither is used here. Limits:
dense decoders only; embeddings and the output head stay in 16 bits.
"""

from collections.abc import Iterator
from typing import Any

import torch

from r1recipes.training.backends.quantised.checkpoint import Form

DTYPE = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of that type."""
LEAST_SCALE = 1e-12
"""For a channel of zeros, which has a scale too; assumed, below those of all that are trained."""


def linear(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that replace one linear layer's weight [outputs, inputs]: it in FP8, and scales
    [outputs, 1] in 32 bits, times which it is the weight again."""
    rows = weight.float()
    scale = (rows.abs().amax(1, keepdim=True) / LARGEST).clamp(min=LEAST_SCALE)
    yield name, (rows / scale).clamp(-LARGEST, LARGEST).to(DTYPE)
    yield f"{name}_scale", scale


def quantization_config(dtype: torch.dtype) -> dict[str, Any]:
    """The entry of config.json for such weights, whatever the `dtype` of the others."""
    shared = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": shared | {"strategy": "channel", "dynamic": False},
        "input_activations": shared | {"strategy": "token", "dynamic": True},
    }
    return {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }
    }


FORM = Form("fp8", linear, quantization_config)

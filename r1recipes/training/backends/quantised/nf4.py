"""NF4 with double quantisation, as the published 4-bit checkpoints have it.

Limits: needs bitsandbytes, and is slow without a GPU.
"""

from collections.abc import Iterator
from typing import Any

import torch

from r1recipes.training.backends.quantised.checkpoint import Form


def linear(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that replace one linear layer's weight, under the names that loaders expect."""
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    yield name, packed
    for key, tensor in state.as_dict(packed=True).items():
        yield f"{name}.{key}", tensor


def quantization_config(dtype: torch.dtype) -> dict[str, Any]:
    """The entry of config.json for such weights."""
    return {
        "quantization_config": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
        }
    }


FORM = Form("nf4", linear, quantization_config)

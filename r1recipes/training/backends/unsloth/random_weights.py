"""A checkpoint of random weights in the exact shape of a model, so that nothing is downloaded.

Memory and speed do not depend on the values. The linear layers are stored as a preset loads them:
as they are, in NF4 as in the published 4-bit checkpoints, or in FP8. The tokenizer is that of the
built-in models, in which a character is a token; ids outside its vocabulary decode to nothing, so
no completion ends before its limit. Limits: NF4 needs an NVIDIA GPU and bitsandbytes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from r1recipes.algorithms.base import LoadIn
from r1recipes.planning.models import ModelShape
from r1recipes.training.backends import builtin, quantised


def write(shape: ModelShape, folder: Path, *, load_in: LoadIn, dtype: torch.dtype) -> None:
    """Write config.json, the weights in shards and a tokenizer to `folder`."""
    form = quantised.FORMS.get(load_in)
    quantised.write(folder, _tensors(shape, form, dtype))
    (folder / "config.json").write_text(json.dumps(_config(shape, form, dtype), indent=1))
    tokenizer = builtin.build_tokenizer()
    tokenizer.model_max_length = 10**6
    tokenizer.save_pretrained(folder)


def _tensors(
    shape: ModelShape, form: quantised.Form | None, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every weight, one at a time."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, device=device, dtype=dtype) * 0.02

    torch.manual_seed(0)
    yield "model.embed_tokens.weight", normal(shape.vocab_size, shape.hidden_size)
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name, (inputs, outputs) in shape.projections.items():
            part = "self_attn" if name[0] in "qkvo" else "mlp"
            weight = normal(outputs, inputs)
            full_name = f"{prefix}{part}.{name}.weight"
            yield from form.linear(full_name, weight) if form else [(full_name, weight)]
            if shape.attention_bias and name[0] in "qkv":
                yield f"{prefix}{part}.{name}.bias", normal(outputs)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", torch.ones(shape.hidden_size, dtype=dtype)
    yield "model.norm.weight", torch.ones(shape.hidden_size, dtype=dtype)
    if not shape.tie_word_embeddings:
        yield "lm_head.weight", normal(shape.vocab_size, shape.hidden_size)


def _config(shape: ModelShape, form: quantised.Form | None, dtype: torch.dtype) -> dict[str, Any]:
    kind = "qwen2" if shape.attention_bias else "llama"
    tokenizer = builtin.build_tokenizer()
    config = {
        "architectures": ["Qwen2ForCausalLM" if kind == "qwen2" else "LlamaForCausalLM"],
        "model_type": kind,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "torch_dtype": str(dtype).removeprefix("torch."),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    return config | (form.config(dtype) if form else {})

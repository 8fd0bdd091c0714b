"""A checkpoint of random weights in the exact shape of a model, so that nothing is downloaded.

Memory and speed do not depend on the values. With `four_bit` the linear layers are stored as NF4
with double quantisation, as the published 4-bit checkpoints are. The tokenizer is the tiny one, in
which a character is a token: ids beyond it decode to nothing, so no completion ends before its
limit. Needs an NVIDIA GPU and bitsandbytes for `four_bit`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from r1recipes.backends import tiny
from r1recipes.catalog import ModelShape

SHARD_BYTES = 4 * 2**30


def write(shape: ModelShape, folder: Path, *, four_bit: bool, dtype: torch.dtype) -> None:
    """Write config.json, the weights in shards and a tokenizer to `folder`."""
    folder.mkdir(parents=True)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    index: dict[str, str] = {}
    for name, tensor in _tensors(shape, four_bit, dtype):
        if size > SHARD_BYTES:
            _save(shards[-1], folder, len(shards), index)
            shards.append({})
            size = 0
        shards[-1][name] = tensor.cpu().contiguous()
        size += tensor.numel() * tensor.element_size()
    _save(shards[-1], folder, len(shards), index)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    (folder / "config.json").write_text(json.dumps(_config(shape, four_bit, dtype), indent=1))
    tokenizer = tiny.build_tokenizer()
    tokenizer.model_max_length = 10**6
    tokenizer.save_pretrained(folder)


def _save(shard: dict[str, torch.Tensor], folder: Path, number: int, index: dict) -> None:
    name = f"model-{number:05}.safetensors"
    save_file(shard, folder / name, metadata={"format": "pt"})
    index.update(dict.fromkeys(shard, name))
    shard.clear()


def _tensors(
    shape: ModelShape, four_bit: bool, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, device=device, dtype=dtype) * 0.02

    torch.manual_seed(0)
    yield "model.embed_tokens.weight", normal(shape.vocab_size, shape.hidden_size)
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}."
        for name, (inputs, outputs) in shape.projections.items():
            part = "self_attn" if name[0] in "qkvo" else "mlp"
            weight = normal(outputs, inputs)
            yield from _linear(f"{at}{part}.{name}.weight", weight, four_bit)
            if shape.attention_bias and name[0] in "qkv":
                yield f"{at}{part}.{name}.bias", normal(outputs)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{name}.weight", torch.ones(shape.hidden_size, dtype=dtype)
    yield "model.norm.weight", torch.ones(shape.hidden_size, dtype=dtype)
    if not shape.tie_word_embeddings:
        yield "lm_head.weight", normal(shape.vocab_size, shape.hidden_size)


def _linear(name: str, weight: torch.Tensor, four_bit: bool) -> Iterator[tuple[str, torch.Tensor]]:
    if not four_bit:
        yield name, weight
        return
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    yield name, packed
    for key, tensor in state.as_dict(packed=True).items():
        yield f"{name}.{key}", tensor


def _config(shape: ModelShape, four_bit: bool, dtype: torch.dtype) -> dict[str, Any]:
    kind = "qwen2" if shape.attention_bias else "llama"
    tokenizer = tiny.build_tokenizer()
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
    if four_bit:
        config["quantization_config"] = {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
        }
    return config

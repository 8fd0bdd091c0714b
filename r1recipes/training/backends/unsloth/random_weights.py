"""A checkpoint of random weights in the exact layout of a model, so that nothing is downloaded.

Memory and speed do not depend on the values. Names and sizes are those of the model's family
(`architectures.families`), so that each loader takes the path that it takes for the model itself.
The linear layers are stored as a preset loads them: as they are, in NF4 as in the published 4-bit
checkpoints, or in FP8. The tokenizer is that of the built-in models, in which a character is a
token; ids outside its vocabulary decode to nothing, so no completion ends before its limit. Limits:
NF4 needs an NVIDIA GPU and bitsandbytes; a model of the catalogue has the defaults of its family
for what does not change sizes, such as its rotary embedding.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from r1recipes.algorithms.base import LoadIn
from r1recipes.planning.architectures.families import FAMILIES, Family
from r1recipes.planning.models import ModelShape
from r1recipes.training.backends import builtin, quantised

DEVIATION = 0.02
"""Standard deviation of the weights, that of most models before they are trained (published)."""
Kind = Literal["linear", "norm", "other"]
"""A linear layer of a block, which a preset may quantise; a norm; all others."""
_NOT_ITS_OWN = ("quantization_config", "auto_map", "dtype", "transformers_version", "_name_or_path")
"""Keys of a config.json that say how its own weights are stored, or name code."""


def write(
    shape: ModelShape,
    folder: Path,
    *,
    load_in: LoadIn,
    dtype: torch.dtype,
    config: dict[str, Any] | None = None,
) -> None:
    """Write config.json, the weights in shards and a tokenizer to `folder`.

    `config`: the model's own config.json, of which `shape` was read; None for the catalogue's.
    """
    form = quantised.FORMS.get(load_in)
    config = config_of(shape, config)
    quantised.write(folder, _tensors(shape, config, form, dtype))
    stored = {"torch_dtype": str(dtype).removeprefix("torch.")}
    stored |= form.config(dtype) if form else {}
    (folder / "config.json").write_text(json.dumps(config | stored, indent=1))
    tokenizer = builtin.build_tokenizer()
    tokenizer.model_max_length = 10**6
    tokenizer.save_pretrained(folder)


def _tensors(
    shape: ModelShape, config: dict[str, Any], form: quantised.Form | None, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every weight, one at a time."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first = 1.0 - FAMILIES[shape.family].norm_offset
    torch.manual_seed(0)
    for name, size, kind in layout(shape, config):
        if kind == "norm":
            yield name, torch.full(size, first, dtype=dtype)
            continue
        weight = torch.randn(*size, device=device, dtype=dtype) * DEVIATION
        yield from form.linear(name, weight) if form and kind == "linear" else [(name, weight)]


def layout(
    shape: ModelShape, config: dict[str, Any]
) -> Iterator[tuple[str, tuple[int, ...], Kind]]:
    """(name, size, kind) of every weight of a model, in the order of its checkpoint."""
    family, hidden = FAMILIES[shape.family], shape.hidden_size
    layers, biased = _layers(shape, family), _biased(shape, family, config)
    yield "model.embed_tokens.weight", (shape.vocab_size, hidden), "other"
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name, (inputs, outputs) in layers.items():
            full_name = prefix + _part(name) + name
            yield f"{full_name}.weight", (outputs, inputs), "linear"
            if name in biased:
                yield f"{full_name}.bias", (outputs,), "other"
        for name, width in _query_norms(shape, family).items():
            yield f"{prefix}self_attn.{name}.weight", (width,), "norm"
        for name in family.norms:
            yield f"{prefix}{name}.weight", (hidden,), "norm"
    yield "model.norm.weight", (hidden,), "norm"
    if not shape.tie_word_embeddings:
        yield "lm_head.weight", (shape.vocab_size, hidden), "other"


def _layers(shape: ModelShape, family: Family) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer of a block, by the names of the family."""
    layers = dict(shape.projections)
    for merged, names in family.merged.items():
        sizes = [layers.pop(name) for name in names]
        layers[merged] = (sizes[0][0], sum(outputs for _, outputs in sizes))
    return layers


def _part(name: str) -> str:
    return "mlp." if name.startswith(("gate", "up", "down")) else "self_attn."


def _biased(shape: ModelShape, family: Family, config: dict[str, Any]) -> set[str]:
    """The linear layers of a block that have a bias."""
    attention = {"q_proj", "k_proj", "v_proj"} | ({"o_proj"} if family.output_bias else set())
    mlp = {"gate_proj", "up_proj", "down_proj"} if config.get("mlp_bias") else set()
    return mlp | (attention if shape.attention_bias else set())


def _query_norms(shape: ModelShape, family: Family) -> dict[str, int]:
    """Name and width of the norms of queries and keys."""
    dim = shape.head_dim
    queries, keys = shape.num_attention_heads * dim, shape.num_key_value_heads * dim
    return {
        "none": {},
        "head": {"q_norm": dim, "k_norm": dim},
        "all": {"q_norm": queries, "k_norm": keys},
    }[family.query_norm]


def config_of(shape: ModelShape, own: dict[str, Any] | None = None) -> dict[str, Any]:
    """config.json for such weights: the model's own, or one with the sizes of its shape, and the
    special tokens of the tokenizer beside them."""
    config = {key: value for key, value in (own or {}).items() if key not in _NOT_ITS_OWN}
    tokenizer = builtin.build_tokenizer()
    return (config or _of_catalogue(shape)) | {
        "architectures": [FAMILIES[shape.family].architecture],
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }


def _of_catalogue(shape: ModelShape) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": shape.family,
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
    }
    if shape.family in ("llama", "qwen2"):
        config |= {"rope_theta": 500000.0, "hidden_act": "silu"}
    if window := shape.sliding_window or shape.window:
        config["sliding_window"] = window
    return config

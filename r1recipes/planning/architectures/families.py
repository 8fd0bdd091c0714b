"""What each family of models has beside Llama's block, and which of them the engine serves.

Read in transformers, vllm, unsloth and unsloth_zoo (`packages.READ_IN`); tests hold names, sizes
and first values of the weights to those that transformers makes. Limits: dense decoders whose
blocks are all alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_INPUT, _ATTENTION = "input_layernorm", "post_attention_layernorm"
_BEFORE, _AFTER = "pre_feedforward_layernorm", "post_feedforward_layernorm"


@dataclass(frozen=True)
class Family:
    """What a `model_type` has beside Llama's block, and its defaults for keys that are missing."""

    architecture: str
    """Class of transformers, under which vLLM looks for its own."""
    norms: tuple[str, ...] = (_INPUT, _ATTENTION)
    """Norms of a block that are as wide as the hidden state."""
    norm_offset: int = 0
    """What a norm adds to its weight: 1 in Gemma's, whose weights begin at 0."""
    query_norm: Literal["none", "head", "all"] = "none"
    """Norms of queries and keys: none, one for all heads, or one as wide as all heads."""
    bias: bool = False
    output_bias: bool = True
    """Whether `attention_bias` also gives o_proj a bias."""
    tied: bool = False
    head_dim: int | None = None
    windowed: bool = False
    """Whether `sliding_window` holds for every layer; other families keep whole sequences in some
    layers."""
    whole_every: int | None = None
    """Each layer of this number keeps whole sequences and the others look back a window, where
    config.json has neither `layer_types` nor `sliding_window_pattern`."""
    capped: bool = False
    """Attention scores are capped, so training computes and keeps all of them."""
    fused: bool = False
    """Unsloth has kernels for it (unsloth, models/loader.py); the other families run as
    transformers has them."""
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Layer that is several of Llama's in one -> their names."""
    no_float16: bool = False
    """vLLM refuses it in float16 (vllm/config/model.py, `_FLOAT16_NOT_SUPPORTED_MODELS`)."""
    unshared: str | None = None
    """Why training cannot share the weights of the engine; None where it can."""


_FOUR = (_INPUT, _ATTENTION, _BEFORE, _AFTER)
_OLMO = (_ATTENTION, _AFTER)
_GATE_UP: dict[str, tuple[str, ...]] = {"gate_up_proj": ("gate_proj", "up_proj")}
_NO_CLASS = (
    "vLLM 0.26 has no class of its own for it (vllm, models/registry.py) and runs that of "
    "transformers, in which Unsloth may not find q, k and v (unsloth_zoo/vllm_utils.py, "
    "_get_vllm_state_dict); nobody has tried"
)

FAMILIES = {
    "llama": Family("LlamaForCausalLM", fused=True),
    "mistral": Family("MistralForCausalLM", windowed=True, fused=True),
    "ministral": Family("MinistralForCausalLM", windowed=True, unshared=_NO_CLASS),
    "ministral3": Family("Ministral3ForCausalLM", windowed=True, head_dim=128),
    "qwen2": Family("Qwen2ForCausalLM", bias=True, output_bias=False, fused=True),
    "qwen3": Family("Qwen3ForCausalLM", query_norm="head", head_dim=128, fused=True),
    "phi3": Family(
        "Phi3ForCausalLM",
        windowed=True,
        merged={"qkv_proj": ("q_proj", "k_proj", "v_proj")} | _GATE_UP,
    ),
    "gemma": Family("GemmaForCausalLM", norm_offset=1, tied=True, head_dim=256, fused=True),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        norms=_FOUR,
        norm_offset=1,
        tied=True,
        head_dim=256,
        whole_every=2,
        capped=True,
        fused=True,
        no_float16=True,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        norms=_FOUR,
        norm_offset=1,
        query_norm="head",
        tied=True,
        head_dim=256,
        whole_every=6,
        no_float16=True,
    ),
    "granite": Family("GraniteForCausalLM"),
    "olmo2": Family("Olmo2ForCausalLM", norms=_OLMO, query_norm="all", unshared=_NO_CLASS),
    "olmo3": Family("Olmo3ForCausalLM", norms=_OLMO, query_norm="all", whole_every=4),
    "smollm3": Family("SmolLM3ForCausalLM", tied=True, unshared=_NO_CLASS),
    "glm": Family(
        "GlmForCausalLM",
        output_bias=False,
        head_dim=128,
        merged=_GATE_UP,
        unshared="its gate and up are one layer, and Unsloth gives training the two into which "
        "vLLM splits it (unsloth_zoo/vllm_utils.py, _get_vllm_state_dict, `_is_fused_module`)",
    ),
}
"""By `model_type`: grouped-query attention, gated MLP, and norms that Unsloth takes over from the
engine (unsloth_zoo/empty_model.py, get_model_layer_config)."""

_LINEAR_ATTENTION = (
    "three of four layers are gated delta nets (transformers, qwen3_5), whose layers no adapter of "
    "a recipe has and whose memory is not predicted"
)
_GEMMA_4 = (
    "its layers differ from one another in heads, width and keys, and have embeddings of their own "
    "(transformers, gemma4), so that memory is not predicted; on a card older than compute "
    "capability 8 Unsloth would not use the engine either"
)
UNPREDICTED = {
    "qwen3_5": _LINEAR_ATTENTION,
    "qwen3_5_text": _LINEAR_ATTENTION
    + "; vLLM 0.26 has no class for its text part alone (vllm, models/registry.py)",
    "qwen3_next": _LINEAR_ATTENTION,
    "gemma4": _GEMMA_4,
    "gemma4_text": _GEMMA_4,
    "gemma4_unified": _GEMMA_4,
    "gemma3n": "its layers have embeddings of their own and share keys (transformers, gemma3n)",
    "gemma3n_text": "its layers have embeddings of their own and share keys (transformers)",
    "gpt_oss": "Unsloth does not share its weights with the engine (unsloth, models/loader.py, "
    "VLLM_UNSUPPORTED_MODEL_TYPES)",
    "lfm2": "most of its layers are convolutions (transformers, lfm2), which no adapter of a "
    "recipe has",
}
"""Well known families that are refused, each with the reason."""
TEXT_PARTS = {"gemma3": "gemma3_text", "mistral3": "ministral3"}
"""Models that also see -> the family of their text part, which is supported as a model of its own:
for a model that sees, Unsloth shares the weights too and gives up standby (unsloth_zoo, load_vllm).
"""

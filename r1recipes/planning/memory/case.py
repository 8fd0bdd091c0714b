"""The settings that the memory of a run depends on."""

from dataclasses import dataclass

from r1recipes.algorithms.base import KvCacheDtype, LoadIn
from r1recipes.planning.models import ModelShape

MAX_NUM_SEQS = 272
"""Most sequences that the engine works on at once, also where a step has more: the first size above
256 of which vLLM captures a graph."""
FOR_256 = 257
"""What is asked for where 256 sequences are meant, of which vLLM then captures a graph: Unsloth
takes 256 itself for "not set" (unsloth_zoo, load_vllm)."""
ADAM_BYTES, ADAM_8BIT_BYTES = 8.0, 2.03
"""Bytes of Adam's two moments of a parameter (derived): in 32 bits, or in 8 bits with a scale for
each 256 values (bitsandbytes)."""


@dataclass(frozen=True)
class Case:
    """Everything that the memory of a run depends on."""

    shape: ModelShape
    load_in: LoadIn
    max_seq_length: int
    max_completion_length: int
    lora_rank: int
    targets: tuple[str, ...]
    num_seqs: int
    """Sequences that the engine is made to work on at once (`engine_sequences`)."""
    batch: int
    """Completions in one forward and backward pass."""
    engine_bytes: int
    """Memory that the engine may take: gpu_memory_utilization times the card's memory."""
    standby: bool
    optimizer_bytes: float
    """Bytes of the optimizer for each trained parameter."""
    layers_not_recomputed: int = 0
    """Decoder layers that keep their activations in a training pass."""
    completions: int | None = None
    """Completions of a step; None where they are as many as the engine works on at once."""
    kv_cache_dtype: KvCacheDtype | None = None
    """How keys and values are stored; None: in 16 bits."""

    trained: int | None = None
    """Completions that a step trains on; None where they are those of `completions`."""
    samples: bool = True
    """Whether a step generates its completions, and so is limited by the engine too."""
    reference: bool = False
    """Whether the base model scores the completions as well."""
    logit_bytes: float = 0.0
    """Bytes for each logit of a whole pass; 0 where a few rows at a time are computed."""

    @property
    def at_once(self) -> int:
        """Sequences that are worked on at once; the engine may have room for a few more."""
        return min(self.num_seqs, self.completions or self.num_seqs)

    @property
    def kv_token_bytes(self) -> int:
        """KV cache of one token. With a scale for each token and head, key and value have one of 32
        bits (vllm/v1/kv_cache_interface.py, AttentionSpec)."""
        if self.kv_cache_dtype is None:
            return self.shape.kv_token_bytes
        scales = 8 if self.kv_cache_dtype == "int8_per_token_head" else 0
        heads = self.shape.kv_layers * self.shape.num_key_value_heads
        return self.shape.kv_token_bytes // 2 + heads * scales

    @property
    def sized_kv_token_bytes(self) -> float:
        """The same by Unsloth's estimate, which has 1.25 bytes for fp8 and knows of no other 8 bits
        (approximate_vllm_memory_usage). Of windows it counts less only beyond 16,384 tokens."""
        token_bytes = self.shape.num_hidden_layers * self.shape.layer_kv_bytes
        return token_bytes * (1.25 / 2 if self.kv_cache_dtype == "fp8" else 1)


def engine_sequences(completions: int) -> int:
    """Sequences that the engine is made to work on at once, for a step of so many completions.

    Decoding is one CUDA graph where the number of sequences, padded to the next size that vLLM
    captures (1, 2, 4, then each 8), is no more than the engine was made for. Otherwise attention
    is launched layer by layer, so the number is rounded up to such a size
    (vllm/v1/worker/gpu/cudagraph_utils.py, `_init_candidates`).
    """
    if completions > 256:
        return MAX_NUM_SEQS
    if completions <= 4:
        return min(4, 2 ** (completions - 1).bit_length())
    rounded = -(-completions // 8) * 8
    return FOR_256 if rounded == 256 else rounded

"""The settings that the memory of a run depends on."""

from dataclasses import dataclass

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
    four_bit: bool
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
    completions: int | None = None
    """Completions of a step; None where they are as many as the engine works on at once."""

    @property
    def at_once(self) -> int:
        """Sequences that are worked on at once; the engine may have room for a few more."""
        return min(self.num_seqs, self.completions or self.num_seqs)


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

"""The settings that the memory of a run depends on."""

from dataclasses import dataclass

from r1recipes.planning.models import ModelShape

MAX_NUM_SEQS = 255
"""Most sequences that the engine works on at once, also where a step has more. Unsloth takes 256
for "not set" (unsloth_zoo, load_vllm)."""
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
    """Sequences that the engine works on at once."""
    batch: int
    """Completions in one forward and backward pass."""
    engine_bytes: int
    """Memory that the engine may take: gpu_memory_utilization times the card's memory."""
    standby: bool
    optimizer_bytes: float
    """Bytes of the optimizer for each trained parameter."""
    layers_not_recomputed: int = 0
    """Decoder layers that keep their activations in a training pass."""

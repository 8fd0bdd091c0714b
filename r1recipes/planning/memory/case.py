"""What the memory of a run depends on."""

from dataclasses import dataclass

from r1recipes.planning.models import ModelShape

MAX_NUM_SEQS = 255
"""Sequences at once at most, also where a step has more; 256 would be read as "not given"
(unsloth_zoo, load_vllm)."""


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
    """What the engine may take: gpu_memory_utilization times the card's memory."""
    standby: bool
    optimizer_bytes: float = 2.03
    """For each trained parameter: two moments in 8 bits with a scale for each 256 (bitsandbytes);
    8 for moments in 32 bits."""

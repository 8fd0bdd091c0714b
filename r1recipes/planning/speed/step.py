"""How long a step takes, roughly: enough to tell which of two settings is faster.

The roofline of generation and training (memory traffic, arithmetic) with the overheads that were
measured on an H100. Limits: each completion is counted at its full length; a card whose speed is
not known counts as an RTX 4090 (`machine.cards.UNLISTED`).
"""

from r1recipes.machine.cards import Peak
from r1recipes.planning.memory.case import Case

UNPACKED_BYTES = 4.5
"""Bytes of memory traffic for a 4-bit weight in decoding: bitsandbytes reads the weight, then
writes and reads it in 16 bits."""
DECODE_STEP_S = 0.003
"""Seconds of a decoding step beside its traffic: 3.8 ms a token for Qwen2.5 1.5B in 16 bits, 0.9 of
them traffic (measured, H100, 2026-11-21)."""
UTILIZATION = 0.4
"""Share of the card's operations that a training pass reaches; Llama 3.1 8B and Phi-4 (measured,
benchmarks/memory)."""
LAYER_PASS_S = 0.006
"""Seconds of a small training pass for each layer; Qwen2.5 1.5B (measured, benchmarks/memory)."""
STANDBY_S = 3.9
"""Seconds that the engine takes to sleep and wake in a step (published: a log of Unsloth on an A100
40GB)."""


def step_s(case: Case, completions: int, kv_tokens: int, peak: Peak) -> float:
    """Seconds of an optimiser step over `completions`, with a KV cache of `kv_tokens`."""
    return _generation_s(case, completions, kv_tokens, peak) + _training_s(case, completions, peak)


def _generation_s(case: Case, completions: int, kv_tokens: int, peak: Peak) -> float:
    shape, length = case.shape, case.max_completion_length
    context = case.max_seq_length - length / 2
    at_once = max(1.0, min(case.num_seqs, completions, kv_tokens / context))
    head = 2 * shape.vocab_size * shape.hidden_size
    weights = shape.linear_parameters * (UNPACKED_BYTES if case.four_bit else 2) + head
    traffic = (weights + at_once * context * shape.kv_token_bytes) / peak.bandwidth
    arithmetic = 2 * at_once * (shape.linear_parameters + head / 2) / peak.operations
    token_s = max(traffic, arithmetic) + DECODE_STEP_S
    return length * completions / at_once * token_s + (STANDBY_S if case.standby else 0.0)


def _training_s(case: Case, completions: int, peak: Peak) -> float:
    shape = case.shape
    # forward, forward again for the backward pass, and the gradient of each layer's input
    operations = 6 * case.batch * case.max_seq_length * shape.linear_parameters
    pass_s = max(operations / peak.operations / UTILIZATION, LAYER_PASS_S * shape.num_hidden_layers)
    return pass_s * completions / case.batch

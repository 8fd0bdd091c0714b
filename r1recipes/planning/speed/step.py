"""How long a step takes, roughly: enough to tell which of two settings is faster.

Generation is decoding steps, each of which reads the weights and launches kernels, and tokens, each
of which reads its KV cache and costs the host time. Training is passes, each bound by arithmetic or
by the launches of its layers. Constants are fitted to 76 rehearsals of nine models, of which the
model misses a generation by 7 % and a training pass by 11 % on average (benchmarks/speed/model.py).
Limits: measured on H100 and H200 alone, on hosts that are faster than most; a card whose speed is
not known counts as an RTX 4090 (`machine.cards.UNLISTED`); the prefill of prompts is left out, and
so is the unpacking of 4-bit weights in training: counted by its traffic, it made the model miss a
training pass by 12.4 instead of 11.0 % (81 rehearsals, 2026-11-26).
"""

import math
from dataclasses import dataclass

from r1recipes.algorithms.base import LoadIn
from r1recipes.machine.cards import Peak
from r1recipes.planning.memory.case import Case
from r1recipes.planning.speed.lengths import Lengths

UNPACKED_BYTES = 4.5
"""Bytes of memory traffic for a 4-bit weight in decoding: bitsandbytes reads the weight, then
writes and reads it in 16 bits (derived)."""
TRAFFIC_BYTES: dict[LoadIn, float] = {"16bit": 2, "fp8": 1, "4bit": UNPACKED_BYTES}
"""Bytes of memory traffic for a weight of a linear layer in decoding (derived)."""
UNPACK_S = 0.51e-12
"""Seconds of a decoding step for each 4-bit weight beside that traffic; fitted."""
LAUNCH_S: dict[LoadIn, float] = {"16bit": 91e-6, "4bit": 154e-6, "fp8": 103e-6}
"""Seconds of a decoding step for each layer beside its traffic; fitted. FP8: assumed, that in 16
bits and 3 microseconds for each of the four kernels that quantise what goes into qkv, o, gate_up
and down (vllm, kFp8DynamicTokenSym)."""
FP8_SPEEDUP = 2
"""Operations a second of FP8 by those in 16 bits, dense (published, data sheets of Ada and Hopper);
in decoding alone: vLLM multiplies in FP8 (W8A8)."""
FP8_UNPACK_BYTES = 9
"""Bytes of memory traffic for an FP8 weight in the backward pass of training: read, written in 16
bits, read and written times its scales, read (unsloth/kernels/fp8.py, weight_dequant; derived). The
forward pass multiplies in FP8 too, and is counted as in 16 bits: what it quantises first takes
time, and Unsloth says that its FP8 layers train more slowly than 16 bits (loader_utils.py,
_route_compressed_tensors_fp8_to_unsloth). None of this has been measured."""
TOKEN_S = 11.4e-6
"""Seconds of the host for each token that is generated: scheduling and the sequence's own state,
all in one thread; fitted to five rehearsals (H100, 2026-11-26)."""
TEXT_TOKEN_S = 39.5e-6
"""The same where the engine also makes the text and the log-prob of each token, as it did until
2026-11-26; fitted, and 32 to 51 measured on the CPU alone."""
KV_SHARE = 0.77
"""Share of its greatest length that a sequence takes of the KV cache on average, where not all fit
at once: half were they all of one age; fitted. The prompt of a group is held once."""
STANDBY_S = 0.2
"""Seconds that the engine takes to sleep and wake in a step; the most in 5 rehearsals."""
UTILIZATION = 0.51
"""Share of the card's operations that a large training pass reaches; fitted."""
LAYER_PASS_S = 0.0063
"""Seconds of a small training pass for each layer; fitted."""
CHUNK_ROWS, CHUNK_S = 256, 0.0027
"""Rows of logits that are computed at a time (`environment.prepare`), and their seconds beside the
arithmetic; fitted."""
PASS_PADDING = 1.4
"""Tokens of the training passes of a step with real lengths, by those that the step has; measured
for 256 completions in passes of 32 at most (benchmarks/speed/results/passes)."""
BEND = 3
"""How sharply a pass goes over from launches to arithmetic: (a^3 + b^3)^(1/3); fitted, of 2, 3, 4
and 8."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimiser step."""

    generation_s: float
    training_s: float

    @property
    def step_s(self) -> float:
        return self.generation_s + self.training_s


@dataclass(frozen=True)
class _Tokens:
    """Lengths of a step's prompts and completions, in tokens."""

    prompt: float
    mean: float
    longest: float


def step(
    case: Case,
    completions: int,
    group: int,
    kv_tokens: int,
    peak: Peak,
    lengths: Lengths | None = None,
    *,
    plain: bool = False,
) -> StepTime:
    """Time of an optimiser step over `completions` in groups of `group`, with a KV cache of
    `kv_tokens`; at full length, or with the lengths that are given. `plain`: with text and
    log-probs of each token, and completions padded to the longest of the step."""
    limit = case.max_completion_length
    prompt_limit = case.max_seq_length - limit
    tokens = _Tokens(prompt_limit, limit, limit)
    if lengths:
        mean, longest = lengths.expected(completions, limit)
        tokens = _Tokens(lengths.expected_prompt(prompt_limit), mean, longest)
    return StepTime(
        _generation_s(case, completions, group, kv_tokens, peak, tokens)
        + completions * tokens.mean * (TEXT_TOKEN_S if plain else TOKEN_S)
        if case.samples
        else 0.0,
        _training_s(case, *_passes(case, completions, tokens, plain), peak),
    )


def _generation_s(
    case: Case, completions: int, group: int, kv_tokens: int, peak: Peak, tokens: _Tokens
) -> float:
    shape, total = case.shape, completions * tokens.mean
    steps = _decoding_steps(case, completions, group, kv_tokens, tokens)
    head = 2 * shape.vocab_size * shape.hidden_size
    weights = shape.linear_parameters * TRAFFIC_BYTES[case.load_in] + head
    unpack_s = shape.linear_parameters * UNPACK_S if case.load_in == "4bit" else 0.0
    faster = FP8_SPEEDUP if case.load_in == "fp8" else 1
    arithmetic_s = total * 2 * (shape.linear_parameters / faster + head / 2) / peak.operations
    cache_s = total * (tokens.prompt + tokens.mean / 2) * case.kv_token_bytes / peak.bandwidth
    launch_s = steps * (LAUNCH_S[case.load_in] * shape.num_hidden_layers + unpack_s)
    read_s = max(steps * weights / peak.bandwidth, arithmetic_s)
    return read_s + launch_s + cache_s + (STANDBY_S if case.standby else 0.0)


def _decoding_steps(
    case: Case, completions: int, group: int, kv_tokens: int, tokens: _Tokens
) -> float:
    """Decoding steps until the last completion has ended. Completions that have to wait for others
    take their place as these end; those of equal length end together."""
    held = tokens.prompt / group + KV_SHARE * tokens.mean
    slots = max(1.0, min(case.num_seqs, completions, kv_tokens / held))
    rounds = max(1.0, completions / slots)
    if slots == case.num_seqs and tokens.mean == tokens.longest:
        rounds = math.ceil(rounds)
    return rounds * tokens.mean + tokens.longest - tokens.mean


def _passes(
    case: Case, completions: int, tokens: _Tokens, plain: bool
) -> tuple[float, float, float]:
    """Number of training passes of a step; tokens of each, and those of them that have logits."""
    passes = completions / case.batch
    padded, rows = case.batch * (tokens.prompt + tokens.longest), case.batch * tokens.longest
    if plain or not case.samples or tokens.mean == tokens.longest:
        return passes, padded, rows
    total = min(passes * padded, PASS_PADDING * completions * (tokens.prompt + tokens.mean))
    fewer = min(passes, total / (case.batch * case.max_seq_length) + 1)
    return (
        fewer,
        total / fewer,
        min(passes * rows, PASS_PADDING * completions * tokens.mean) / fewer,
    )


def _training_s(case: Case, passes: float, padded: float, rows: float, peak: Peak) -> float:
    """Passes of `padded` tokens each, of which `rows` have logits. Forward, forward again for the
    backward pass where a layer is recomputed, and the gradient of each layer's input: two or three
    times two operations a weight."""
    shape = case.shape
    head = shape.vocab_size * shape.hidden_size
    again = 1 - case.layers_not_recomputed / shape.num_hidden_layers
    forward = 0 if case.samples or not case.reference else 1  # of the reference
    operations = (4 + 2 * again) * padded * shape.linear_parameters + 6 * rows * head
    operations += forward * 2 * (padded * shape.linear_parameters + rows * head)
    arithmetic_s = operations / peak.operations / UTILIZATION
    launch_s = LAYER_PASS_S * shape.num_hidden_layers
    pass_s = (launch_s**BEND + arithmetic_s**BEND) ** (1 / BEND) + rows / CHUNK_ROWS * CHUNK_S
    if case.load_in == "fp8":
        pass_s += FP8_UNPACK_BYTES * shape.linear_parameters / peak.bandwidth
    return pass_s * passes

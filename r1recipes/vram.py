"""Predicted memory of a run by part and phase, in bytes: arithmetic only, no torch.

A run has three phases. `load`: the engine takes its share and captures its graphs. `generate`: it
fills the share. `train`: one forward and backward pass beside it, or in place of its KV cache in
standby. The peak is the largest phase. What the libraries' sources decide is derived here, from
vllm 0.26.0 and unsloth, unsloth_zoo 2026.10.7; the rest are constants in `calibration`.

More of anything never needs less: every part only grows with every setting. One thing is no more:
an adapter on all of the MLP, for which Unsloth has a kernel that needs less. Limits: dense decoders
of the Llama family, one NVIDIA GPU, LoRA, the backend `unsloth`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from r1recipes import calibration
from r1recipes.catalog import ModelShape

GIB = 2**30
PHASES = ("load", "generate", "train")
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in NF4: half a byte, a scale of one byte for 64, a scale of those in 4 for 256 x 64."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM has slots for; Unsloth rounds up (vllm/config/lora.py)."""
BLOCK_TOKENS = 16
"""Tokens of a block of the KV cache, vLLM's default."""
LADDER = ((0, 2048), (4, 4096), (12, 6144), (24, 8192))
"""GiB of KV cache from which on the engine's largest pass has so many tokens (load_vllm)."""
LADDER_SLOPE = NF4_BYTES / 0.625
"""Below a step its pass is counted less by this for each byte that is missing: a 4-bit weight takes
so much of what Unsloth counts, so that more weights never mean less memory."""
PROFILED_TOKENS = 2048
"""Tokens of the smallest pass that the engine is sized for."""
CHUNK_ROWS = 256
"""Rows of logits that are made at a time; the backend sets it (backends._prepare_unsloth)."""
LOGIT_BYTES = 4
"""A logit of that chunk and its gradient in 16 bits; what lies between is fused by compilation."""
MAX_NUM_SEQS = 255
"""Sequences at once at most, also where a step has more; 256 would be read as "not given"
(unsloth_zoo, load_vllm)."""
FUSED_MLP_BYTES, PLAIN_MLP_BYTES = 6, 12
"""For each token and unit of a layer's MLP, in its backward pass in 16 bits. Unsloth's kernel works
in place on gate, up and their product (kernels/fast_lora.py); autograd through transformers' MLP
keeps gate, its activation and up, and makes the gradients of the product and of both factors."""
MLP = {"gate_proj", "up_proj", "down_proj"}
TORCH_SHARE, OUTSIDE_TORCH = 0.97, GIB
"""The backend lets torch's allocator have this share of the card, less this (limit_allocator)."""

Verdict = Literal["fits", "tight", "does not fit"]


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


@dataclass(frozen=True)
class Prediction:
    """Bytes by part for each phase, and what the engine can hold."""

    phases: dict[str, dict[str, int]]
    kv_tokens: int
    """Tokens that fit into the KV cache; below 0 when not even the weights fit the share."""
    sized_tokens: int
    """Tokens that Unsloth believes to fit; below max_seq_length it shortens the sequences."""
    spare: dict[str, int]
    """Bytes that a phase takes on top where there is room, and does without where there is none."""

    @property
    def peaks(self) -> dict[str, int]:
        return {phase: sum(parts.values()) for phase, parts in self.phases.items()}

    @property
    def peak_bytes(self) -> int:
        return max(self.peaks.values())

    @property
    def peak_phase(self) -> str:
        return max(self.peaks, key=self.peaks.__getitem__)


def predict(case: Case, constants: dict[str, float] | None = None) -> Prediction:
    """Memory of a run. `constants`: in place of the calibrated ones, while they are fitted."""
    known = constants or _calibrated()
    weights, slots, work, outside = share = _engine_share(case, known)
    cache = case.engine_bytes - sum(share)
    adapter = _lora_parameters(case.shape, case.lora_rank, case.targets)
    tokens = cache // kv_token_bytes(case.shape) // BLOCK_TOKENS * BLOCK_TOKENS
    resident = {
        "context": round(known["context"]),
        "weights": weights,
        "LoRA in the engine": slots,
        "KV cache": max(0, cache),
        "engine": work + outside,
        "CUDA graphs": _graphs(case, known),
        "adapter": 4 * adapter,
    }
    state = round(case.optimizer_bytes * adapter)
    # The engine gets the adapter as tensors in 16 bits. It samples beside the blocks of its pass.
    sampled = round(known["sampler"] * case.num_seqs * case.shape.vocab_size)
    generate = resident | {"optimizer": state, "adapter": 6 * adapter}
    generate |= {"engine": work + sampled + outside} | _unpacked(case)
    train = resident | {"optimizer": state}
    train |= {"KV cache": 0} if case.standby else {}
    train |= _training_pass(case, known) | _unpacked(case)
    phases = {"load": resident, "generate": generate, "train": train}
    spare = _spare(case, known, phases, work)
    return Prediction(phases, tokens, _sized_tokens(case), spare)


def _spare(
    case: Case, known: dict[str, float], phases: dict[str, dict[str, int]], work: int
) -> dict[str, int]:
    """What each phase takes while there is room; `work`: bytes of the engine's pass."""
    generate, train = phases["generate"], phases["train"]
    # The copy gets the blocks of the engine's pass first, and is gone when the adapter is made.
    base = _weights(case.shape, case.four_bit) if case.four_bit else 0
    copy = round(known["load_copy"] * base) - work - phases["load"]["adapter"]
    # Blocks lie idle in a training pass: those of the engine's, or more.
    idle = round(known["fragmentation"] * train["training activations"]) - work
    # torch keeps the blocks of a training pass while the engine works; in standby it gives them
    # back before, but for those in which something still lies.
    kept = sum(train.values()) - sum(generate.values())
    kept = round(known["standby_kept"]) if case.standby else kept
    return {"load": max(0, copy), "generate": max(0, kept), "train": max(0, idle)}


def expected_bytes(prediction: Prediction, case: Case, usable_bytes: int) -> dict[str, int]:
    """What the driver will show for each phase: what it needs, and what it takes while there is
    room.

    The copy of the 4-bit weights that loading makes is there wholly or not at all; it was never
    seen where it would not have fitted. More than `usable_bytes` is only said of a need.
    """
    limit = room_bytes(prediction, case, usable_bytes)
    need, spare = prediction.peaks, prediction.spare
    found = {phase: max(need[phase], min(need[phase] + spare[phase], limit)) for phase in PHASES}
    whole = need["load"] + spare["load"]
    return found | {"load": whole if whole <= limit else need["load"]}


def room_bytes(prediction: Prediction, case: Case, usable_bytes: int) -> int:
    """What a run may take of the card: without standby torch is stopped at the backend's limit.

    What is outside torch comes on top of that.
    """
    if case.standby:
        return usable_bytes
    train = prediction.phases["train"]
    outside = train["context"] + train["CUDA graphs"] + train["training kernels"]
    return min(usable_bytes, round(TORCH_SHARE * usable_bytes - OUTSIDE_TORCH + outside))


@lru_cache(maxsize=1)
def _calibrated() -> dict[str, float]:
    return calibration.values()


def verdict(prediction: Prediction, case: Case, usable_bytes: int) -> Verdict:
    """Whether a run fits into `usable_bytes`, within the error that the prediction has.

    "tight": the memory lies within the error of the peak, so it may run.
    """
    error, peak = calibration.CALIBRATED["error"].value, prediction.peak_bytes
    room = room_bytes(prediction, case, usable_bytes)
    if lacking_tokens(prediction, case) > 0 or peak * (1 - error) > room:
        return "does not fit"
    return "fits" if peak * (1 + error) <= room else "tight"


def lacking_tokens(prediction: Prediction, case: Case) -> int:
    """Tokens that the KV cache is short of for one sequence; 0 or less when it holds one."""
    return sequence_tokens(case) - min(prediction.kv_tokens, prediction.sized_tokens)


def sequence_tokens(case: Case) -> int:
    """Tokens that a whole sequence keeps in the KV cache.

    Behind a sliding window they are given back, but for those of the passes that are under way
    (unsloth_zoo/vllm_utils.py, _kv_cache_tokens).
    """
    window = case.shape.sliding_window
    return min(case.max_seq_length, window + 2 * 8192) if window else case.max_seq_length


def kv_token_bytes(shape: ModelShape) -> int:
    """KV cache of one token in 16 bits."""
    return 4 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim


def _engine_share(case: Case, known: dict[str, float]) -> tuple[int, int, int, int]:
    """What the engine's share holds beside the KV cache: weights, slots, pass, outside torch."""
    weights = round(_weights(case.shape, case.four_bit) * (1 + known["weights_slack"]))
    work, outside = _engine_work(case, known), round(known["engine_outside"])
    return weights, _slots(case.shape, case.lora_rank), work, outside


@lru_cache(maxsize=256)
def _weights(shape: ModelShape, four_bit: bool) -> int:
    """The one copy of the base weights that engine and training share."""
    rest = 2 * (shape.embedding_parameters + shape.small_parameters)
    return round(shape.linear_parameters * (NF4_BYTES if four_bit else 2)) + rest


@lru_cache(maxsize=1024)
def _lora_parameters(shape: ModelShape, rank: int, targets: tuple[str, ...]) -> int:
    widths = sum(sum(shape.projections[name]) for name in targets)
    return shape.num_hidden_layers * rank * widths


@lru_cache(maxsize=1024)
def _slots(shape: ModelShape, lora_rank: int) -> int:
    """Bytes of the engine's slots for an adapter, which are there for every layer."""
    rank = next(n for n in LORA_RANKS if n >= lora_rank)
    return 2 * _lora_parameters(shape, rank, tuple(shape.projections))


def _sized_tokens(case: Case) -> int:
    """Tokens of KV cache by Unsloth's own estimate (approximate_vllm_memory_usage).

    It decides the length of a sequence and, by the ladder, the engine's pass.
    """
    left = _sized_bytes(case)
    return int(0.95 * left / kv_token_bytes(case.shape)) // 256 * 256


def _sized_bytes(case: Case) -> float:
    overhead = _sized_overhead(case.shape, case.four_bit, case.lora_rank)
    return max(0.0, case.engine_bytes - overhead)


@lru_cache(maxsize=1024)
def _sized_overhead(shape: ModelShape, four_bit: bool, lora_rank: int) -> float:
    """What Unsloth's estimate keeps for everything but the KV cache."""
    weights = shape.linear_parameters * (0.625 if four_bit else 2)
    weights += 2 * (shape.embedding_parameters + shape.small_parameters)
    graphs = min(max(172 * 4 * shape.hidden_size * shape.num_hidden_layers, 0.15 * GIB), GIB)
    return weights + _slots(shape, lora_rank) + graphs


def _engine_work(case: Case, known: dict[str, float]) -> int:
    """Memory of the engine's largest pass, by which it sizes its KV cache.

    Near a step of the ladder Unsloth, which counts a little differently, may be above it already.
    """
    left, work = _sized_bytes(case), 0.0
    for step, size in _engine_passes(case, known):
        work = max(work, size if left >= step else size - LADDER_SLOPE * (step - left))
    return round(work)


def engine_pass(case: Case, known: dict[str, float]) -> float:
    """Bytes of the pass that the ladder gives when Unsloth's estimate is what it is here."""
    left = _sized_bytes(case)
    return max(size for step, size in _engine_passes(case, known) if left > step or step == 0)


def _engine_passes(case: Case, known: dict[str, float]) -> tuple[tuple[int, float], ...]:
    tokens = max(case.num_seqs * case.max_seq_length, PROFILED_TOKENS)
    return _passes(case.shape, case.four_bit, tokens, known["engine_hidden"])


@lru_cache(maxsize=1024)
def _passes(
    shape: ModelShape, four_bit: bool, most_tokens: int, hidden: float
) -> tuple[tuple[int, float], ...]:
    """Unsloth's ladder: bytes of KV cache from which on a pass is taken, bytes of that pass."""
    # gate and up, their product, and what is as wide as the hidden state, in 16 bits
    wide = 6 * shape.intermediate_size + 2 * hidden * shape.hidden_size
    unpacked = 2 * shape.hidden_size * shape.intermediate_size if four_bit else 0
    return tuple(
        (step * GIB, min(tokens, most_tokens) * wide + unpacked) for step, tokens in LADDER
    )


def capture_sizes(largest: int) -> int:
    """Batch sizes that are captured up to one: 1, 2, 4, each 8 to 256, then each 16 (vllm)."""
    small = (largest >= 1) + (largest >= 2) + (largest >= 4)
    return small + min(largest, 255) // 8 + max(0, (largest - 256) // 16 + 1)


def _graphs(case: Case, known: dict[str, float]) -> int:
    """CUDA graphs: they come on top of the engine's share (vllm/v1/worker/gpu, model_runner.py).

    Whole ones up to the sequences at once and piecewise ones up to twice that, each with and
    without an adapter. A graph in 4 bits has more kernels: each matrix is unpacked.
    """
    captured = 2 * (capture_sizes(case.num_seqs) + capture_sizes(min(2 * case.num_seqs, 512)))
    each = known["graph"] + (known["graph_unpacking"] if case.four_bit else 0)
    return round(each * captured * case.shape.num_hidden_layers)


def _training_pass(case: Case, known: dict[str, float]) -> dict[str, int]:
    """One forward and backward pass over all completions of a batch as a single stream.

    Logits are made again in the backward pass: of a row, a number in 32 bits stays
    (unsloth_zoo/rl_replacements.py, chunked_hidden_states_selective_log_softmax_recompute). Those
    of one chunk are added to the layer's: what is measured grows with both at every batch.
    """
    completion = _activations(case, known)
    rows = case.batch * case.max_completion_length
    # In the only pass of a step gradients come as activations go: at most those of a batch that is
    # smaller by one completion lie beside it. Later passes find them there.
    gradient = 4 * _lora_parameters(case.shape, case.lora_rank, case.targets)
    if case.num_seqs <= case.batch < MAX_NUM_SEQS:
        gradient = max(0, gradient - completion)
    return {
        "gradient": gradient,
        "training activations": case.batch * completion,
        "logits": LOGIT_BYTES * min(rows, CHUNK_ROWS) * case.shape.vocab_size + 4 * rows,
        "training kernels": round(known["training_outside"]),
    }


def _activations(case: Case, known: dict[str, float]) -> int:
    """Bytes of one completion in a training pass: what each layer keeps, and one layer's backward
    pass."""
    shape, tokens = case.shape, case.max_seq_length
    hidden = 2 * tokens * shape.hidden_size
    # Unsloth may move them to main memory; at no measured size has it made a difference.
    checkpoints = hidden * shape.num_hidden_layers
    attention = 2 * shape.head_dim * (shape.num_attention_heads + shape.num_key_value_heads)
    # Unsloth's kernel is for an adapter on all of the MLP (unsloth/models/llama.py).
    fused = shape.fused_mlp and MLP <= set(case.targets)
    mlp = (FUSED_MLP_BYTES if fused else PLAIN_MLP_BYTES) * shape.intermediate_size
    layer = tokens * (mlp + 2 * attention)  # query, key, value, output
    layer += known["hidden_copies"] * hidden
    if shape.capped_attention:  # no kernel caps scores, so all of them are made
        scores = tokens * case.max_seq_length * shape.num_attention_heads
        layer += known["capped_scores"] * scores
    return round(checkpoints + layer)


def _unpacked(case: Case) -> dict[str, int]:
    """The buffer in which training unpacks a matrix; once made, it stays.

    (unsloth/kernels/utils.py, fast_dequantize)
    """
    size = 2 * case.shape.hidden_size * case.shape.intermediate_size
    return {"unpacked weight": size} if case.four_bit else {}


def least_share_bytes(case: Case, sequences: int = 1) -> int:
    """The smallest engine share whose KV cache holds `sequences` whole sequences.

    It also satisfies Unsloth's own, coarser estimate for one.
    """
    known, token, each = _calibrated(), kv_token_bytes(case.shape), sequence_tokens(case)
    overhead = _sized_overhead(case.shape, case.four_bit, case.lora_rank)
    least = overhead + math.ceil(each / 256) * 256 * token / 0.95 + 1
    weights, slots, _, outside = _engine_share(case, known)
    rest = weights + slots + outside
    rest += math.ceil(sequences * each / BLOCK_TOKENS) * BLOCK_TOKENS * token
    for step, work in _engine_passes(case, known):
        size = rest + work + 1
        if step and size < overhead + step:  # below the step, where the pass is counted less
            size = (size - LADDER_SLOPE * (overhead + step)) / (1 - LADDER_SLOPE)
        least = max(least, size)
    return math.ceil(least)

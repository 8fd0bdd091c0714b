"""Predicted memory of a run by part and phase, in bytes: arithmetic only, no torch.

A run has three phases. `load`: the engine takes its share and captures its graphs. `generate`: it
fills the share. `train`: one forward and backward pass beside it, or in place of its KV cache in
standby. The peak is the largest phase. What the libraries' sources decide is derived here, from
vllm 0.26.0 and unsloth, unsloth_zoo 2026.10.7; the rest are constants in `calibration`.

More of anything never needs less: every part only grows with every setting. Limits: dense decoders
of the Llama family, one NVIDIA GPU, LoRA, the backend `unsloth`.
"""

from dataclasses import dataclass, replace
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
PROFILED_TOKENS = 2048
"""Tokens of the smallest pass that the engine is sized for."""
LOGITS_BYTES = 2**29
"""Logits of one chunk in 16 and 32 bits; the backend splits completions by it."""

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
    weights, slots, adapter = _weights(case.shape, case.four_bit), *_lora(case)
    weights = round(weights * (1 + known["weights_slack"]))
    sized = _sized_tokens(case)
    work, least = _engine_work(case, known)
    outside = round(known["engine_outside"])
    cache = case.engine_bytes - weights - slots - work - outside
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
    # The engine gets the adapter as tensors in 16 bits.
    generate = resident | {"optimizer": state, "adapter": 6 * adapter}
    # torch keeps what the engine's pass used and gives it to the training pass.
    kept = {"engine": work - least + outside}
    kept |= {"KV cache": 0} if case.standby else {}
    train = resident | kept | {"optimizer": state, "gradient": 4 * adapter}
    train |= _training_pass(case, known)
    return Prediction({"load": resident, "generate": generate, "train": train}, tokens, sized)


@lru_cache(maxsize=1)
def _calibrated() -> dict[str, float]:
    return calibration.values()


def verdict(prediction: Prediction, case: Case, usable_bytes: int) -> Verdict:
    """Whether a run fits into `usable_bytes`, within the error that the prediction has.

    "tight": the memory lies within the error of the peak, so it may run.
    """
    error, peak = calibration.CALIBRATED["error"].value, prediction.peak_bytes
    if lacking_tokens(prediction, case) > 0 or peak * (1 - error) > usable_bytes:
        return "does not fit"
    return "fits" if peak * (1 + error) <= usable_bytes else "tight"


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


@lru_cache(maxsize=256)
def _weights(shape: ModelShape, four_bit: bool) -> int:
    """The one copy of the base weights that engine and training share."""
    rest = 2 * (shape.embedding_parameters + shape.small_parameters)
    return round(shape.linear_parameters * (NF4_BYTES if four_bit else 2)) + rest


@lru_cache(maxsize=1024)
def _lora_parameters(shape: ModelShape, rank: int, targets: tuple[str, ...]) -> int:
    widths = sum(sum(shape.projections[name]) for name in targets)
    return shape.num_hidden_layers * rank * widths


def _lora(case: Case) -> tuple[int, int]:
    """Bytes of the engine's slots, which are there for every layer; trained parameters."""
    rank = next(n for n in LORA_RANKS if n >= case.lora_rank)
    every = tuple(case.shape.projections)
    slots = 2 * _lora_parameters(case.shape, rank, every)
    return slots, _lora_parameters(case.shape, case.lora_rank, case.targets)


def _sized_tokens(case: Case) -> int:
    """Tokens of KV cache by Unsloth's own estimate (approximate_vllm_memory_usage).

    It decides the length of a sequence and, in `_batched_tokens`, the engine's pass.
    """
    left = _sized_bytes(case)
    return int(0.95 * left / kv_token_bytes(case.shape)) // 256 * 256


def _sized_bytes(case: Case) -> float:
    shape = case.shape
    weights = shape.linear_parameters * (0.625 if case.four_bit else 2)
    weights += 2 * (shape.embedding_parameters + shape.small_parameters)
    graphs = min(max(172 * 4 * shape.hidden_size * shape.num_hidden_layers, 0.15 * GIB), GIB)
    return max(0.0, case.engine_bytes - weights - _lora(case)[0] - graphs)


def _batched_tokens(case: Case) -> int:
    """Tokens of the engine's largest pass, by Unsloth's ladder over the KV cache (load_vllm)."""
    left = _sized_bytes(case) / GIB
    ladder = ((4, 2048), (12, 4096), (24, 6144))
    tokens = next((n for limit, n in ladder if left <= limit), 8192)
    return max(min(tokens, case.num_seqs * case.max_seq_length), case.num_seqs)


def _engine_work(case: Case, known: dict[str, float]) -> tuple[int, int]:
    """Memory of the engine's largest pass, and of the smallest that there is for this model."""
    shape = case.shape
    # gate and up, their product, and what is as wide as the hidden state, in 16 bits
    wide = 6 * shape.intermediate_size + 2 * known["engine_hidden"] * shape.hidden_size
    unpacked = 2 * shape.hidden_size * shape.intermediate_size if case.four_bit else 0
    tokens = max(_batched_tokens(case), PROFILED_TOKENS)
    sampled = known["sampler"] * case.num_seqs * shape.vocab_size
    work = max(tokens * wide + unpacked, sampled)
    return round(work), round(PROFILED_TOKENS * wide + unpacked)


def capture_sizes(largest: int) -> int:
    """Batch sizes that are captured up to one: 1, 2, 4, each 8 to 256, then each 16 (vllm)."""
    small = sum(1 for n in (1, 2, 4) if n <= largest)
    return small + min(largest, 255) // 8 + max(0, (largest - 256) // 16 + 1)


def _graphs(case: Case, known: dict[str, float]) -> int:
    """CUDA graphs: they come on top of the engine's share (vllm/v1/worker/gpu, model_runner.py).

    Whole ones up to the sequences at once and piecewise ones up to twice that, each with and
    without an adapter.
    """
    captured = 2 * (capture_sizes(case.num_seqs) + capture_sizes(min(2 * case.num_seqs, 512)))
    return round(known["graph_pool"] + known["graph"] * captured * case.shape.num_hidden_layers)


def _training_pass(case: Case, known: dict[str, float]) -> dict[str, int]:
    """One forward and backward pass over all completions of a batch as a single stream.

    Of the backward pass of a layer and the loss, the larger one counts: they do not overlap.
    """
    shape, tokens = case.shape, case.batch * case.max_seq_length
    hidden = 2 * tokens * shape.hidden_size
    # Two buffers for checkpoints on their way; the rest is in main memory.
    checkpoints = hidden * (2 + known["checkpoints_kept"] * shape.num_hidden_layers)
    attention = 2 * shape.head_dim * (shape.num_attention_heads + shape.num_key_value_heads)
    # gate, up and their product in the MLP's backward pass; query, key, value, output
    layer = tokens * (6 * shape.intermediate_size + 2 * attention)
    layer += known["hidden_copies"] * hidden
    if case.four_bit:  # one matrix in the shared buffer, one of its own
        layer += 2 * 2 * shape.hidden_size * shape.intermediate_size
    rows = case.batch * case.max_completion_length
    chunk = min(case.max_completion_length, LOGITS_BYTES / (6 * shape.vocab_size))
    # The first pass of a run is checked row by row, all logits of a row at once, in 16 bits.
    check = 2 * case.max_seq_length * shape.vocab_size
    at_work = max(known["logits_at_work"] * chunk * shape.vocab_size, check)
    logits = known["logits_kept"] * rows * shape.vocab_size + at_work + 2 * hidden
    larger = {"training activations": layer, "logits": 0.0}
    if logits > layer:
        larger = {"training activations": 0.0, "logits": logits}
    parts = larger | {"training kernels": known["training_outside"]}
    parts["training activations"] += checkpoints
    parts["allocator slack"] = known["slack"] * (checkpoints + max(layer, logits))
    return {name: round(value) for name, value in parts.items()}


def least_share_bytes(case: Case, sequences: int = 1) -> int:
    """The smallest engine share whose KV cache holds `sequences` whole sequences.

    It also satisfies Unsloth's own, coarser estimate for one.
    """
    probe = replace(case, engine_bytes=0)
    used = -predict(probe).kv_tokens * kv_token_bytes(case.shape)
    each = sequence_tokens(case)
    wanted = (sequences * each + BLOCK_TOKENS) * kv_token_bytes(case.shape)
    overhead = 2**60 - _sized_bytes(replace(case, engine_bytes=2**60))
    sized = (each + 256) * kv_token_bytes(case.shape) / 0.95 + overhead
    return round(max(used + wanted, sized))

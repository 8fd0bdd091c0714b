"""Memory of the engine: weights, adapter slots, its largest pass, KV cache, CUDA graphs.

Derived from vllm, unsloth and unsloth_zoo (`packages.READ_IN`). Unsloth's estimate and ladder are
the same in 2026.10.9. vLLM 0.27.1 takes off its share all that the driver counts before there is a
KV cache, and so also buffers that 0.26 has beside the share (vllm/utils/mem_utils.py, line 314):
above all 4 bytes for each sequence at once and token of the vocabulary (v1/worker/gpu/sample/
penalties.py, line 40), by which its KV cache is smaller than is predicted here.
"""

from functools import lru_cache

from r1recipes.algorithms.base import LoadIn
from r1recipes.machine.units import GIB
from r1recipes.planning.memory.case import Case
from r1recipes.planning.models import NF4_BYTES, ModelShape, adapter_parameters, weights_bytes

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM has slots for; Unsloth rounds up (vllm/config/lora.py)."""
BLOCK_TOKENS = 16
"""Tokens of a block of the KV cache, vLLM's default."""
LADDER = ((0, 2048), (4, 4096), (12, 6144), (24, 8192))
"""(GiB of KV cache, tokens of the engine's largest pass from that size on) (load_vllm)."""
SIZED_BYTES: dict[LoadIn, float] = {"4bit": 0.625, "fp8": 1.25, "16bit": 2}
"""Bytes of a weight by Unsloth's estimate. It takes weights for FP8 by the "fp8" in the name of
their folder (load_vllm, `is_fp8`)."""
PROFILED_TOKENS = 2048
"""Tokens of the smallest pass that the engine is sized for."""


def ladder_slope(load_in: LoadIn) -> float:
    """Just below a step of the ladder its pass counts less by this for each byte that is missing.
    It is the true size of a quantised weight as a share of Unsloth's estimate, so more weights
    never mean less memory."""
    return 1 / SIZED_BYTES["fp8"] if load_in == "fp8" else NF4_BYTES / SIZED_BYTES["4bit"]


def sequence_tokens(case: Case) -> int:
    """Tokens that a whole sequence keeps in the KV cache.

    Those behind a sliding window are freed, except for the tokens of passes that are under way
    (unsloth_zoo/vllm_utils.py, _kv_cache_tokens).
    """
    window = case.shape.sliding_window
    return min(case.max_seq_length, window + 2 * 8192) if window else case.max_seq_length


def engine_share(case: Case, calibrated: dict[str, float]) -> tuple[int, int, int, int]:
    """Bytes of the engine's share beside the KV cache: weights, slots, pass, outside torch."""
    weights = round(weights_bytes(case.shape, case.load_in) * (1 + calibrated["weights_slack"]))
    work, outside = engine_work(case, calibrated), round(calibrated["engine_outside"])
    return weights, slots_bytes(case.shape, case.lora_rank), work, outside


@lru_cache(maxsize=1024)
def slots_bytes(shape: ModelShape, lora_rank: int) -> int:
    """Bytes of the engine's slots for an adapter, which every linear layer has."""
    rank = next(n for n in LORA_RANKS if n >= lora_rank)
    return 2 * adapter_parameters(shape, rank, tuple(shape.projections))


def sized_tokens(case: Case) -> int:
    """Tokens of KV cache by Unsloth's estimate (approximate_vllm_memory_usage).

    It decides how long a sequence may be and, by the ladder, how large the engine's pass is.
    """
    cache = sized_bytes(case)
    return int(0.95 * cache / case.sized_kv_token_bytes) // 256 * 256


def sized_bytes(case: Case) -> float:
    overhead = sized_overhead(case.shape, case.load_in, case.lora_rank)
    return max(0.0, case.engine_bytes - overhead)


@lru_cache(maxsize=1024)
def sized_overhead(shape: ModelShape, load_in: LoadIn, lora_rank: int) -> float:
    """Bytes that Unsloth's estimate reserves for everything but the KV cache."""
    weights = shape.linear_parameters * SIZED_BYTES[load_in]
    weights += 2 * (shape.embedding_parameters + shape.small_parameters)
    graphs = min(max(172 * 4 * shape.hidden_size * shape.num_hidden_layers, 0.15 * GIB), GIB)
    return weights + slots_bytes(shape, lora_rank) + graphs


def engine_work(case: Case, calibrated: dict[str, float]) -> int:
    """Memory of the engine's largest pass, by which it sizes its KV cache.

    Near a step of the ladder Unsloth, which counts slightly differently, may be above it already.
    """
    cache, work, slope = sized_bytes(case), 0.0, ladder_slope(case.load_in)
    for step, size in engine_passes(case, calibrated):
        work = max(work, size if cache >= step else size - slope * (step - cache))
    return round(work)


def engine_passes(case: Case, calibrated: dict[str, float]) -> tuple[tuple[int, float], ...]:
    tokens = max(case.num_seqs * case.max_seq_length, PROFILED_TOKENS)
    return _passes(case.shape, case.load_in, tokens, calibrated["engine_hidden"])


@lru_cache(maxsize=1024)
def _passes(
    shape: ModelShape, load_in: LoadIn, most_tokens: int, hidden: float
) -> tuple[tuple[int, float], ...]:
    """Unsloth's ladder: bytes of KV cache from which on a pass is used, and bytes of that pass."""
    # gate and up, their product, and tensors as wide as the hidden state, in 16 bits
    wide = 6 * shape.intermediate_size + 2 * hidden * shape.hidden_size
    if load_in == "fp8":  # what is multiplied is quantised as well: the widest input, a byte each
        wide += shape.intermediate_size
    unpacked = 2 * shape.hidden_size * shape.intermediate_size if load_in == "4bit" else 0
    return tuple(
        (step * GIB, min(tokens, most_tokens) * wide + unpacked) for step, tokens in LADDER
    )


def capture_sizes(largest: int) -> int:
    """Number of batch sizes up to `largest` that are captured: 1, 2, 4, each 8 up to 256, then each
    16 (vllm)."""
    small = (largest >= 1) + (largest >= 2) + (largest >= 4)
    return small + min(largest, 255) // 8 + max(0, (largest - 256) // 16 + 1)


def graphs_bytes(case: Case, calibrated: dict[str, float]) -> int:
    """Bytes of CUDA graphs, on top of the engine's share (vllm/v1/worker/gpu, model_runner.py).

    Whole graphs are captured up to the number of sequences at once and piecewise ones up to twice
    that, each with and without an adapter. A graph in 4 bits has more kernels, since each matrix is
    unpacked. In FP8 the input of each matrix is quantised, which is counted alike (assumed).
    """
    captured = 2 * (capture_sizes(case.num_seqs) + capture_sizes(min(2 * case.num_seqs, 512)))
    more = calibrated["graph_unpacking"] if case.load_in != "16bit" else 0
    each = calibrated["graph"] + more
    return round(each * captured * case.shape.num_hidden_layers)

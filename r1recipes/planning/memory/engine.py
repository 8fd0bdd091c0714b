"""Memory of the engine: weights, slots, its largest pass, KV cache, CUDA graphs.

Derived from vllm, unsloth and unsloth_zoo (`packages.READ_IN`).
"""

from functools import lru_cache

from r1recipes.planning.memory.case import Case, lora_parameters
from r1recipes.planning.models import ModelShape

GIB = 2**30
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


def engine_share(case: Case, known: dict[str, float]) -> tuple[int, int, int, int]:
    """What the engine's share holds beside the KV cache: weights, slots, pass, outside torch."""
    weights = round(weights_bytes(case.shape, case.four_bit) * (1 + known["weights_slack"]))
    work, outside = engine_work(case, known), round(known["engine_outside"])
    return weights, slots_bytes(case.shape, case.lora_rank), work, outside


@lru_cache(maxsize=256)
def weights_bytes(shape: ModelShape, four_bit: bool) -> int:
    """The one copy of the base weights that engine and training share."""
    rest = 2 * (shape.embedding_parameters + shape.small_parameters)
    return round(shape.linear_parameters * (NF4_BYTES if four_bit else 2)) + rest


@lru_cache(maxsize=1024)
def slots_bytes(shape: ModelShape, lora_rank: int) -> int:
    """Bytes of the engine's slots for an adapter, which are there for every layer."""
    rank = next(n for n in LORA_RANKS if n >= lora_rank)
    return 2 * lora_parameters(shape, rank, tuple(shape.projections))


def sized_tokens(case: Case) -> int:
    """Tokens of KV cache by Unsloth's own estimate (approximate_vllm_memory_usage).

    It decides the length of a sequence and, by the ladder, the engine's pass.
    """
    left = _sized_bytes(case)
    return int(0.95 * left / kv_token_bytes(case.shape)) // 256 * 256


def _sized_bytes(case: Case) -> float:
    overhead = sized_overhead(case.shape, case.four_bit, case.lora_rank)
    return max(0.0, case.engine_bytes - overhead)


@lru_cache(maxsize=1024)
def sized_overhead(shape: ModelShape, four_bit: bool, lora_rank: int) -> float:
    """What Unsloth's estimate keeps for everything but the KV cache."""
    weights = shape.linear_parameters * (0.625 if four_bit else 2)
    weights += 2 * (shape.embedding_parameters + shape.small_parameters)
    graphs = min(max(172 * 4 * shape.hidden_size * shape.num_hidden_layers, 0.15 * GIB), GIB)
    return weights + slots_bytes(shape, lora_rank) + graphs


def engine_work(case: Case, known: dict[str, float]) -> int:
    """Memory of the engine's largest pass, by which it sizes its KV cache.

    Near a step of the ladder Unsloth, which counts a little differently, may be above it already.
    """
    left, work = _sized_bytes(case), 0.0
    for step, size in engine_passes(case, known):
        work = max(work, size if left >= step else size - LADDER_SLOPE * (step - left))
    return round(work)


def engine_pass(case: Case, known: dict[str, float]) -> float:
    """Bytes of the pass that the ladder gives when Unsloth's estimate is what it is here."""
    left = _sized_bytes(case)
    return max(size for step, size in engine_passes(case, known) if left > step or step == 0)


def engine_passes(case: Case, known: dict[str, float]) -> tuple[tuple[int, float], ...]:
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


def graphs_bytes(case: Case, known: dict[str, float]) -> int:
    """CUDA graphs: they come on top of the engine's share (vllm/v1/worker/gpu, model_runner.py).

    Whole ones up to the sequences at once and piecewise ones up to twice that, each with and
    without an adapter. A graph in 4 bits has more kernels: each matrix is unpacked.
    """
    captured = 2 * (capture_sizes(case.num_seqs) + capture_sizes(min(2 * case.num_seqs, 512)))
    each = known["graph"] + (known["graph_unpacking"] if case.four_bit else 0)
    return round(each * captured * case.shape.num_hidden_layers)

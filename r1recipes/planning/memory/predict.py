"""Predicted memory of a run by part and phase, in bytes: arithmetic only, no torch.

A run has three phases. `load`: the engine takes its share and captures its graphs. `generate`: it
fills the share. `train`: one forward and backward pass beside it, or in place of its KV cache in
standby. The peak is the largest phase. What the libraries' sources decide is derived in `engine`
and `training`; the rest is in `constants`.

A larger setting never needs less memory. The exception is an adapter on all of the MLP, for which
Unsloth has a kernel that needs less. Limits: dense decoders of the Llama family, one NVIDIA GPU,
LoRA, the backend `unsloth`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from r1recipes.machine.units import GIB
from r1recipes.planning.memory import domain
from r1recipes.planning.memory.case import Case
from r1recipes.planning.memory.constants import values
from r1recipes.planning.memory.engine import (
    BLOCK_TOKENS,
    engine_passes,
    engine_share,
    graphs_bytes,
    ladder_slope,
    sequence_tokens,
    sized_overhead,
    sized_tokens,
)
from r1recipes.planning.memory.training import STORED, training_pass, unpacked
from r1recipes.planning.models import adapter_parameters, weights_bytes

PHASES = ("load", "generate", "train")
TORCH_SHARE, OUTSIDE_TORCH = 0.97, GIB
"""The backend lets torch's allocator have this share of the card, less the memory outside torch:
CUDA context and libraries' workspaces, measured 0.7 to 0.9 GiB (H100, H200, 2026-11-21)."""

STORED_IDLE = 0.035
"""Idle blocks beside the layers that are not recomputed, as a share of these: they are of one size
(measured, 28 layers of Qwen2.5 1.5B in passes of 16, H100, 2026-11-26)."""

Fit = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True)
class Prediction:
    """Bytes by part for each phase, and how many tokens the engine can hold."""

    phases: dict[str, dict[str, int]]
    kv_tokens: int
    """Tokens that fit into the KV cache; below 0 when not even the weights fit the share."""
    sized_tokens: int
    """Tokens that fit by Unsloth's estimate; below max_seq_length it shortens the sequences."""
    spare: dict[str, int]
    """Bytes that a phase takes on top only where there is room."""

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
    """Memory of a run. `constants` replace the calibrated ones while they are fitted."""
    calibrated = constants or _calibrated()
    weights, slots, work, outside = share = engine_share(case, calibrated)
    cache = case.engine_bytes - sum(share)
    adapter = adapter_parameters(case.shape, case.lora_rank, case.targets)
    tokens = cache // case.kv_token_bytes // BLOCK_TOKENS * BLOCK_TOKENS
    resident = {
        "context": round(calibrated["context"]),
        "weights": weights,
        "LoRA in the engine": slots,
        "KV cache": max(0, cache),
        "engine": work + outside,
        "CUDA graphs": graphs_bytes(case, calibrated),
        "adapter": 4 * adapter,
    }
    # The engine gets a copy of the adapter in 16 bits, which is kept.
    stays = {"adapter": 6 * adapter, "optimizer": round(case.optimizer_bytes * adapter)}
    stays = resident | stays | unpacked(case)
    # Sampling takes memory beside the blocks of the engine's pass.
    sampled = round(calibrated["sampler"] * case.num_seqs * case.shape.vocab_size)
    generate = stays | {"engine": work + sampled + outside}
    train = stays | training_pass(case, calibrated)
    train |= {"KV cache": 0} if case.standby else {}
    phases = {"load": resident, "generate": generate, "train": train}
    spare = _spare(case, calibrated, phases, work)
    return Prediction(phases, tokens, sized_tokens(case), spare)


def _spare(
    case: Case, calibrated: dict[str, float], phases: dict[str, dict[str, int]], work: int
) -> dict[str, int]:
    """Bytes that each phase takes only while there is room; `work`: bytes of the engine's pass."""
    generate, train = phases["generate"], phases["train"]
    # The copy uses the blocks of the engine's pass first, and is freed before the adapter is made.
    base = weights_bytes(case.shape, "4bit") if case.load_in == "4bit" else 0
    copy = round(calibrated["load_copy"] * base) - work - phases["load"]["adapter"]
    # Idle blocks lie beside a training pass: those of the engine's pass, or more.
    activations, stored = train["training activations"], train.get(STORED, 0)
    idle = round(calibrated["fragmentation"] * activations) - work + round(STORED_IDLE * stored)
    # torch keeps the blocks of a training pass while the engine works. In standby it frees them
    # before, except for blocks that are still in use.
    retained = sum(train.values()) - sum(generate.values())
    if case.standby:
        blocks = work + activations + stored + train["gradient"] + train["logits"]
        retained = min(blocks, round(calibrated["standby_kept"]))
    return {"load": max(0, copy), "generate": max(0, retained), "train": max(0, idle)}


def expected_bytes(prediction: Prediction, case: Case, usable_bytes: int) -> dict[str, int]:
    """Bytes that the driver will show for each phase: what it needs, and what it takes only while
    there is room.

    The copy of the 4-bit weights that loading makes is there wholly or not at all: it was never
    seen where it would not have fitted. More than `usable_bytes` is only expected where a phase
    needs it.
    """
    limit = room_bytes(prediction, case, usable_bytes)
    need, spare = prediction.peaks, prediction.spare
    expected = {phase: max(need[phase], min(need[phase] + spare[phase], limit)) for phase in PHASES}
    with_copy = need["load"] + spare["load"]
    return expected | {"load": with_copy if with_copy <= limit else need["load"]}


def room_bytes(prediction: Prediction, case: Case, usable_bytes: int) -> int:
    """Bytes of the card that a run may take: without standby torch is held to the backend's limit.

    Memory outside torch comes on top of that limit.
    """
    if case.standby:
        return usable_bytes
    train = prediction.phases["train"]
    outside = train["context"] + train["CUDA graphs"] + train["training kernels"]
    return min(usable_bytes, round(TORCH_SHARE * usable_bytes - OUTSIDE_TORCH + outside))


@lru_cache(maxsize=1)
def _calibrated() -> dict[str, float]:
    return values()


def verdict(prediction: Prediction, case: Case, usable_bytes: int) -> Fit:
    """Whether a run fits into `usable_bytes`, within the error that the prediction has.

    "tight": the memory lies within the error of the peak, so it may run. There the error is a share
    of the card: memory outside torch grows in peak and room alike, so with a share of the peak more
    graphs would turn "does not fit" into "tight".
    """
    peak, room = prediction.peak_bytes, room_bytes(prediction, case, usable_bytes)
    if lacking_tokens(prediction, case) > 0 or peak - room > domain.WIDEST * usable_bytes:
        return "does not fit"
    if peak * (1 + domain.WIDEST) <= room:  # so the error is seldom looked for
        return "fits"
    off = domain.error(case)
    if peak - room > off * usable_bytes:
        return "does not fit"
    return "fits" if peak * (1 + off) <= room else "tight"


def lacking_tokens(prediction: Prediction, case: Case) -> int:
    """Tokens that the KV cache lacks for one sequence; 0 or less when it holds one."""
    return sequence_tokens(case) - min(prediction.kv_tokens, prediction.sized_tokens)


def least_share_bytes(case: Case, sequences: int = 1) -> int:
    """The smallest engine share, in bytes, whose KV cache holds `sequences` whole sequences.

    It also satisfies Unsloth's coarser estimate for one sequence.
    """
    calibrated, token, each = _calibrated(), case.kv_token_bytes, sequence_tokens(case)
    overhead = sized_overhead(case.shape, case.load_in, case.lora_rank)
    slope = ladder_slope(case.load_in)
    least = overhead + math.ceil(each / 256) * 256 * case.sized_kv_token_bytes / 0.95 + 1
    weights, slots, _, outside = engine_share(case, calibrated)
    rest = weights + slots + outside
    rest += math.ceil(sequences * each / BLOCK_TOKENS) * BLOCK_TOKENS * token
    for step, work in engine_passes(case, calibrated):
        size = rest + work + 1
        if step and size < overhead + step:  # below the step, where the pass is counted less
            size = (size - slope * (overhead + step)) / (1 - slope)
        least = max(least, size)
    return math.ceil(least)

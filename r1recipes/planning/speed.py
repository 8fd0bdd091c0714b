"""How long a step takes, roughly: enough to tell which of two settings is faster, and how many
problems an evaluation during training may have.

The roofline of generation and training (memory traffic, arithmetic) with the overheads that were
measured on an H100. Limits: each completion is counted at its full length; a card whose speed is
not known counts as an RTX 4090 (`machine.cards.UNLISTED`).
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

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

MAX_SHARE = 0.03
"""Share of the training time that the evaluations of `eval.every` may take; required."""
MIN_PROBLEMS = 16
"""Problems below which such an evaluation says too little: at 16, the standard error of an accuracy
is 12.5 points at most; assumed."""
CALL_COMPLETIONS = {"cpu": 32, "cuda": 349}
"""Completions that take as long as what a call of generation costs whatever their number. Measured:
0.14 s beside 4.4 ms a completion for the tiny model on one core; 57 to 349 for Phi-4, Llama 3.1 8B
and Qwen2.5 1.5B (benchmarks/speed/choices.md), of which the most is taken."""
GENERATION_SHARE = {"cpu": 0.5, "cuda": 0.86}
"""Share of a step that generates; measured, the most of the tiny recipe and of 23 presets
(recipes/proofs)."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation costs that answers each of some held-out problems once, while training."""

    device: Literal["cpu", "cuda"]
    completions_per_step: int
    batch: int
    """Completions that are generated at once (`eval.batch_size`)."""
    available: int
    """Held-out problems."""

    def steps(self, problems: int) -> float:
        """Its time, in optimiser steps; at most, with completions as long as those of a step."""
        calls, rest = divmod(problems, self.batch)
        generations = calls * self._call(self.batch) + (self._call(rest) if rest else 0.0)
        return GENERATION_SHARE[self.device] * generations

    def _call(self, completions: int) -> float:
        """Time of a call that generates so many, by that of a step's. More than a step has may not
        be worked on at once."""
        of_step, fixed = self.completions_per_step, CALL_COMPLETIONS[self.device]
        return max((fixed + completions) / (fixed + of_step), completions / of_step)

    @property
    def fewest(self) -> int:
        """Problems below which it is of no use."""
        return min(MIN_PROBLEMS, self.available)

    def problems(self, every: int) -> int | None:
        """The most problems that may be answered every so many steps; None if these are too few."""
        sizes = range(self.fewest, self.available + 1)
        number = bisect_right(sizes, MAX_SHARE, key=lambda size: self.share(size, every))
        return sizes[number - 1] if number else None

    def share(self, problems: int, every: int) -> float:
        """Its time by that of the steps from one to the next, at most."""
        return self.steps(problems) / every

    @property
    def least_every(self) -> int:
        """The smallest `eval.every` that `problems` has an answer for."""
        return math.ceil(self.steps(self.fewest) / MAX_SHARE)


def step_s(case: Case, completions: int, kv_tokens: int, peak: Peak) -> float:
    """Seconds of an optimiser step over `completions`, with a KV cache of `kv_tokens`."""
    return _generation_s(case, completions, kv_tokens, peak) + _training_s(case, completions, peak)


def _generation_s(case: Case, completions: int, kv_tokens: int, peak: Peak) -> float:
    shape, length = case.shape, case.max_completion_length
    context = case.max_seq_length - length / 2
    at_once = max(1.0, min(case.num_seqs, completions, kv_tokens / context))
    head = 2 * shape.vocab_size * shape.hidden_size
    weights = shape.linear_parameters * (UNPACKED_BYTES if case.four_bit else 2) + head
    traffic = (weights + at_once * context * case.kv_token_bytes) / peak.bandwidth
    arithmetic = 2 * at_once * (shape.linear_parameters + head / 2) / peak.operations
    token_s = max(traffic, arithmetic) + DECODE_STEP_S
    return length * completions / at_once * token_s + (STANDBY_S if case.standby else 0.0)


def _training_s(case: Case, completions: int, peak: Peak) -> float:
    shape = case.shape
    # forward, forward again for the backward pass, and the gradient of each layer's input
    again = 1 - case.layers_not_recomputed / shape.num_hidden_layers
    operations = (4 + 2 * again) * case.batch * case.max_seq_length * shape.linear_parameters
    pass_s = max(operations / peak.operations / UTILIZATION, LAYER_PASS_S * shape.num_hidden_layers)
    return pass_s * completions / case.batch

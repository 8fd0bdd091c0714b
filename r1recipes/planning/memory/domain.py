"""Where the memory prediction was measured, and how far off it may be elsewhere.

Within what the rehearsals of benchmarks/memory/points cover, the peak lies within the error that
their worst gives. What goes beyond is extrapolated: it is called so, with each reason, and its
error is that of settings that were predicted before anybody had measured their like. Limits: each
quantity is looked at on its own; all rehearsals were on Hopper cards, and a card of another
generation is called extrapolated without a wider error, as `error` already has 1 % for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from r1recipes.planning.memory.case import Case
from r1recipes.planning.memory.constants import CALIBRATED

CAPABILITY = 9.0
"""Compute capability of the cards that were measured (H100, H200)."""
BEYOND = 1.1
"""How many times beyond the bounds of the rehearsals a quantity still counts as measured; assumed.
"""


WIDEST = max(CALIBRATED[name].value for name in ("error", "error_beyond", "error_fp8"))
"""The largest error of a prediction, as a share of the peak."""


@dataclass(frozen=True)
class Bounds:
    """Least and greatest value of a quantity over all rehearsals (measured, benchmarks/memory)."""

    name: str
    """As it is said, with `{}` for the value."""
    least: float
    greatest: float
    of: Callable[[Case], float]

    def reason(self, case: Case) -> str | None:
        """What is beyond the bounds, in words; None within them."""
        value = self.of(case)
        if self.least / BEYOND <= value <= self.greatest * BEYOND:
            return None
        shown, least, greatest = (_number(n) for n in (value, self.least, self.greatest))
        return f"{self.name.format(shown)}, measured {least} to {greatest}"


def _number(value: float) -> str:
    return f"{value / 1e9:.1f} billion" if value >= 1e8 else f"{value:,.0f}"


BOUNDS = (
    Bounds("sequences of {} tokens", 512, 4096, lambda case: case.max_seq_length),
    Bounds(
        "{} tokens in a training pass", 512, 65536, lambda case: case.batch * case.max_seq_length
    ),
    Bounds("rank {}", 8, 64, lambda case: case.lora_rank),
    Bounds("{} parameters", 1.2358144e9, 70.553706496e9, lambda case: case.shape.parameters),
    Bounds("{} sequences at once", 6, 257, lambda case: case.num_seqs),
    Bounds("{} layers that are not recomputed", 0, 36, lambda case: case.layers_not_recomputed),
)
"""What the rehearsals cover; a test compares it with them."""
_LIMITS = [(bounds.least / BEYOND, bounds.greatest * BEYOND, bounds.of) for bounds in BOUNDS]
KINDS: tuple[tuple[str, Callable[[Case], bool]], ...] = (
    (
        "a family whose blocks are not those of Llama, Mistral, Qwen2 or Qwen3",
        lambda case: bool(
            case.shape.extra_parameters > 2 * case.shape.head_dim  # more than q_norm and k_norm
            or case.shape.capped_attention
            or not case.shape.fused_mlp
            or case.shape.sliding_window
        ),
    ),
    ("weights in FP8", lambda case: case.load_in == "fp8"),
    ("a KV cache in 8 bits", lambda case: case.kv_cache_dtype is not None),
    ("steps that generate nothing", lambda case: not case.samples),
    ("scores of the base model", lambda case: case.reference and case.samples),
    ("logits of a whole pass", lambda case: case.logit_bytes > 0),
)
"""Kinds of settings that no rehearsal has had, each with its test."""


def reasons(case: Case) -> list[str]:
    """What of a case goes beyond the rehearsals; empty where the stated error was measured."""
    beyond = [bounds.reason(case) for bounds in BOUNDS]
    return [text for text in beyond if text] + [text for text, is_so in KINDS if is_so(case)]


def of_card(capability: float) -> str | None:
    """That a card is of another generation than those that were measured; None for Hopper's."""
    return None if capability == CAPABILITY else "a card of another generation than Hopper"


def error(case: Case) -> float:
    """How far a measured peak may lie from the predicted one, as a share of it: at most WIDEST."""
    if case.load_in == "fp8":
        return CALIBRATED["error_fp8"].value
    return CALIBRATED["error" if is_measured(case) else "error_beyond"].value


def is_measured(case: Case) -> bool:
    """Whether a case is within the rehearsals; a search asks it thousands of times."""
    for least, greatest, of in _LIMITS:  # loops, which are faster than `all` and `any`
        if not least <= of(case) <= greatest:
            return False
    for _, is_so in KINDS:  # noqa: SIM110
        if is_so(case):
            return False
    return True

"""Predicted memory of a plan as it is recorded and shown, with its verdict.

Limits: nothing is computed here beyond differences; `fit` makes it.
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from r1recipes.errors import command
from r1recipes.machine.units import gib
from r1recipes.planning.memory import predict

OTHERS = f"end the other processes on the card, which `{command('doctor')}` names"
SMALLER = "take a smaller model or a larger card"


class Predicted(BaseModel):
    """Memory that a plan is expected to take on the card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phases: dict[str, dict[str, int]]
    """Bytes by part for `load`, `generate` and `train`, as the driver will show them."""
    peak_phase: str
    peak_bytes: int
    """The largest phase: what the driver will show at its peak."""
    needed_bytes: int
    """The part of the peak that the run cannot do without. The rest is `SLACK`."""
    available_bytes: int
    """Memory of the card, or its free part when others use the card."""
    room_bytes: int
    """The part of `available_bytes` that the run may take: without standby, torch is held to less
    (`predict.room_bytes`)."""
    verdict: predict.Fit
    error: float
    """How far the measured peak may lie from the predicted one, as a share of it."""
    extrapolated: tuple[str, ...] = ()
    """What of the plan goes beyond what was measured, in words; empty where `error` was measured.
    """
    kv_tokens: int
    """Tokens in the KV cache."""
    sequences: int
    """Sequences of full length that the KV cache holds, at most those of a step. 0 where Unsloth
    estimates that it holds none, and shortens them."""
    step_s: float | None = None
    """Seconds of a step with every prompt and completion at its greatest length, roughly; None in
    plans of older versions."""
    real_step_s: float | None = None
    """The same with real lengths."""
    lacking_bytes: int = 0
    """Bytes that the engine's share lacks for one sequence in the KV cache; 0 if it holds one."""
    why: str | None = None
    """A sentence on what is short, where the plan is tight or does not fit."""
    ways: tuple[str, ...] = ()
    """The cheapest changes that would fit, as options of the command line."""
    stage: Annotated[str | None, Field(exclude_if=lambda stage: stage is None)] = None
    """The stage whose memory this is, where one before the training needs most."""
    fits_alone: bool = False
    """Whether the plan fits only once other processes have left the card; examined only where it
    is tight or does not fit."""

    @property
    def headroom_bytes(self) -> int:
        """Bytes that the run may take beyond those that it needs."""
        return self.room_bytes - self.needed_bytes

    @property
    def excess_bytes(self) -> int:
        """Bytes that are short beyond the error of the prediction; above 0 only where the plan does
        not fit."""
        off = self.error * self.available_bytes
        short = math.ceil(self.needed_bytes - self.room_bytes - off)
        return max(short, self.lacking_bytes) if self.lacking_bytes else short

    @property
    def where(self) -> str:
        """The largest phase, such as `train`, or `train of stage 1-dpo`."""
        return f"{self.peak_phase} of stage {self.stage}" if self.stage else self.peak_phase

    @property
    def no_way(self) -> str:
        """What helps where no change of the recipe would."""
        return OTHERS if self.fits_alone else SMALLER

    @property
    def remarks(self) -> list[str]:
        """What keeps the sentence from being the whole truth, a line each."""
        tight = [f"tight: {self.why}"] if self.verdict == "tight" else []
        beyond = f"beyond what was measured: {'; '.join(self.extrapolated)}"
        return tight + ([beyond] if self.extrapolated else [])

    def sentence(self) -> str:
        """One line such as `peak 13.1 of 14.7 GiB in train (fits, +-4%; 12 full sequences ...)`."""
        needed = gib(self.needed_bytes)
        part = f", {needed} needed" if needed != gib(self.peak_bytes) else ""
        beyond = " extrapolated" if self.extrapolated else ""
        return (
            f"peak {gib(self.peak_bytes)} of {gib(self.available_bytes)} GiB in "
            f"{self.where}{part} ({self.verdict}, +-{self.error:.0%}{beyond}; "
            f"{self.sequences} full sequences at once)"
        )

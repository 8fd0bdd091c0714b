"""Preset + model + card -> the preset with nothing open, its predicted memory, and what would fit.

A refusal says how much memory is short and names the cheapest changes that would fit, each checked
by the same arithmetic. Within the error of the prediction nothing is refused: it is "tight".
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.base import Preset, preset_bytes
from r1recipes.errors import PlanError
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import gib
from r1recipes.planning import architectures, auto
from r1recipes.planning.auto import Choice, Room
from r1recipes.planning.memory import domain, plain, predict
from r1recipes.planning.memory.engine import sequence_tokens
from r1recipes.planning.models import ModelShape
from r1recipes.planning.speed.lengths import REAL, Lengths
from r1recipes.recipe.schema import Recipe

SLACK = "allocator slack"
"""Memory that a phase takes only while there is room: torch's cache, a copy while loading."""
FREE_SHARE = 0.98
"""A card with a smaller share of free memory is in use by others, so a run may take only what is
free; assumed."""


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
            f"{self.peak_phase}{part} ({self.verdict}, +-{self.error:.0%}{beyond}; "
            f"{self.sequences} full sequences at once)"
        )


def shape_of(
    recipe: Recipe, preset: Preset, base_dir: Path, *, offline: bool, strict: bool
) -> ModelShape | None:
    """The shape of the recipe's model; None when its config.json cannot be reached, unless that is
    `strict`.

    Raises: PlanError, also for a 4-bit checkpoint that is to be loaded or trained in 16 bits.
    """
    model = recipe.model
    try:
        checkpoint = architectures.find(
            model.name, base_dir, revision=model.revision, offline=offline
        )
    except architectures.Unreachable:
        if strict:
            raise
        return None
    if checkpoint.quantised and recipe.cold_start:
        raise PlanError(
            f"[cold_start] trains all weights, and those of `{model.name}` are stored in 4 bits",
            hint="take the model in 16 bits: after the cold start the preset quantises it",
        )
    if checkpoint.quantised and preset.weights != "4bit":
        asked = {"fp8": "FP8, which is made of 16", "16bit": "16"}[preset.weights]
        raise PlanError(
            f"`{model.name}` is stored in 4 bits, and the preset asks for {asked}",
            hint="`--set preset.load_in=4bit`, or take the model without `-bnb-4bit`",
        )
    return checkpoint.shape


def presets_for(names: Sequence[str], card: Gpu) -> list[str]:
    """The presets whose class of card has no more memory than this one."""
    usable_share = cards.USABLE_SHARE
    return [name for name in names if preset_bytes(name) * usable_share <= card.total_bytes]


def room_of(card: Gpu) -> Room:
    """The memory of a card that a run may take: its free part where others use it."""
    peak = cards.peak_of(card.name, card.total_bytes)
    free = card.free_bytes if card.free_bytes < FREE_SHARE * card.total_bytes else card.total_bytes
    return Room(card.total_bytes, free, peak)


def fitted(
    recipe: Recipe, preset: Preset, shape: ModelShape, card: Gpu, lengths: Lengths = REAL
) -> tuple[Preset, Predicted]:
    """The preset with nothing open, and its memory; where that does not surely fit, what would.

    `lengths`: for which choices are compared."""
    room = replace(room_of(card), lengths=lengths)
    choice = auto.resolve(recipe, preset, shape, room)
    opened = auto.open_keys(preset)
    settled = preset.model_copy(update={key: getattr(choice.preset, key) for key in opened})
    predicted = _predicted(choice, room, card.compute_capability)
    if choice.verdict == "fits":
        return settled, predicted
    ways = tuple(map(flags, auto.changes(recipe, settled, shape, room)))
    why = shortage(choice, room)
    if opened and choice.verdict == "does not fit":
        why += ", with what takes least for each choice that is open"
    whole = replace(room, available_bytes=card.total_bytes)
    fits_alone = room != whole and (
        auto.resolve(recipe, preset, shape, whole).verdict != "does not fit"
    )
    update = {"why": why, "ways": ways, "fits_alone": fits_alone}
    return settled, predicted.model_copy(update=update)


def refusal(predicted: Predicted) -> tuple[str, str]:
    """Message and hint for a plan that does not fit."""
    ways = "this fits: " + "; or ".join(predicted.ways) if predicted.ways else predicted.no_way
    others_first = predicted.fits_alone and predicted.ways
    hint = f"{OTHERS}; or {ways}" if others_first else ways
    return f"the recipe does not fit: {predicted.why}", hint


OTHERS = "end the other processes on the card, which `r1recipes doctor` names"
SMALLER = "take a smaller model or a larger card"


def _predicted(choice: Choice, room: Room, capability: float) -> Predicted:
    prediction, case = choice.prediction, choice.case
    tokens = max(0, prediction.kv_tokens)
    is_lacking = predict.lacking_tokens(prediction, case) > 0
    lacking = predict.least_share_bytes(case) - case.engine_bytes if is_lacking else 0
    expected = predict.expected_bytes(prediction, case, room.available_bytes)
    needed = prediction.peaks
    return Predicted(
        phases={
            phase: parts | {SLACK: expected[phase] - needed[phase]}
            for phase, parts in prediction.phases.items()
        },
        peak_phase=max(expected, key=expected.__getitem__),
        peak_bytes=max(expected.values()),
        needed_bytes=prediction.peak_bytes,
        available_bytes=room.available_bytes,
        room_bytes=predict.room_bytes(prediction, case, room.available_bytes),
        verdict=choice.verdict,
        error=domain.error(case),
        extrapolated=tuple(filter(None, [*domain.reasons(case), domain.of_card(capability)])),
        kv_tokens=tokens,
        sequences=0 if is_lacking else min(case.at_once, tokens // sequence_tokens(case)),
        lacking_bytes=max(int(is_lacking), lacking),
        step_s=choice.full.step_s,
        real_step_s=choice.real.step_s,
    )


def predicted_plain(recipe: Recipe, preset: Preset, shape: ModelShape, card: Gpu) -> Predicted:
    """The memory of a preset in which nothing is "auto" where plain TRL trains it, and passes that
    would fit."""
    room = room_of(card)
    phases = plain.phases_of(auto.case_of(recipe, preset, shape, room.usable_bytes))
    peaks = {phase: sum(parts.values()) for phase, parts in phases.items()}
    phase = max(peaks, key=peaks.__getitem__)
    verdict = plain.verdict(peaks[phase], room.available_bytes)
    why: str | None = None
    ways: tuple[str, ...] = ()
    if verdict != "fits":
        why = (
            f"about {gib(peaks[phase])} GiB are needed in `{phase}`, and there are "
            f"{gib(room.available_bytes)}; the prediction is exact to {plain.ERROR:.0%}"
        )
        ways = _smaller_passes(recipe, preset, shape, card)
    return Predicted(
        phases=phases,
        peak_phase=phase,
        peak_bytes=peaks[phase],
        needed_bytes=peaks[phase],
        available_bytes=room.available_bytes,
        room_bytes=room.available_bytes,
        verdict=verdict,
        error=plain.ERROR,
        kv_tokens=0,
        sequences=ALGORITHMS[recipe.algorithm].step(preset).batch,
        why=why,
        ways=ways,
    )


def _smaller_passes(
    recipe: Recipe, preset: Preset, shape: ModelShape, card: Gpu
) -> tuple[str, ...]:
    """The largest smaller pass that fits, as options of the command line; none where none does."""
    room, step = room_of(card), ALGORITHMS[recipe.algorithm].step(preset)
    for batch in sorted((size for size in step.batches() if size < step.batch), reverse=True):
        change = {"per_device_train_batch_size": batch}
        smaller = preset.model_copy(update=change)
        phases = plain.phases_of(auto.case_of(recipe, smaller, shape, room.usable_bytes))
        peak = max(sum(parts.values()) for parts in phases.values())
        if plain.verdict(peak, room.available_bytes) == "fits":
            return (flags(change),)
    return ()


def shortage(choice: Choice, room: Room) -> str:
    """What a preset lacks, in words."""
    case, prediction = choice.case, choice.prediction
    peak = prediction.peak_bytes
    room_bytes = predict.room_bytes(prediction, case, room.available_bytes)
    shortages = []
    if predict.lacking_tokens(prediction, case) > 0:
        shortages.append(_engine_shortage(choice, room))
    if choice.verdict == "tight":
        shortages.append(
            f"about {gib(peak)} GiB are needed of {gib(room_bytes)}, "
            "nearer than the prediction is exact: it may run out of memory"
        )
    elif peak > room_bytes:
        shortages.append(
            f"about {gib(peak)} GiB are needed in `{prediction.peak_phase}`, "
            f"and there are {gib(room_bytes)}: {gib(peak - room_bytes)} GiB short"
        )
    return "; and ".join(shortages)


def _engine_shortage(choice: Choice, room: Room) -> str:
    case, most = choice.case, auto.MAX_SHARE * room.usable_bytes
    least, each = predict.least_share_bytes(case), sequence_tokens(case)
    if least > most:
        return (
            f"the engine takes {gib(least)} GiB for the weights and one sequence of {each:,} "
            f"tokens, and may have {gib(most)} of this card: {gib(least - most)} GiB short"
        )
    prediction = choice.prediction
    tokens = max(0, each - predict.lacking_tokens(prediction, case))
    counted = " as Unsloth counts" if prediction.sized_tokens < prediction.kv_tokens else ""
    return (
        f"the engine's share of {gib(case.engine_bytes)} GiB leaves a KV cache of {tokens:,} tokens"
        f"{counted}, and a sequence has {each:,}; it takes {gib(least)} GiB"
    )


def flags(change: dict[str, Any]) -> str:
    """A change of a preset as options of the command line."""
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in change.items()}
    return " ".join(f"--set preset.{key}={text}" for key, text in texts.items())

"""Preset + model + card -> the preset with nothing open, its predicted memory, and what would fit.

A refusal says how much memory is short and names the cheapest changes that would fit, each checked
by the same arithmetic. Within the error of the prediction nothing is refused: it is "tight".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.base import Preset, likely_preset, preset_bytes
from r1recipes.errors import PlanError, command
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import gib
from r1recipes.planning import architectures, auto
from r1recipes.planning.auto import Choice, Room
from r1recipes.planning.fit import refusals
from r1recipes.planning.memory import domain, plain, predict
from r1recipes.planning.memory.engine import sequence_tokens
from r1recipes.planning.memory.predicted import OTHERS, Predicted
from r1recipes.planning.models import ModelShape
from r1recipes.planning.speed.lengths import REAL, Lengths
from r1recipes.recipe.schema import Recipe

SLACK = "allocator slack"
"""Memory that a phase takes only while there is room: torch's cache, a copy while loading."""
FREE_SHARE = 0.98
"""A card with a smaller share of free memory is in use by others, so a run may take only what is
free; assumed."""


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


def choose_preset(recipe: Recipe, card: Gpu | None, requested: str | None) -> str:
    """Name of the preset for a card: the one that was asked for, or the largest that it holds.

    Raises: PlanError when there is none.
    """
    names = sorted(recipe.preset, key=preset_bytes)
    if requested is not None:
        if requested not in recipe.preset:
            size = preset_bytes(likely_preset(requested) or requested)
            near = [name for name in names if preset_bytes(name) <= size][-1:] or names[:1]
            raise PlanError(
                f"there is no preset `{requested}` in this recipe; it has {', '.join(names)}",
                hint=f"`--preset {near[0]}`",
            )
        if requested != "cpu" and card is None:
            raise PlanError(
                f"preset `{requested}` needs an NVIDIA GPU, and there is none",
                hint=refusals.without_card(recipe),
            )
        return requested
    if card is None:
        if "cpu" in recipe.preset:
            return "cpu"
        raise PlanError(
            f"this recipe needs an NVIDIA GPU with {names[0]} or more (presets: "
            f"{', '.join(names)}), and this machine has none",
            hint=refusals.without_card(recipe),
        )
    fitting = presets_for(names, card)
    if not fitting:
        smaller = f"; or `{command('run', 'qwen2.5-1.5b')}`, which needs 6GB"
        raise PlanError(
            f"the smallest preset is {names[0]}, and {card.name} has {gib(card.total_bytes)} GiB",
            hint="`plan --fit` with the same recipe looks for settings that fit this card"
            + (smaller if names[0] != "6GB" and presets_for(["6GB"], card) else ""),
        )
    return fitting[-1]


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


def largest(last: Predicted | None, stages: Mapping[str, Predicted | None]) -> Predicted | None:
    """The memory of the stage that fits worst, by name, or of the training after them (`last`),
    whose times stay; None where none is predicted."""
    every = [last] if last else []
    for name, each in stages.items():
        if each:
            why = f"stage {name}: {each.why}" if each.why else None
            every.append(each.model_copy(update={"stage": name, "why": why}))
    order = ("does not fit", "tight", "fits")
    worst = min(
        every, key=lambda each: (order.index(each.verdict), each.headroom_bytes), default=None
    )
    if worst is None or last is None or worst is last:
        return worst
    times = {"step_s": last.step_s, "real_step_s": last.real_step_s}
    return worst.model_copy(update=times)


def refusal(predicted: Predicted) -> tuple[str, str]:
    """Message and hint for a plan that does not fit."""
    ways = "this fits: " + "; or ".join(predicted.ways) if predicted.ways else predicted.no_way
    others_first = predicted.fits_alone and predicted.ways
    hint = f"{OTHERS}; or {ways}" if others_first else ways
    return f"the recipe does not fit: {predicted.why}", hint


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

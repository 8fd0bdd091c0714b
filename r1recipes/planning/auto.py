"""Choose what is open in a preset for a card, and what would make a preset fit: search, no torch.

Every candidate is judged by the same arithmetic as the plan, `vram`, and ordered by `speed`. Only
settings that change memory and time are searched; what is learned (lengths, rank, group) stays,
unless nothing else fits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from r1recipes.algorithms.base import Preset, divisors
from r1recipes.machine import cards
from r1recipes.planning import speed
from r1recipes.planning.memory import constants, predict
from r1recipes.planning.memory.case import MAX_NUM_SEQS, Case
from r1recipes.planning.memory.predict import Prediction
from r1recipes.planning.models import ModelShape
from r1recipes.recipe.schema import Recipe

AUTO_COMPLETIONS = 128
"""A step's completions at most where "auto" chooses: at the roofline 128 sequences at once decode
10 times as fast as 8, and 256 another 1.5 times (derived, Llama 3.1 8B on an H100)."""
AUTO_BATCH = 64
"""Completions in a pass at most where "auto" chooses; the arithmetic is at its peak long before."""
MAX_SHARE = 0.95
OPEN = (
    "per_device_train_batch_size",
    "gpu_memory_utilization",
    "standby",
    "load_in_4bit",
    "prompts_per_step",
)
"""Keys of a preset that may be "auto"; changing an earlier one costs less."""


@dataclass(frozen=True)
class Room:
    """The card, or the part of it that is free."""

    usable_bytes: int
    """What gpu_memory_utilization is a share of."""
    available_bytes: int
    """What the run may take in all."""
    peak: cards.Peak


@dataclass(frozen=True)
class Choice:
    """A preset with nothing open, and what it would take."""

    preset: Preset
    case: Case
    prediction: Prediction
    verdict: predict.Verdict
    step_s: float

    @property
    def completion_s(self) -> float:
        return self.step_s / (self.preset.prompts_per_step * self.preset.num_generations)


def case_of(recipe: Recipe, preset: Preset, shape: ModelShape, usable_bytes: int) -> Case:
    """What the memory of a preset without an open value depends on."""
    completions = preset.prompts_per_step * preset.num_generations
    return Case(
        shape=shape,
        four_bit=preset.load_in_4bit,
        max_seq_length=preset.max_seq_length,
        max_completion_length=preset.max_completion_length,
        lora_rank=preset.lora_rank,
        targets=tuple(recipe.lora.target_modules),
        num_seqs=min(completions, MAX_NUM_SEQS),
        batch=preset.per_device_train_batch_size or preset.num_generations,
        engine_bytes=math.floor((preset.gpu_memory_utilization or 0) * usable_bytes),
        standby=preset.standby,
        optimizer_bytes=2.03 if "8bit" in recipe.train.optim else 8,
    )


def open_keys(preset: Preset) -> list[str]:
    return [key for key in OPEN if getattr(preset, key) == "auto"]


def resolve(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Choice:
    """The fastest choice for the open values that fits; else the fastest that is tight.

    When none of them can fit, the one that takes least.
    """
    found = list(choices(recipe, preset, shape, room))
    for wanted in ("fits", "tight"):
        good = [choice for choice in found if choice.verdict == wanted]
        if good:
            return min(good, key=lambda choice: (choice.completion_s, choice.prediction.peak_bytes))
    return min(found, key=lambda choice: choice.prediction.peak_bytes)


def choices(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Iterator[Choice]:
    """Every combination of the open values, each with the best share for the engine."""
    given: dict[str, Any] = {key: getattr(preset, key) for key in OPEN}
    options = {
        "load_in_4bit": [False, True],
        "standby": [False, True],
        "prompts_per_step": list(_prompts(preset)),
    }
    columns = [values if given[key] == "auto" else [given[key]] for key, values in options.items()]
    for bits, standby, prompts in product(*columns):
        completions = prompts * preset.num_generations
        batches = [given["per_device_train_batch_size"] or preset.num_generations]
        if batches == ["auto"]:
            batches = [n for n in divisors(completions) if n <= AUTO_BATCH]
        for batch in batches:
            draft = preset.model_copy(
                update={
                    "load_in_4bit": bits,
                    "standby": standby,
                    "prompts_per_step": prompts,
                    "per_device_train_batch_size": batch,
                }
            )
            yield _with_share(recipe, draft, shape, room)


def _prompts(preset: Preset) -> Iterator[int]:
    prompts = 1
    while prompts == 1 or prompts * preset.num_generations <= AUTO_COMPLETIONS:
        yield prompts
        prompts *= 2


def _with_share(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Choice:
    if preset.gpu_memory_utilization != "auto":
        return _choice(recipe, preset, shape, room)
    error = constants.CALIBRATED["error"].value
    draft = preset.model_copy(update={"gpu_memory_utilization": 0.0})
    case = case_of(recipe, draft, shape, room.usable_bytes)

    def share(size: float) -> float:
        return min(MAX_SHARE, math.ceil(size / room.usable_bytes * 100) / 100)

    least = share(predict.least_share_bytes(case))
    most = share(predict.least_share_bytes(case, case.num_seqs))
    whole = replace(case, engine_bytes=math.floor(most * room.usable_bytes))
    # A peak with the engine in it grows byte by byte with the share.
    found = predict.predict(whole)
    there = predict.room_bytes(found, whole, room.available_bytes)
    excess = found.peak_bytes - there / (1 + error)
    if excess > 0:
        most = math.floor((most - excess / room.usable_bytes) * 100) / 100
    return _largest_that_fits(
        lambda hundredths: _choice(
            recipe,
            draft.model_copy(update={"gpu_memory_utilization": hundredths / 100}),
            shape,
            room,
        ),
        round(100 * least),
        round(100 * max(least, most)),
    )


def _largest_that_fits(choose: Callable[[int], Choice], least: int, most: int) -> Choice:
    """The choice with the largest share, in hundredths, that fits; with `most` where none does.

    A pass of the engine grows by steps with its share, and it stays while standby trains: below a
    step less may be needed than the bytes that were taken off.
    """
    largest = choose(most)
    if largest.verdict == "fits" or least == most or choose(least).verdict != "fits":
        return largest
    while most - least > 1:  # the first fits, the last does not
        middle = (least + most) // 2
        least, most = (middle, most) if choose(middle).verdict == "fits" else (least, middle)
    return choose(least)


def _choice(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Choice:
    case = case_of(recipe, preset, shape, room.usable_bytes)
    prediction = predict.predict(case)
    completions = preset.prompts_per_step * preset.num_generations
    return Choice(
        preset,
        case,
        prediction,
        predict.verdict(prediction, case, room.available_bytes),
        speed.step_s(case, completions, prediction.kv_tokens, room.peak),
    )


def changes(
    recipe: Recipe, preset: Preset, shape: ModelShape, room: Room, most: int = 3
) -> list[dict[str, Any]]:
    """The cheapest changes of a preset without open values that would make it fit.

    First single keys that change nothing of what is learned, then several at once, then fewer
    prompts, then lengths and rank; among as many, the fastest first.
    """
    keys = OPEN[:4]
    for count in range(1, len(keys) + 1):
        found = []
        for opened in combinations(keys, count):
            draft = preset.model_copy(update=dict.fromkeys(opened, "auto"))
            choice = resolve(recipe, draft, shape, room)
            if choice.verdict == "fits":
                found.append(choice)
        if found:
            found.sort(key=lambda choice: choice.completion_s)
            different = [_difference(preset, choice.preset) for choice in found]
            return [d for n, d in enumerate(different) if d not in different[:n]][:most]
    fewer = resolve(recipe, preset.model_copy(update=dict.fromkeys(OPEN, "auto")), shape, room)
    if fewer.verdict == "fits" and fewer.preset.prompts_per_step < preset.prompts_per_step:
        return [_difference(preset, fewer.preset)]
    return _shorter(recipe, preset, keys, shape, room)


def _shorter(
    recipe: Recipe, preset: Preset, keys: tuple[str, ...], shape: ModelShape, room: Room
) -> list[dict[str, Any]]:
    """The longest sequences at which the preset fits with `keys` open."""
    draft = preset.model_copy(update=dict.fromkeys(keys, "auto"))
    prompt = draft.max_seq_length - draft.max_completion_length
    for share in (6 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 1 / 16, 1 / 32, 1 / 64):
        length = math.floor(draft.max_completion_length * share)
        if length < 16:
            break
        shorter = {"max_completion_length": length, "max_seq_length": prompt + length}
        for rank in sorted({draft.lora_rank, min(draft.lora_rank, 8)}, reverse=True):
            update = shorter | {"lora_rank": rank}
            choice = resolve(recipe, draft.model_copy(update=update), shape, room)
            if choice.verdict == "fits":
                return [_difference(preset, choice.preset)]
    return []


def _difference(before: Preset, after: Preset) -> dict[str, Any]:
    keys = Preset.model_fields
    return {key: getattr(after, key) for key in keys if getattr(after, key) != getattr(before, key)}

"""Choose the values of a preset that are "auto", and changes that would make a preset fit.

Every candidate is judged by the arithmetic of `memory` and ordered by `speed`. Only settings that
change memory and time are searched; those that change what is learned (lengths, rank, group) stay,
unless nothing else fits.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.algorithms.base import LoadIn, Preset
from r1recipes.config.section import AUTO
from r1recipes.machine import cards
from r1recipes.planning import speed
from r1recipes.planning.memory import domain, predict
from r1recipes.planning.memory.case import (
    ADAM_8BIT_BYTES,
    ADAM_BYTES,
    Case,
    engine_sequences,
)
from r1recipes.planning.memory.predict import Prediction
from r1recipes.planning.models import ModelShape
from r1recipes.planning.speed.lengths import REAL, Lengths
from r1recipes.recipe.schema import Recipe

AUTO_COMPLETIONS = 256
"""Most completions of a step that "auto" chooses: each costs the host as much as the one before, so
more of them save little (`speed.step`), and a run of as many steps takes longer."""
AUTO_BATCH = 64
"""Most completions of a pass that "auto" chooses; arithmetic reaches its peak with far fewer."""
NEAR = 1.01
"""Choices that are slower than the fastest by less are as fast: the speed model is no more exact,
and what takes less memory and no standby is safer; assumed."""
MAX_SHARE = 0.95
"""Largest share of the card for the engine that "auto" chooses or a hint advises; assumed."""
OPEN = (
    "per_device_train_batch_size",
    "gpu_memory_utilization",
    "standby",
    "load_in_4bit",
    "layers_not_recomputed",
    "prompts_per_step",
)
"""Keys of a preset that may be "auto"; changing an earlier one costs less."""
BY_ITSELF: tuple[LoadIn, ...] = ("16bit", "4bit")
"""How "auto" may load weights. FP8 is not among them: it has not been measured."""


@dataclass(frozen=True)
class Room:
    """The memory that a run can have on a card, the speed of the card, and the lengths of the
    completions for which choices are compared."""

    usable_bytes: int
    """The whole card, of which gpu_memory_utilization is a share."""
    available_bytes: int
    """The part that a run may take: the whole card, or what is free of it."""
    peak: cards.Peak
    lengths: Lengths = REAL


@dataclass(frozen=True)
class Choice:
    """A preset with nothing open, its predicted memory and its step times."""

    preset: Preset
    case: Case
    prediction: Prediction
    verdict: predict.Fit
    room: Room

    @cached_property
    def full(self) -> speed.StepTime:
        """Time of a step with every prompt and completion at its greatest length."""
        return self._step(None)

    @cached_property
    def real(self) -> speed.StepTime:
        """Time of a step with the lengths of the room."""
        return self._step(self.room.lengths)

    def _step(self, lengths: Lengths | None) -> speed.StepTime:
        group, kv_tokens = self.preset.num_generations, self.prediction.kv_tokens
        completions = self.case.trained or self.preset.prompts_per_step * group
        return speed.step(self.case, completions, group, kv_tokens, self.room.peak, lengths)

    @property
    def completion_s(self) -> float:
        """Seconds for each completion: the geometric mean of real lengths and full ones, since a
        model that learns to reason writes more and more."""
        completions = self.preset.prompts_per_step * self.preset.num_generations
        return math.sqrt(self.real.step_s * self.full.step_s) / completions


def case_of(recipe: Recipe, preset: Preset, shape: ModelShape, usable_bytes: int) -> Case:
    """The part of a recipe that its memory depends on, for a preset without an open value."""
    algorithm = ALGORITHMS[recipe.algorithm]
    completions = preset.prompts_per_step * preset.num_generations  # sampled at once
    step = algorithm.step(preset)
    return Case(
        shape=shape,
        load_in=preset.weights,
        max_seq_length=preset.max_seq_length,
        max_completion_length=preset.max_completion_length,
        lora_rank=preset.lora_rank,
        targets=tuple(recipe.lora.target_modules),
        num_seqs=engine_sequences(completions),
        batch=step.batch,
        engine_bytes=math.floor((preset.gpu_memory_utilization or 0) * usable_bytes),
        standby=preset.standby,
        optimizer_bytes=ADAM_8BIT_BYTES if "8bit" in recipe.train.optim else ADAM_BYTES,
        layers_not_recomputed=min(preset.layers_not_recomputed, shape.num_hidden_layers),
        completions=completions,
        kv_cache_dtype=preset.kv_cache_dtype,
        trained=None if algorithm.samples else step.completions,
        samples=algorithm.samples,
        reference=algorithm.reference(recipe.train),
        logit_bytes=algorithm.logit_bytes,
    )


def open_keys(preset: Preset) -> list[str]:
    """Keys of a preset whose value is "auto"."""
    return [key for key in OPEN if getattr(preset, key) == AUTO]


def with_open(preset: Preset, keys: Iterable[str]) -> Preset:
    """The preset with these keys left to the planner."""
    keys = tuple(keys)
    if "load_in_4bit" in keys:  # it says nothing where the preset loads FP8
        preset = preset.with_weights("16bit")
    return preset.model_copy(update=dict.fromkeys(keys, AUTO))


def resolve(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Choice:
    """The fastest choice for the open values that fits; else the fastest that is tight.

    Of those that are as fast, it is one without standby that takes the least memory; where none of
    them can fit, the one that takes the least memory of all.
    """
    candidates = list(choices(recipe, preset, shape, room))
    for verdict in ("fits", "tight"):
        good = [choice for choice in candidates if choice.verdict == verdict]
        if good:
            return _least_of_the_fastest(good)
    return min(candidates, key=lambda choice: choice.prediction.peak_bytes)


def _least_of_the_fastest(good: list[Choice]) -> Choice:
    slowest = NEAR * min(choice.completion_s for choice in good)
    fast = [choice for choice in good if choice.completion_s <= slowest]
    return min(fast, key=_price)


def _price(choice: Choice) -> tuple[bool, bool, int, float]:
    """What a choice costs beside time: standby, weights that are not exact, memory."""
    preset, needed = choice.preset, choice.prediction.peak_bytes
    return preset.standby, preset.weights != "16bit", needed, choice.completion_s


def choices(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Iterator[Choice]:
    """Every combination of the open values, each with the best share for the engine."""
    opened, algorithm = open_keys(preset), ALGORITHMS[recipe.algorithm]
    both = (False, True)
    forms: tuple[LoadIn, ...] = (preset.weights,)
    if "load_in_4bit" in opened:
        forms = BY_ITSELF
    standbys = both if "standby" in opened else (preset.standby,)
    counts = _prompts(recipe, preset) if "prompts_per_step" in opened else [preset.prompts_per_step]
    layers = _layers(shape) if "layers_not_recomputed" in opened else [preset.layers_not_recomputed]
    loaded = [preset.with_weights(load_in) for load_in in forms]
    for base, standby, prompts in product(loaded, standbys, counts):
        batches = [preset.per_device_train_batch_size]
        if "per_device_train_batch_size" in opened:
            sized = {"prompts_per_step": prompts, "per_device_train_batch_size": None}
            step = algorithm.step(preset.model_copy(update=sized))
            batches = [n for n in step.batches() if n <= AUTO_BATCH]
        for batch, stored in product(batches, layers):
            draft = base.model_copy(
                update={
                    "standby": standby,
                    "layers_not_recomputed": stored,
                    "prompts_per_step": prompts,
                    "per_device_train_batch_size": batch,
                }
            )
            if algorithm.samples or algorithm.step(draft).is_whole:
                yield _with_share(recipe, draft, shape, room)


def _layers(shape: ModelShape) -> list[int]:
    """Numbers of layers to try that are not recomputed: none, all, and quarters between."""
    return sorted({shape.num_hidden_layers * quarters // 4 for quarters in range(5)})


def _prompts(recipe: Recipe, preset: Preset) -> list[int]:
    """Numbers of prompts to try: powers of 2 and three times these, and the most that the engine
    works on at once. Of them, those whose steps are large enough for `eval.every`, if any is."""
    group = preset.num_generations
    numbers = {n for power in range(9) for n in (2**power, 3 * 2**power)} | {
        AUTO_COMPLETIONS // group
    }
    prompts = [n for n in sorted(numbers) if 1 <= n and (n == 1 or n * group <= AUTO_COMPLETIONS)]
    every = recipe.eval.every
    if every is None or every >= recipe.train.max_steps:
        return prompts
    algorithm = ALGORITHMS[recipe.algorithm]
    sizes = [(n, _evaluation(recipe, algorithm, preset, n)) for n in prompts]
    return [n for n, cost in sizes if cost.problems(every) is not None] or prompts


def _evaluation(
    recipe: Recipe, algorithm: Algorithm, preset: Preset, prompts: int
) -> speed.Evaluation:
    """What an evaluation while training costs, with so many prompts in a step."""
    sized = {"prompts_per_step": prompts, "per_device_train_batch_size": None}
    completions = algorithm.step(preset.model_copy(update=sized)).completions
    batch, available = recipe.eval.batch_size, recipe.data.eval_size
    return speed.Evaluation("cuda", completions, batch, available, algorithm.samples)


def _with_share(recipe: Recipe, preset: Preset, shape: ModelShape, room: Room) -> Choice:
    if "gpu_memory_utilization" not in open_keys(preset):
        return _choice(recipe, preset, shape, room)
    draft = preset.model_copy(update={"gpu_memory_utilization": 0.0})
    case = case_of(recipe, draft, shape, room.usable_bytes)

    def share(size: float) -> float:
        return min(MAX_SHARE, math.ceil(size / room.usable_bytes * 100) / 100)

    least = share(predict.least_share_bytes(case))
    most = share(predict.least_share_bytes(case, case.at_once))
    largest = replace(case, engine_bytes=math.floor(most * room.usable_bytes))
    # A peak that includes the engine grows byte by byte with the share.
    prediction = predict.predict(largest)
    room_bytes = predict.room_bytes(prediction, largest, room.available_bytes)
    excess = prediction.peak_bytes - room_bytes / (1 + domain.error(case))
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

    The engine's pass grows by steps with its share, and its memory stays in use while standby
    trains: below a step, memory may shrink by more than the share does.
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
    verdict = predict.verdict(prediction, case, room.available_bytes)
    return Choice(preset, case, prediction, verdict, room)


def changes(
    recipe: Recipe, preset: Preset, shape: ModelShape, room: Room, most: int = 3
) -> list[dict[str, Any]]:
    """The cheapest changes of a preset without open values that would make it fit.

    First single keys that do not change what is learned, then several at once, then fewer prompts,
    then lengths and rank. Of changes with as many keys, the fastest comes first.
    """
    keys = tuple(key for key in OPEN[:5] if key != OPEN[4] or preset.layers_not_recomputed)
    for count in range(1, len(keys) + 1):
        fitting = []
        for opened in combinations(keys, count):
            draft = with_open(preset, opened)
            choice = resolve(recipe, draft, shape, room)
            if choice.verdict == "fits":
                fitting.append(choice)
        if fitting:
            fitting.sort(key=lambda choice: choice.completion_s)
            different = [_difference(preset, choice.preset) for choice in fitting]
            return [d for n, d in enumerate(different) if d not in different[:n]][:most]
    fewer = resolve(recipe, with_open(preset, OPEN), shape, room)
    if fewer.verdict == "fits" and fewer.preset.prompts_per_step < preset.prompts_per_step:
        return [_difference(preset, fewer.preset)]
    return _shorter(recipe, preset, keys, shape, room)


def _shorter(
    recipe: Recipe, preset: Preset, keys: tuple[str, ...], shape: ModelShape, room: Room
) -> list[dict[str, Any]]:
    """A change to the longest sequences with which the preset fits while `keys` are open."""
    draft = with_open(preset, keys)
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
    """The keys of a recipe that turn a preset into another one, with their values."""
    old, new = before.written(), after.written()
    return {key: value for key, value in new.items() if value != old[key]}

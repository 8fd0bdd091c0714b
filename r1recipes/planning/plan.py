"""Recipe + machine -> Plan: the preset chosen, every open value resolved, the batch arithmetic.

A plan has no open value. It is written into the run folder as `resolved.json` and is all that
training reads. A preset is chosen by the size of the card, its "auto" values are chosen by `auto`,
and a plan for this machine is refused where its predicted memory does not fit.
"""

import importlib.util
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.algorithms.base import Preset, preset_bytes
from r1recipes.algorithms.checks import of_batches
from r1recipes.algorithms.step import Step
from r1recipes.config.section import AUTO
from r1recipes.errors import PlanError
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import auto, fit, speed
from r1recipes.planning.architectures import Origin
from r1recipes.planning.fit import refusals
from r1recipes.planning.memory.case import engine_sequences
from r1recipes.planning.memory.predicted import Predicted
from r1recipes.recipe.schema import Model, Recipe, of_stage

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]


class Plan(BaseModel):
    """What a run does, with nothing left open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: SerializeAsAny[Recipe]
    base_dir: Path
    """Folder that relative file names of the recipe start from."""
    backend: Literal["unsloth", "trl"]
    device: Device
    dtype: Dtype
    preset_name: str
    preset: Preset
    lora_alpha: int
    warmup_steps: int
    per_device_train_batch_size: int
    """Completions in one forward and backward pass."""
    gradient_accumulation_steps: int
    usable_bytes: int | None
    """Memory of the card, None without one."""
    max_num_seqs: int
    """Sequences that the engine is made to work on at once."""
    num_threads: int
    """CPU threads of torch; the order of sums, and so the last digits, depend on it."""
    predicted: Predicted | None = None
    """Predicted memory; None on a CPU, without the engine, or for a model of unknown shape."""
    origin: Origin | None = None
    """Where `model.name` of the recipe is a run or an adapter."""
    eval_problems: int | None = None
    """Held-out problems that are answered every `eval.every` steps; None where none are."""
    earlier: Annotated[tuple["Plan", ...], Field(exclude_if=operator.not_)] = ()
    """The plans of the stages before the training, in their order."""

    @property
    def base_model(self) -> Model:
        """The model whose weights are read first: the recipe's, or the base of its adapter."""
        return self.origin.base_model if self.origin else self.recipe.model

    @property
    def has_own_base(self) -> bool:
        """Whether the run folder has the weights that the adapter is trained on."""
        return self.recipe.cold_start is not None or self.origin is not None

    def with_origin(self, origin: Origin) -> Self:
        """The same with another account of the adapter that it starts from, in every stage."""
        earlier = tuple(stage.with_origin(origin) for stage in self.earlier)
        return self.model_copy(update={"origin": origin, "earlier": earlier})

    @property
    def algorithm(self) -> Algorithm:
        return ALGORITHMS[self.recipe.algorithm].on(self.backend)

    @property
    def step(self) -> Step:
        """The arithmetic of one optimiser step."""
        return replace(self.algorithm.step(self.preset), batch=self.per_device_train_batch_size)

    @property
    def completions_per_step(self) -> int:
        return self.algorithm.step(self.preset).completions

    @property
    def max_prompt_length(self) -> int:
        """Most tokens that a prompt may have."""
        return self.preset.max_seq_length - self.preset.max_completion_length

    def batch_sentence(self) -> str:
        """The batch arithmetic of one optimiser step in words."""
        micro = self.gradient_accumulation_steps
        passes = f"{micro} passes of {self.per_device_train_batch_size}" if micro > 1 else "1 pass"
        return f"{self.algorithm.step_in_words(self.preset)}, in {passes}"


@dataclass(frozen=True)
class Target:
    """The machine that a plan is for."""

    card: Gpu | None
    num_cores: int
    has_packages: bool
    """Unsloth and vLLM are installed; without them a card is used through plain TRL."""
    is_here: bool
    """The plan is to be run on this machine: it is refused where its memory does not fit."""

    @classmethod
    def here(cls, card: Gpu | None, num_cores: int) -> Self:
        """This machine, with the card and the cores that a run may use."""
        return cls(card, num_cores, has_unsloth(), is_here=True)

    @classmethod
    def elsewhere(cls, card: Gpu) -> Self:
        """Another machine, with the packages that its card needs."""
        return cls(card, 1, has_packages=True, is_here=False)


class DoesNotFit(PlanError):
    """The plan needs more memory than this machine has free."""

    def __init__(self, plan: Plan, predicted: Predicted):
        self.plan, self.predicted = plan, predicted
        message, hint = fit.refusal(predicted)
        super().__init__(message, hint=hint)


def make(
    recipe: Recipe,
    target: Target,
    *,
    base_dir: Path,
    preset: str | None = None,
    chosen: dict[str, Any] | None = None,
    offline: bool = True,
    origin: Origin | None = None,
    lengths: speed.Lengths = speed.REAL,
) -> Plan:
    """Resolve a recipe for a machine.

    `preset`: the name of one; without it the largest that the card can hold. `chosen`: values for
    what is "auto", of a run that is to be repeated; without it the planner chooses. `offline`: read
    the shape of an unknown model from the Hub's cache only. `origin`: the adapter that the recipe
    names as its model. `lengths`: of the completions for which choices are compared.
    Raises: PlanError with what the recipe needs and what would run here; DoesNotFit.
    """
    if not all(row.trains_on("unsloth", train) for row, train in recipe.trainings):
        target = replace(target, has_packages=False)  # all stages are trained by one backend
    resolve = partial(
        _resolved, target=target, base_dir=base_dir, offline=offline, origin=origin, lengths=lengths
    )
    plan = resolve(recipe, preset, chosen or {})
    if recipe.stage:
        plan = _with_stages(plan, resolve)
    if target.is_here and plan.predicted and plan.predicted.verdict == "does not fit":
        raise DoesNotFit(plan, plan.predicted)
    return plan


def _with_stages(plan: Plan, resolve: Callable[[Recipe, str, dict[str, Any]], Plan]) -> Plan:
    """The plan with those of its stages, and the memory of the one that needs most.

    What the planner chose for the training holds for the stages too, apart from the size of the
    passes. Raises: PlanError.
    """
    recipe, name, preset = plan.recipe, plan.preset_name, plan.preset
    if (passes := "per_device_train_batch_size") in auto.open_keys(recipe.preset[name]):
        preset = auto.with_open(preset, [passes])
    earlier = []
    for title, stage in zip(recipe.stage_names, recipe.stage, strict=True):
        try:
            alone = of_stage(recipe, stage, {name: preset})
        except ValidationError as error:  # with a value that the planner has chosen
            message, hint = error.errors()[0]["ctx"]["problems"][0][1:]
            raise PlanError(f"stage {title}: {message}", hint=hint) from error
        shared = {"max_num_seqs": plan.max_num_seqs}  # the engine is made once
        earlier.append(resolve(alone, name, {}).model_copy(update=shared))
    titles = dict(zip(recipe.stage_names, earlier, strict=True))
    predicted = fit.largest(plan.predicted, {t: each.predicted for t, each in titles.items()})
    return plan.model_copy(update={"earlier": tuple(earlier), "predicted": predicted})


def _resolved(
    recipe: Recipe,
    preset: str | None,
    chosen: dict[str, Any],
    *,
    target: Target,
    base_dir: Path,
    offline: bool,
    origin: Origin | None,
    lengths: speed.Lengths,
) -> Plan:
    """The plan of a recipe without its stages, whether it fits or not. Raises: PlanError."""
    based = recipe.model_copy(update={"model": origin.base_model}) if origin else recipe
    refusals.check_model(based, base_dir, offline=offline)
    name = fit.choose_preset(recipe, target.card, preset)
    settled = _settled(recipe, recipe.preset[name], chosen)
    card = None if name == "cpu" else target.card
    algorithm = ALGORITHMS[recipe.algorithm]
    is_served = target.has_packages and algorithm.trains_on("unsloth", recipe.train)
    has_engine = card is not None and is_served
    refusals.check_card(recipe, card, has_engine)
    if card:
        refusals.check_weights(settled, card, has_engine=has_engine, is_here=target.is_here)
    predicted = None
    if card and (has_engine or algorithm.logit_bytes):
        shape = fit.shape_of(based, settled, base_dir, offline=offline, strict=not target.is_here)
        if shape:
            refusals.check_fp8_shape(settled, shape)
            refusals.check_kv_cache(settled, shape, card)
            refusals.check_cold_start(based, shape, card, choose_dtype("cuda", card))
            if has_engine:
                refusals.check_family(based.model.name, shape, choose_dtype("cuda", card))
                settled, predicted = fit.fitted(based, settled, shape, card, lengths)
            elif not auto.open_keys(settled):
                predicted = fit.predicted_plain(based, settled, shape, card)
    if auto.open_keys(settled):
        key = next(key for key, value in settled.written().items() if value == AUTO)
        raise PlanError(
            f'`{key} = "auto"` needs Unsloth, vLLM and a model of known shape',
            hint=f"write a value for `preset.{name}.{key}`",
        )
    plan = _plan(recipe, target, base_dir, name, settled, predicted, has_engine)
    return plan.model_copy(update={"origin": origin})


def _plan(
    recipe: Recipe,
    target: Target,
    base_dir: Path,
    name: str,
    preset: Preset,
    predicted: Predicted | None,
    has_engine: bool,
) -> Plan:
    card = None if name == "cpu" else target.card
    device: Device = "cuda" if card else "cpu"
    step = ALGORITHMS[recipe.algorithm].step(preset)
    return Plan(
        recipe=recipe,
        base_dir=base_dir.absolute(),
        backend="unsloth" if has_engine else "trl",
        device=device,
        dtype=choose_dtype(device, card),
        preset_name=name,
        preset=preset,
        lora_alpha=recipe.lora.lora_alpha or preset.lora_rank,
        warmup_steps=round(recipe.train.warmup_ratio * recipe.train.max_steps),
        per_device_train_batch_size=step.batch,
        gradient_accumulation_steps=step.passes,
        usable_bytes=card.total_bytes if card else None,
        max_num_seqs=engine_sequences(preset.prompts_per_step * preset.num_generations),
        num_threads=preset.num_threads or target.num_cores,
        predicted=predicted,
        eval_problems=speed.eval_problems(recipe, device, step.completions),
    )


def _settled(recipe: Recipe, preset: Preset, chosen: dict[str, Any]) -> Preset:
    values = {key: chosen[key] for key in auto.open_keys(preset) if key in chosen}
    if not values:
        return preset
    try:
        settled = Preset.model_validate(preset.model_dump() | values)
    except ValidationError as error:
        faults = [error.errors(include_url=False)[0]["msg"]]
    else:
        faults = [text for _, text, _ in of_batches(ALGORITHMS[recipe.algorithm], settled.__dict__)]
    if faults:
        raise PlanError(
            f'the values that the lock has for "auto" are not a valid preset: {faults[0]}',
            hint="run without --locked: the planner then chooses anew",
        )
    return settled


def opened(recipe: Recipe, card: Gpu, requested: str | None) -> tuple[str, Recipe]:
    """A preset named after the card's size, with every value open that the planner can choose.

    The other values are those of the preset that the card would get, or of the smallest preset.
    """
    names = sorted((name for name in recipe.preset if name != "cpu"), key=preset_bytes)
    fitting = fit.presets_for(names, card)
    base = fitting[-1] if fitting else names[0]
    if requested:
        base = fit.choose_preset(recipe, card, requested)
    preset = recipe.preset[base]
    is_fp8 = preset.load_in == "fp8"  # the planner would choose none (`auto.BY_ITSELF`)
    preset = auto.with_open(preset, (k for k in auto.OPEN if not (is_fp8 and k == "load_in_4bit")))
    name = requested or cards.size_class(card.total_bytes)
    return name, recipe.model_copy(update={"preset": recipe.preset | {name: preset}})


def pinned(plan: Plan, began: dict[str, Any]) -> Plan:
    """The plan with the commits that a run began with, since a branch may have moved."""
    recipe, commits = plan.recipe, began.get("stage_revisions") or {}
    earlier = tuple(
        pinned(stage, began | {"examples_revision": commits.get(name)})
        for name, stage in zip(recipe.stage_names, plan.earlier, strict=True)
    )
    model_revision = began.get("model_revision") or recipe.model.revision
    data_revision = began.get("data_revision") or recipe.data.revision
    update: dict[str, Any] = {
        "model": recipe.model.model_copy(update={"revision": model_revision}),
        "data": recipe.data.model_copy(update={"revision": data_revision}),
    }
    if recipe.examples and began.get("examples_revision"):
        pinned_to = {"revision": began["examples_revision"]}
        update["examples"] = recipe.examples.model_copy(update=pinned_to)
    recipe = recipe.model_copy(update=update)
    return plan.model_copy(update={"recipe": recipe, "earlier": earlier})


def has_unsloth() -> bool:
    """Whether Unsloth and vLLM are installed; neither is imported."""
    return all(importlib.util.find_spec(name) for name in ("unsloth", "vllm"))


def choose_dtype(device: str, card: Gpu | None) -> Dtype:
    """float32 on a CPU; bfloat16 from compute capability 8 on, float16 below.

    The capability decides, since torch.cuda.is_bf16_supported() is also true for emulation.
    """
    if device == "cpu" or card is None:
        return "float32"
    return "bfloat16" if card.compute_capability >= 8.0 else "float16"

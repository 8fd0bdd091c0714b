"""Presets for a model that no shipped recipe has: those of `plan --fit` for given cards, and one
for the CPU where a CPU trains so small a model.

Limits: predicted, not measured; lengths, rank and group size are those of the recipe that the new
one is made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.base import Preset, preset_bytes
from r1recipes.errors import PlanError
from r1recipes.machine import hub
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import architectures, models, plan, proofs
from r1recipes.planning.fit import refusals
from r1recipes.planning.models import ModelShape
from r1recipes.recipe import loading, scaffold
from r1recipes.recipe.loading import Loaded
from r1recipes.recipe.schema import BUILTIN_MODELS, Recipe

CLASSES = ("6GB", "8GB", "12GB", "16GB", "24GB", "48GB", "80GB")
"""Sizes of cards that a new recipe has presets for where none is named; those of the shipped ones,
and 12GB, which many have."""
CPU_RECIPE = "smollm2-135m"
"""The shipped recipe whose [preset.cpu] was run with a pretrained model."""
BASE_CAPABILITY = 8.0
"""Of a card that is known by its memory alone; assumed, as for `plan --vram`."""


@dataclass
class Presets:
    """The presets of a new recipe."""

    by_name: dict[str, Preset]
    notes: dict[str, str] = field(default_factory=dict)
    """Name of a preset -> a sentence on where it is from; none for a measured one."""
    refused: list[str] = field(default_factory=list)
    """What was asked for and does not fit, with the reason."""


@dataclass(frozen=True)
class New:
    """A new recipe, still with the name of the model that it is made from."""

    recipe: Recipe
    base: str
    """File of the shipped recipe that it is made from."""
    notes: dict[str, str]
    """Name of a preset -> a sentence on where it is from."""
    lines: list[str]
    """What the user has to know of it."""


def predicted_gib(loaded: Loaded, preset: str) -> float | None:
    """GiB that a preset needs by `plan` on the smallest card of its class, without memory that is
    given back where there is no room; None for a model of unknown shape. Raises: PlanError."""
    size = proofs.class_bytes(preset) or preset_bytes(preset)
    target = plan.Target.elsewhere(Gpu(0, preset, size, size, BASE_CAPABILITY, ""))
    made = plan.make(loaded.recipe, target, base_dir=loaded.path.parent, preset=preset)
    return made.predicted.needed_bytes / GIB if made.predicted else None


def recipe_for(model: str, algorithm: str, cards: Sequence[Gpu], base_dir: Path) -> New:
    """The recipe of the nearest model, by family and size, with presets for this one.

    Raises: PlanError for a model that is refused, or that fits none of the cards.
    """
    try:
        checkpoint = architectures.find(model, base_dir, offline=hub.is_offline())
    except architectures.Unreachable:
        checkpoint = None
    shape, family = (checkpoint.shape, checkpoint.family) if checkpoint else (None, None)

    def find_shape(name: str) -> ModelShape | None:
        return models.find(name) or (shape if name == model else None)

    base = loading.load(scaffold.base_for(model, find_shape, family))
    recipe, name = scaffold.for_algorithm(base.recipe, algorithm), base.path.name
    if shape is None:
        why = "is unknown here, as its config.json cannot be reached: the presets are those of"
        line = f"warning: `{model}` {why} {recipe.model.name}, and may not fit"
        return New(recipe, name, {}, [line])
    refusals.check_targets(recipe, model, shape)
    recipe = on_cpu(recipe) if is_for_cpu(shape) else recipe
    is_measured = scaffold.is_measured(base.path)
    made = of_model(recipe, model, shape, cards, base_dir, is_measured=is_measured)
    refused = [f"no preset for {reason}" for reason in made.refused] if cards else []
    recipe = recipe.model_copy(update={"preset": made.by_name})
    return New(recipe, name, made.notes, refused)


def of_model(
    base: Recipe,
    model: str,
    shape: ModelShape,
    cards: Sequence[Gpu],
    base_dir: Path,
    *,
    is_measured: bool = True,
) -> Presets:
    """Presets with which `model` fits `cards`, or without any the smallest card of each class.

    `base`: the recipe that the new one is made from, with all that does not depend on the card. Its
    presets stay where they were measured (`is_measured`) with this model, and where nothing can be
    chosen: for a built-in model, and for an algorithm that the engine does not serve.
    Raises: PlanError where nothing fits.
    """
    known = models.find(model)
    same = is_measured and known is not None and known is models.find(base.model.name)
    has_engine = ALGORITHMS[base.algorithm].trains_on("unsloth", base.train)
    can_choose = has_engine and model not in BUILTIN_MODELS
    if not can_choose or (same and not cards):
        return Presets(dict(base.preset))
    presets = Presets({})
    section = base.model.model_copy(update={"name": model, "revision": None, "chat_template": None})
    mine = base.model_copy(update={"model": section})
    for card in cards or smallest_cards():
        _add(presets, mine, card, base_dir)
    if same:
        measured = {name: base.preset[name] for name in presets.by_name.keys() & base.preset.keys()}
        presets.by_name |= measured
        presets.notes = {n: text for n, text in presets.notes.items() if n not in measured}
    if is_for_cpu(shape):
        presets.by_name["cpu"] = loading.load(CPU_RECIPE).recipe.preset["cpu"]
        presets.notes["cpu"] = "For a CPU, which trains a model of this size; not measured."
    if not presets.by_name:
        raise PlanError(
            f"`{model}` fits none of these cards: {'; '.join(presets.refused)}",
            hint="name a larger card, such as `--gpu h100`, or take a smaller model",
        )
    return presets


def is_for_cpu(shape: ModelShape) -> bool:
    """Whether a CPU trains a model of this size."""
    return shape.parameters <= models.CPU_PARAMETERS


def on_cpu(recipe: Recipe) -> Recipe:
    """A recipe whose optimiser is one that a CPU has too."""
    if "8bit" not in recipe.train.optim:
        return recipe
    train = recipe.train.model_copy(update={"optim": "adamw_torch"})
    return recipe.model_copy(update={"train": train})


def smallest_cards() -> list[Gpu]:
    """The smallest card of each class."""
    sizes = {name: proofs.class_bytes(name) for name in CLASSES}
    return [
        Gpu(0, f"the smallest card of {name}", size, size, BASE_CAPABILITY, "")
        for name, size in sizes.items()
        if size is not None
    ]


def _add(presets: Presets, recipe: Recipe, card: Gpu, base_dir: Path) -> None:
    """The fastest preset that surely fits a card, or the reason why there is none."""
    name, opened = plan.opened(recipe, card, None)
    target = plan.Target.elsewhere(card)
    try:
        resolved = plan.make(opened, target, base_dir=base_dir, preset=name)
    except PlanError as error:
        presets.refused.append(f"{card.name}: {error.problems[0].message}")
        return
    predicted = resolved.predicted
    if predicted is None or predicted.verdict != "fits":
        why = predicted.why if predicted else "memory is not predicted"
        presets.refused.append(f"{card.name}: {why}")
        return
    presets.by_name[name] = resolved.preset
    presets.notes[name] = f"Predicted for {card.name}, not measured: {predicted.sentence()}."

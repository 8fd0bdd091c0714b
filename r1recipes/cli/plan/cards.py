"""The GPU that a command plans for: named, of some size, or at hand."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from r1recipes.errors import RecipeError, command
from r1recipes.machine.units import GIB

if TYPE_CHECKING:
    from r1recipes.machine.gpu import Gpu
    from r1recipes.recipe import Recipe


def no_memory(recipe: Recipe, preset_name: str) -> RecipeError:
    return RecipeError(
        f"preset `{preset_name}` runs on a CPU: there is no GPU memory to plan",
        hint=f"`--preset {_smallest(recipe)}`",
    )


def _smallest(recipe: Recipe) -> str:
    """The preset for the smallest GPU; of a recipe for the CPU its own."""
    from r1recipes.algorithms.base import preset_bytes

    return min((name for name in recipe.preset if name != "cpu"), key=preset_bytes, default="cpu")


def card_of(args: argparse.Namespace, recipe: Recipe) -> Gpu:
    """The GPU that the flags name, this machine's, or else the smallest of the preset's class.

    Raises: RecipeError, PlanError when there is none.
    """
    from r1recipes.algorithms.base import preset_bytes
    from r1recipes.planning import fit

    if list(recipe.preset) == ["cpu"]:
        raise RecipeError(
            "this recipe is for the CPU: it has no preset for a GPU",
            hint=f"`{command('plan', 'phi4', '--gpu', 't4')}` plans one that has",
        )
    if card := card_at_hand(args):
        return card
    if args.preset is None:
        raise RecipeError(
            "this machine has no NVIDIA GPU to plan for",
            hint="name a GPU, such as `--gpu t4` or `--vram 16`, or a preset, such as "
            f"`--preset {_smallest(recipe)}`",
        )
    if args.preset == "cpu" or args.preset not in recipe.preset:
        raise no_memory(recipe, fit.choose_preset(recipe, None, args.preset))
    from r1recipes.planning import proofs  # few calls come to this line

    size = proofs.class_bytes(args.preset) or preset_bytes(args.preset)
    return _imagined(f"the smallest card of {args.preset}", size, 8.0)


def card_at_hand(args: argparse.Namespace) -> Gpu | None:
    """The GPU that --vram or --gpu names, or else this machine's; None where there is none. Raises:
    RecipeError for a name or a size that no GPU has."""
    from r1recipes.machine import gpu

    if args.vram is not None:
        size = gib_of(args.vram)
        return _imagined(f"a card of {size:g} GiB", round(size * GIB), 8.0)
    return gpu.current() if args.gpu is None else named_card(args.gpu)


def named_card(name: str, by_memory: str | None = None) -> Gpu:
    """A GPU of the catalogue. Raises: RecipeError with the reason, or GPUs of a similar name.

    `by_memory`: what the error proposes in place of `--vram`, for a command without that flag.
    """
    from r1recipes.machine import cards

    card = cards.find_gpu(name)
    if card is None:
        fault = cards.fault(name)
        otherwise = fault.by_memory and (by_memory or fault.by_memory)
        raise RecipeError(fault.message, hint="; ".join(filter(None, [fault.hint, otherwise])))
    return _imagined(card.name, card.usable_bytes, card.compute_capability)


def gib_of(text: str) -> float:
    """Memory in GiB, as `--vram` takes it. Raises: RecipeError, also for a card's name."""
    from r1recipes.machine import cards

    if cards.names_a_card(text):
        raise RecipeError(
            f"`--vram {text}` is the name of a card, not GiB of memory", hint=f"`--gpu {text}`"
        )
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    size = float(number[1]) if number else 0.0
    check_vram(size, text)
    return size


def check_vram(size: float, text: str) -> None:
    """Raises: RecipeError for GiB that no GPU has; `text` is what the user wrote."""
    if not 0.5 <= size <= 4096:
        raise RecipeError(
            f"`--vram {text}` is not the memory of a GPU, from 0.5 to 4096 GiB",
            hint="such as `--vram 16`",
        )


def _imagined(name: str, size: int, capability: float) -> Gpu:
    """A GPU that is not in this machine, with all its memory free."""
    from r1recipes.machine.gpu import Gpu

    return Gpu(0, name, size, size, capability, "")

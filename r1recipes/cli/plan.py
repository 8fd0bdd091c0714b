"""`plan`, `rehearse`: what a recipe takes of a card's memory, predicted and measured."""

import argparse
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

from r1recipes.cli.common import check_place, offline_settings, overridable, write_over
from r1recipes.errors import PlanError, RecipeError, unwritable
from r1recipes.machine.units import GIB


def add(commands: argparse._SubParsersAction) -> None:
    plan = commands.add_parser("plan", help="predict the memory of a recipe on a card")
    plan.add_argument("recipe")
    card = plan.add_mutually_exclusive_group()
    card.add_argument("--vram", metavar="GIB", help="a card with this much memory, such as 16")
    card.add_argument("--gpu", metavar="NAME", help="a card by its name, such as t4 or rtx 4090")
    plan.add_argument("--preset", metavar="NAME", help="take this preset")
    plan.add_argument("--fit", action="store_true", help="print the fastest preset that fits")
    plan.add_argument("--json", action="store_true", help="as JSON, sizes in bytes")
    plan.add_argument("--offline", action="store_true", help="make no request to the Hub")
    overridable(plan)
    plan.set_defaults(command=plan_command)

    rehearse = commands.add_parser("rehearse", help="measure memory and speed on random weights")
    rehearse.add_argument("recipe")
    rehearse.add_argument("--vram", type=float, metavar="GIB", help="act as a card of this memory")
    rehearse.add_argument("--preset", metavar="NAME", help="take this preset")
    rehearse.add_argument("--steps", type=int, default=4, help="optimiser steps (default 4)")
    rehearse.add_argument("--proof", type=Path, metavar="FILE", help="write what was measured")
    rehearse.add_argument(
        "--batches",
        type=int,
        nargs="+",
        metavar="N",
        help="try these per_device_train_batch_size with one engine, each with its own proof",
    )
    overridable(rehearse)
    rehearse.set_defaults(command=rehearse_command)


def plan_command(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from r1recipes import planning, recipe
    from r1recipes.planning import plan

    loaded = recipe.load(args.recipe, args.overrides)
    card, preset = _card(args, loaded.recipe), args.preset
    if args.fit:
        preset, opened = plan.opened(loaded.recipe, card, args.preset)
        loaded = replace(loaded, recipe=opened)
    resolved = planning.make(
        loaded.recipe,
        planning.Target.elsewhere(card),
        base_dir=loaded.path.parent,
        preset=preset,
        offline=offline_settings(args.offline).offline,
    )
    if resolved.predicted is None:
        raise RecipeError(
            f"preset `{resolved.preset_name}` runs on a CPU: there is no memory to plan",
            hint="name a card with --gpu or --vram",
        )
    if args.json:
        _print_json(loaded, resolved, card)
    elif args.fit and resolved.predicted.verdict != "fits":
        ways = "; or ".join(resolved.predicted.ways)
        given = " with these lengths and this rank" if ways else ""
        raise PlanError(
            f"nothing fits for sure{given}: {resolved.predicted.why}",
            hint=f"with --fit this does: {ways}" if ways else resolved.predicted.no_way,
        )
    elif args.fit:
        _print_preset(loaded, resolved, card)
    else:
        _print_table(loaded, resolved, card)
    return 2 if resolved.predicted.verdict == "does not fit" else 0


def _card(args: argparse.Namespace, found: Any) -> Any:
    """The card that is asked for, the one at hand, or the smallest that the preset is named for."""
    from r1recipes.algorithms.base import preset_bytes
    from r1recipes.machine import cards, gpu

    if list(found.preset) == ["cpu"]:
        raise RecipeError(
            "this recipe is for the CPU: it has no preset for a card",
            hint="plan one from `r1recipes list` that has, such as phi4",
        )
    if args.vram is not None:
        size = _gib(args.vram)
        return _imagined(f"a card of {size:g} GiB", round(size * GIB), 8.0)
    if args.gpu is not None:
        card = cards.find_gpu(args.gpu)
        if card is None:
            alike = cards.nearest_gpus(args.gpu)
            raise RecipeError(
                f"the card `{args.gpu}` is not known, or comes in several sizes",
                hint=f"{'perhaps' if alike else 'known:'} {', '.join(alike or cards.GPUS)}; "
                "or give its memory with --vram",
            )
        return _imagined(card.name, card.usable_bytes, card.compute_capability)
    at_hand = gpu.current()
    if at_hand or args.preset not in found.preset or args.preset == "cpu":
        if at_hand is None and args.preset is None:
            raise RecipeError(
                "this machine has no NVIDIA GPU to plan for",
                hint="name a card, such as --gpu t4 or --vram 16, or a preset with --preset",
            )
        return at_hand
    size = preset_bytes(args.preset)
    sold = [card.usable_bytes for card in cards.GPUS.values() if card.sold_gb * GIB == size]
    return _imagined(f"the smallest card of {args.preset}", min(sold, default=size), 8.0)


def _gib(text: str) -> float:
    """Memory in GiB. Raises: RecipeError."""
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    size = float(number[1]) if number else 0.0
    if not 0.5 <= size <= 4096:
        raise RecipeError(
            f"`--vram {text}` is not the memory of a card, from 0.5 to 4096 GiB",
            hint="such as --vram 16",
        )
    return size


def _imagined(name: str, size: int, capability: float) -> Any:
    from r1recipes.machine.gpu import Gpu

    return Gpu(0, name, size, size, capability, "")


def _print_json(loaded: Any, resolved: Any, gpu: Any) -> None:
    import json

    predicted = resolved.predicted
    settings = resolved.preset.model_dump()
    text = {
        "recipe": loaded.name,
        "model": loaded.recipe.model.name,
        "card": gpu.name,
        "preset": resolved.preset_name,
        "settings": settings
        | {"per_device_train_batch_size": resolved.per_device_train_batch_size},
        "max_num_seqs": resolved.max_num_seqs,
        "headroom_bytes": predicted.headroom_bytes,
    }
    print(json.dumps(text | predicted.model_dump(), indent=1))


def _print_table(loaded: Any, resolved: Any, gpu: Any) -> None:
    from r1recipes.machine import cards
    from r1recipes.planning.verdict import SLACK

    predicted, size = resolved.predicted, gpu.total_bytes
    phases = predicted.phases
    parts = list(dict.fromkeys(part for parts in phases.values() for part in parts))
    parts.sort(key=SLACK.__eq__)  # last
    print(f"{loaded.recipe.model.name}, preset {resolved.preset_name}, on {gpu.name}")
    print(f"{'GiB':22}" + "".join(f"{phase:>10}" for phase in phases))
    for part in parts:
        sizes = [parts.get(part, 0) / GIB for parts in phases.values()]
        if max(sizes) >= 0.005:
            print(
                f"{part:22}" + "".join(f"{size:10.2f}" if size else " " * 9 + "-" for size in sizes)
            )
    totals = [sum(parts.values()) / GIB for parts in phases.values()]
    print(f"{'total':22}" + "".join(f"{size:10.2f}" for size in totals))
    print()
    for line in _sentences(resolved):
        print(line)
    sold = [card.usable_bytes for card in cards.GPUS.values() if card.sold_gb * GIB == size]
    if sold:
        ends = dict.fromkeys(f"{end / GIB:.1f}" for end in (min(sold), max(sold)))
        print(
            f"note      cards sold as {size // GIB}GB have {' to '.join(ends)} GiB: "
            "name yours with --gpu"
        )


def _sentences(resolved: Any) -> list[str]:
    from r1recipes.planning.verdict import SLACK

    predicted = resolved.predicted
    peak, needed = predicted.peak_bytes / GIB, predicted.needed_bytes / GIB
    headroom, room = predicted.headroom_bytes / GIB, predicted.room_bytes / GIB
    held = room < predicted.available_bytes / GIB  # torch is, without standby
    card = f"; the card has {predicted.available_bytes / GIB:.2f}" if held else ""
    lines = [
        f"peak      {peak:.2f} GiB in {predicted.peak_phase}, within {predicted.error:.0%}",
        f"needed    {needed:.2f} GiB; {SLACK} is given back where there is no room",
        f"headroom  {headroom:.2f} GiB of {room:.2f}, beyond what is needed{card}",
        f"at once   {predicted.sequences} sequences of {resolved.preset.max_seq_length} tokens "
        f"in the KV cache, of {resolved.completions_per_step} in a step",
    ]
    if predicted.needed_bytes == predicted.peak_bytes:
        del lines[1]
    verdict = predicted.verdict + (f": {predicted.why}" if predicted.why else "")
    lines += textwrap.wrap(verdict, 80, initial_indent="verdict   ", subsequent_indent=" " * 10)
    lines += [f"this fits {way}" for way in predicted.ways]
    if predicted.verdict == "does not fit" and not predicted.ways:
        lines.append(f"          {predicted.no_way}")
    return lines


def _print_preset(loaded: Any, resolved: Any, gpu: Any) -> None:
    """A section to paste into the recipe."""
    from r1recipes.algorithms.base import Preset
    from r1recipes.config.render import toml_value

    predicted = resolved.predicted
    print(f"# Predicted for {gpu.name}, not measured: {predicted.sentence()}.")
    print(f"[preset.{resolved.preset_name}]")
    for key, field in Preset.model_fields.items():
        value = getattr(resolved.preset, key)
        if value is not None and (field.is_required() or value != field.default):
            print(f"{key} = {toml_value(value)}")


def rehearse_command(args: argparse.Namespace) -> int:
    import json
    from dataclasses import replace

    from r1recipes import planning, recipe
    from r1recipes.algorithms.base import preset_bytes
    from r1recipes.machine import gpu, host, settings
    from r1recipes.training import rehearsal

    if args.vram is not None and not 0.5 <= args.vram <= 4096:
        raise RecipeError(f"--vram {args.vram:g}: no card has that", hint="in GiB: --vram 14.74")
    if args.steps < 1:
        raise RecipeError(f"--steps {args.steps}: nothing to measure", hint="--steps 4")
    loaded, card = recipe.load(args.recipe, args.overrides), gpu.take()
    if card is None:
        cards = [name for name in loaded.recipe.preset if name != "cpu"]
        name = args.preset or min(cards, key=preset_bytes, default="cpu")
        ask = shlex.join(["r1recipes", "plan", args.recipe, "--preset", name])
        raise PlanError(
            "a rehearsal needs an NVIDIA GPU, and this machine has none",
            hint=f"`{ask}` predicts; `r1recipes doctor` looks for a GPU",
        )
    if args.proof:  # minutes before it is written
        check_place(args.proof)
    vram_bytes = round(args.vram * GIB) if args.vram else None
    smaller = replace(card, total_bytes=vram_bytes or card.total_bytes)
    here = planning.Target.here(smaller, host.cores())
    resolved = planning.make(
        loaded.recipe,
        replace(here, is_here=False),  # a prediction does not keep it from being measured
        base_dir=loaded.path.parent,
        preset=args.preset,
    )
    weights_dir = settings.load().cache_dir / "random-weights"
    try:
        weights_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(weights_dir, error, "set R1RECIPES_CACHE_DIR to another folder") from error
    batches = tuple(sorted(args.batches or ()))
    found = rehearsal.rehearse(
        resolved, weights_dir=weights_dir, vram_bytes=vram_bytes, steps=args.steps, batches=batches
    )
    proofs = [{"recipe": loaded.name, "overrides": args.overrides} | proof for proof in found]
    proof = proofs if batches else proofs[0]
    text = json.dumps(proof, indent=1) + "\n"
    print(text, end="", flush=True)  # first: a disk that is full by now takes nothing of it
    if args.proof:
        write_over(args.proof, text)
    return 1 if "error" in proofs[-1] else 0

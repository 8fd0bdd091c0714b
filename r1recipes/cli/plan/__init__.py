"""`plan` and `rehearse`: the GPU memory that a recipe needs, predicted and measured."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.common import (
    check_place,
    find_origin,
    named_run,
    offline_settings,
    overridable,
    printable,
    whole_number,
    write_over,
)
from r1recipes.cli.plan import every
from r1recipes.cli.plan.cards import card_of, gib_of, no_memory
from r1recipes.errors import PlanError, RecipeError, command
from r1recipes.machine.units import GIB

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.gpu import Gpu
    from r1recipes.planning import Plan
    from r1recipes.planning.memory.predicted import Predicted
    from r1recipes.planning.speed.lengths import Lengths
    from r1recipes.recipe import Loaded, Recipe

SPARE = 0.25
"""Share of a card from which on it is said why it stays free; assumed."""


def add(commands: Commands) -> None:
    plan = commands.add_parser("plan", help="predict the memory that a recipe needs on a GPU")
    plan.add_argument("recipe", nargs="?", help="a file, or a name from `list`; all without one")
    card = plan.add_mutually_exclusive_group()
    card.add_argument("--vram", metavar="GIB", help="for a GPU with this much memory, such as 16")
    card.add_argument("--gpu", metavar="NAME", help="for this GPU, such as t4 or rtx 4090")
    plan.add_argument("--preset", metavar="NAME", help="use this preset")
    plan.add_argument("--fit", action="store_true", help="print the fastest preset that fits")
    plan.add_argument(
        "--mean-length",
        type=whole_number,
        metavar="TOKENS",
        help="of your completions, for the times with real lengths (default: 27 %% of "
        "max_completion_length)",
    )
    plan.add_argument("--json", action="store_true", help="print JSON, with sizes in bytes")
    plan.add_argument("--offline", action="store_true", help="make no request to the Hub")
    overridable(plan)
    plan.set_defaults(command=plan_command)

    rehearse = commands.add_parser(
        "rehearse",
        help="measure memory and speed of a recipe, with random weights",
    )
    rehearse.add_argument("recipe", help="a file, or a name from `list`")
    rehearse.add_argument("--vram", metavar="GIB", help="use only this much of the GPU's memory")
    rehearse.add_argument("--preset", metavar="NAME", help="use this preset")
    rehearse.add_argument(
        "--steps", type=int, default=4, help="optimiser steps (default: %(default)s)"
    )
    rehearse.add_argument(
        "--proof", type=Path, metavar="FILE", help="write the measurements to this file"
    )
    rehearse.add_argument(
        "--batches",
        type=int,
        nargs="+",
        metavar="N",
        help="try these values of per_device_train_batch_size, each with its own measurements, "
        "without loading the model again",
    )
    rehearse.add_argument(
        "--lengths",
        default="full",
        metavar="full|real|RUN",
        help="after the steps at full length, which decide what fits, measure as many with real "
        "lengths: those that the package has, or those of this run (default: %(default)s alone)",
    )
    overridable(rehearse)
    rehearse.set_defaults(command=rehearse_command)


def plan_command(args: argparse.Namespace) -> int:
    if args.recipe is None:
        return every.print_every(args)
    from r1recipes import planning, recipe
    from r1recipes.planning import plan
    from r1recipes.planning.speed.lengths import REAL, of_mean

    loaded = recipe.load(args.recipe, args.overrides)
    card, preset_name = card_of(args, loaded.recipe), args.preset
    settings = offline_settings(args.offline)
    if args.fit:
        preset_name, opened = plan.opened(loaded.recipe, card, args.preset)
        loaded = replace(loaded, recipe=opened)
    resolved = planning.make(
        loaded.recipe,
        planning.Target.elsewhere(card),
        base_dir=loaded.path.parent,
        preset=preset_name,
        offline=settings.offline,
        origin=find_origin(loaded, settings.runs_dir),
        lengths=of_mean(args.mean_length) if args.mean_length else REAL,
    )
    predicted = resolved.predicted
    if predicted is None and resolved.device == "cuda":
        raise PlanError(
            f"the memory of {resolved.algorithm.title} is not predicted: it is trained by plain "
            "TRL",
            hint=f"`{command('run', args.recipe, '--set', 'train.max_steps=5')}` measures it",
        )
    if predicted is None:
        raise no_memory(loaded.recipe, resolved.preset_name)
    if args.json:
        _print_json(loaded, resolved, predicted, card)
    elif args.fit:
        if predicted.verdict == "does not fit":
            raise _nothing_fits(predicted)
        _print_preset(resolved, predicted, card)
    else:
        _print_table(resolved, predicted, card)
    return 2 if predicted.verdict == "does not fit" else 0


def _nothing_fits(predicted: Predicted) -> PlanError:
    ways = "; or ".join(predicted.ways)
    condition = " with these lengths and this rank" if ways else ""
    return PlanError(
        f"nothing fits for sure{condition}: {predicted.why}",
        hint=f"with --fit this does: {ways}" if ways else predicted.no_way,
    )


def _print_json(loaded: Loaded, resolved: Plan, predicted: Predicted, card: Gpu) -> None:
    import json

    settings = resolved.preset.model_dump()
    about = {
        "recipe": loaded.name,
        "model": loaded.recipe.model.name,
        "card": card.name,
        "preset": resolved.preset_name,
        "settings": settings
        | {"per_device_train_batch_size": resolved.per_device_train_batch_size},
        "max_num_seqs": resolved.max_num_seqs,
        "eval_problems": resolved.eval_problems,
        "headroom_bytes": predicted.headroom_bytes,
        "origin": resolved.origin.model_dump(mode="json") if resolved.origin else None,
    }
    print(json.dumps(about | predicted.model_dump(), indent=1))


def _print_table(resolved: Plan, predicted: Predicted, card: Gpu) -> None:
    from r1recipes.machine import cards, gpu
    from r1recipes.planning.fit import SLACK

    phases = predicted.phases
    names = list(dict.fromkeys(name for parts in phases.values() for name in parts))
    names.sort(key=SLACK.__eq__)  # last
    print(printable(f"{resolved.recipe.model.name}, preset {resolved.preset_name}, on {card.name}"))
    if resolved.origin:
        print(*resolved.origin.sentences(resolved.recipe.cold_start is not None), sep="\n")
    print(f"{'GiB':22}" + "".join(f"{phase:>10}" for phase in phases))
    for name in names:
        sizes = [parts.get(name, 0) / GIB for parts in phases.values()]
        if max(sizes) >= 0.005:
            cells = [f"{size:10.2f}" if size else f"{'-':>10}" for size in sizes]
            print(f"{name:22}" + "".join(cells))
    totals = [sum(parts.values()) / GIB for parts in phases.values()]
    print(f"{'total':22}" + "".join(f"{size:10.2f}" for size in totals))
    print()
    for line in _sentences(resolved, predicted):
        print(line)
    if predicted.step_s:  # plain TRL has no model of its speed
        print(_speed(resolved, predicted, card))
    if gpu.is_unified(card.name):
        print("note      this is main memory: the system and other programs need some of it")
    size = card.total_bytes
    if sold := cards.sold_as(size / GIB):
        ends = dict.fromkeys(f"{end / GIB:.1f}" for end in (min(sold), max(sold)))
        print(
            f"note      cards sold as {size // GIB}GB have {' to '.join(ends)} GiB: "
            "name yours with --gpu"
        )


def _sentences(resolved: Plan, predicted: Predicted) -> list[str]:
    from r1recipes.planning.fit import SLACK
    from r1recipes.planning.speed import MAX_SHARE

    peak, needed = predicted.peak_bytes / GIB, predicted.needed_bytes / GIB
    headroom, room = predicted.headroom_bytes / GIB, predicted.room_bytes / GIB
    whole = predicted.available_bytes / GIB
    card = f"; the card has {whole:.2f}" if room < whole else ""  # torch is held to less
    stored = f" ({kind})" if (kind := resolved.preset.kv_cache_dtype) else ""
    count = resolved.preset.prompts_per_step * resolved.preset.num_generations
    lines = [
        f"peak      {peak:.2f} GiB in {predicted.where}, within {predicted.error:.0%}"
        + (", extrapolated" if predicted.extrapolated else ""),
        f"needed    {needed:.2f} GiB; {SLACK} is given back where there is no room",
        f"headroom  {headroom:.2f} GiB of {room:.2f}, beyond what is needed{card}",
        f"at once   {predicted.sequences} sequences of {resolved.preset.max_seq_length} tokens "
        f"in the KV cache{stored}, of {count} {resolved.algorithm.sampled_when}",
        f"step      {resolved.batch_sentence()}",
    ]
    if predicted.needed_bytes == predicted.peak_bytes:
        del lines[1]
    if resolved.preset.weights == "fp8":
        lines.append("note      derived from sources for FP8 weights, which were not measured")
    for title, stage in zip(resolved.recipe.stage_names, resolved.earlier, strict=True):
        lines.append(f"stage     {title}: {stage.batch_sentence()}")
    plans = [*resolved.earlier, resolved]
    notes = dict.fromkeys(
        text for plan in plans for text in plan.algorithm.notes_on_plan(plan.recipe.train)
    )
    lines += [f"note      {text}" for text in notes]
    if resolved.eval_problems:
        lines.append(
            f"evaluates {resolved.eval_problems} held-out problems every "
            f"{resolved.recipe.eval.every} steps, in at most {MAX_SHARE:.0%} of the time"
        )
    if resolved.recipe.data.keep is not None:
        completions = resolved.recipe.train.max_steps * count
        lines.append(
            f"filter    generates {completions:,} completions or more before training, as many as "
            "all its steps,\n          unless the data have fewer problems"
        )
    verdict = predicted.verdict + (f": {predicted.why}" if predicted.why else "")
    told = {"beyond": "; ".join(predicted.extrapolated), "verdict": verdict}
    for label, text in told.items():
        lines += textwrap.wrap(text, 80, initial_indent=f"{label:10}", subsequent_indent=" " * 10)
    lines += [f"this fits {way}" for way in predicted.ways]
    if predicted.verdict == "does not fit" and not predicted.ways:
        lines.append(f"          {predicted.no_way}")
    return lines


def _speed(resolved: Plan, predicted: Predicted, card: Gpu) -> str:
    """Times of a step, and completions an hour, at full length and with real lengths."""
    from r1recipes.machine.cards import find_gpu

    assert predicted.step_s and predicted.real_step_s, "this version has planned it"
    full_s, real_s = predicted.step_s, predicted.real_step_s
    full, real = (f"{3600 / s * resolved.completions_per_step:,.0f}" for s in (full_s, real_s))
    like = "" if find_gpu(card.name, card.total_bytes) else ", counted as an RTX 4090"
    return (
        f"speed     about {full_s:.1f} s a step at full length ({full} completions an hour),\n"
        f"          {real_s:.1f} s with real lengths ({real}){like}"
    )


def _print_preset(resolved: Plan, predicted: Predicted, card: Gpu) -> None:
    """Print a section to paste into the recipe."""
    from r1recipes.algorithms.base import Preset
    from r1recipes.config.render import toml_value

    print(f"# Predicted for {card.name}, not measured: {predicted.sentence()}.")
    for line in (*predicted.remarks, *_speed(resolved, predicted, card).splitlines()):
        print(f"# {line.strip()}")
    if (free := predicted.headroom_bytes) > SPARE * predicted.room_bytes:
        print(
            f"# {free / GIB:.1f} GiB stay free: no setting that fits is clearly faster with more."
        )
    print(f"[preset.{resolved.preset_name}]")
    values = resolved.preset.written()
    for key, field in Preset.model_fields.items():
        value = values.get(key)
        if value is not None and (field.is_required() or value != field.default):
            print(f"{key} = {toml_value(value)}")


def rehearse_command(args: argparse.Namespace) -> int:
    import json
    from dataclasses import replace

    from r1recipes import planning, recipe
    from r1recipes.machine import gpu, host, settings
    from r1recipes.runs import origin
    from r1recipes.training import rehearsal

    vram_gib = None if args.vram is None else gib_of(args.vram)
    if args.steps < 1:
        raise RecipeError(f"--steps {args.steps} measures nothing", hint="such as `--steps 4`")
    loaded, card = recipe.load(args.recipe, args.overrides), gpu.take()
    if card is None:
        raise _no_card(args, loaded.recipe)
    if args.proof:  # now, and not after minutes of measuring
        check_place(args.proof)
    runs_dir = settings.load().runs_dir
    lengths = _lengths(args.lengths, runs_dir)
    vram_bytes = round(vram_gib * GIB) if vram_gib else None
    smaller = replace(card, total_bytes=vram_bytes or card.total_bytes)
    here = planning.Target.here(smaller, host.cores())
    resolved = planning.make(
        loaded.recipe,
        replace(here, is_here=False),  # a prediction does not keep it from being measured
        base_dir=loaded.path.parent,
        preset=args.preset,
        origin=origin.of_recipe(loaded, runs_dir),
    )
    weights_dir = rehearsal.weights_dir(settings.load().cache_dir)
    batches = tuple(sorted(args.batches or ()))
    measured = rehearsal.rehearse(
        resolved,
        weights_dir=weights_dir,
        vram_bytes=vram_bytes,
        steps=args.steps,
        batches=batches,
        lengths=lengths,
    )
    proofs = [{"recipe": loaded.name, "overrides": args.overrides} | proof for proof in measured]
    text = json.dumps(proofs if batches else proofs[0], indent=1) + "\n"
    print(text, end="", flush=True)  # first, in case the disk is full by now
    if args.proof:
        write_over(args.proof, text)
    return 1 if "error" in proofs[-1] else 0


def _lengths(name: str, runs_dir: Path) -> Lengths | None:
    """The lengths that `--lengths` names; None for full length alone. Raises: RecipeError."""
    from r1recipes.planning.speed.lengths import REAL
    from r1recipes.training.rehearsal import drawn

    if name in ("full", "real"):
        return REAL if name == "real" else None
    return drawn.of_run(named_run(runs_dir, name))


def _no_card(args: argparse.Namespace, asked: Recipe) -> PlanError:
    from r1recipes.algorithms.base import preset_bytes

    cards = [name for name in asked.preset if name != "cpu"]
    if not cards:
        return PlanError(
            "a rehearsal needs an NVIDIA GPU, and this recipe is for the CPU",
            hint=f"`{command('run', args.recipe, '--set', 'train.max_steps=5')}` measures it here",
        )
    name = args.preset or min(cards, key=preset_bytes)
    return PlanError(
        "a rehearsal needs an NVIDIA GPU, and this machine has none",
        hint=f"`{command('plan', args.recipe, '--preset', name)}` predicts; "
        f"`{command('doctor')}` looks for a GPU",
    )

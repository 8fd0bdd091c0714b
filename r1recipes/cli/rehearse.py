"""`rehearse`: measure memory and speed on random weights."""

import argparse
import shlex
from pathlib import Path

from r1recipes.cli.common import check_place, overridable, write_over
from r1recipes.errors import PlanError, RecipeError, unwritable


def add(commands: argparse._SubParsersAction) -> None:
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


def rehearse_command(args: argparse.Namespace) -> int:
    import json
    from dataclasses import replace

    from r1recipes import machine, plan, recipe, rehearse, settings
    from r1recipes.preset import preset_bytes

    if args.vram is not None and not 0.5 <= args.vram <= 4096:
        raise RecipeError(f"--vram {args.vram:g}: no card has that", hint="in GiB: --vram 14.74")
    if args.steps < 1:
        raise RecipeError(f"--steps {args.steps}: nothing to measure", hint="--steps 4")
    loaded, card = recipe.load(args.recipe, args.overrides), machine.take_gpu()
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
    vram_bytes = round(args.vram * 2**30) if args.vram else None
    resolved = plan.make(
        loaded.recipe,
        base_dir=loaded.path.parent,
        gpu=replace(card, total_bytes=vram_bytes or card.total_bytes),
        num_cores=machine.cores(),
        preset_name=args.preset,
        elsewhere=plan.has_unsloth(),  # a prediction does not keep it from being measured
    )
    weights_dir = settings.load().cache_dir / "random-weights"
    try:
        weights_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(weights_dir, error, "set R1RECIPES_CACHE_DIR to another folder") from error
    batches = tuple(sorted(args.batches or ()))
    found = rehearse.rehearse(
        resolved, weights_dir=weights_dir, vram_bytes=vram_bytes, steps=args.steps, batches=batches
    )
    proofs = [{"recipe": loaded.name, "overrides": args.overrides} | proof for proof in found]
    proof = proofs if batches else proofs[0]
    text = json.dumps(proof, indent=1) + "\n"
    print(text, end="", flush=True)  # first: a disk that is full by now takes nothing of it
    if args.proof:
        write_over(args.proof, text)
    return 1 if "error" in proofs[-1] else 0

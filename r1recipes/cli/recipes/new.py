"""`new`: a commented recipe for a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.common import exists, printable, write_new
from r1recipes.cli.plan.cards import named_card
from r1recipes.errors import RecipeError, command

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.gpu import Gpu


def add(commands: Commands) -> None:
    new = commands.add_parser(
        "new",
        help="write a commented recipe for a model",
    )
    new.add_argument("file", type=Path, help="the .toml file to write; it must not exist yet")
    new.add_argument("--model", required=True, help="Hub id or local folder of the model")
    new.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="NAME",
        help="write a preset for this GPU; can be repeated (default: the one at hand, or one for "
        "each size)",
    )
    new.add_argument("--algorithm", default="grpo", metavar="NAME", help="how it is trained (grpo)")
    new.set_defaults(command=new_command)


def new_command(args: argparse.Namespace) -> int:
    from r1recipes.algorithms import ALGORITHMS
    from r1recipes.config.suggest import nearest
    from r1recipes.planning.fit import presets
    from r1recipes.recipe import scaffold

    if args.file.suffix != ".toml":
        raise RecipeError(f"`{args.file}` is not a .toml file", hint=f"write `{args.file}.toml`")
    if args.file.exists():
        raise exists(args.file)
    if args.algorithm not in ALGORITHMS:
        near = nearest(args.algorithm.lower().replace("-", "_"), ALGORITHMS, 0.5) or "grpo"
        message = f"unknown algorithm `{args.algorithm}`; known: {', '.join(ALGORITHMS)}"
        raise RecipeError(message, hint=f"`--algorithm {near}`")
    base_dir = args.file.absolute().parent
    made = presets.recipe_for(args.model, args.algorithm, _cards(args.gpu), base_dir)
    for line in made.lines:
        print(printable(line), file=sys.stderr)
    write_new(args.file, scaffold.commented(made.recipe, args.model, base_dir, made.notes))
    print(f"wrote {args.file}, from {made.base}; next: `{command('check', args.file)}`")
    return 0


def _cards(names: list[str]) -> list[Gpu]:
    """The cards that are named, or the one at hand. Raises: RecipeError."""
    from r1recipes.machine import gpu

    if names:
        return [named_card(name, "without `--gpu` the presets are chosen") for name in names]
    at_hand = gpu.current()
    return [at_hand] if at_hand else []

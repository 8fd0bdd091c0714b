"""`plan` without a recipe: what each shipped recipe needs on one card, one line each.

Limits: predictions alone, from what comes with the package; nothing is asked of the Hub.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from r1recipes.cli.plan.cards import card_at_hand
from r1recipes.errors import PlanError, RecipeError, command
from r1recipes.machine.units import GIB, aligned

if TYPE_CHECKING:
    from r1recipes.machine.gpu import Gpu
    from r1recipes.planning.speed.lengths import Lengths
    from r1recipes.recipe import Loaded

HEADER = ["RECIPE", "PRESET", "NEEDED", "COMPLETIONS AN HOUR", ""]


def print_every(args: argparse.Namespace) -> int:
    """Print a line for each shipped recipe. Raises: RecipeError for flags that need one recipe, or
    where no card is named and none is at hand."""
    from r1recipes import recipe
    from r1recipes.planning.speed.lengths import REAL, of_mean

    if args.preset or args.fit or args.overrides:
        hint = f"`{command('plan', 'phi4', '--gpu', 't4')}`; `{command('list')}` shows their names"
        raise RecipeError("--preset, --fit and --set need a recipe", hint=hint)
    card = card_at_hand(args)
    if card is None:
        hint = f"`{command('plan', '--gpu', 't4')}`, or name a recipe of `{command('list')}`"
        raise RecipeError("`plan` needs a recipe or a GPU", hint=hint)
    lengths = of_mean(args.mean_length) if args.mean_length else REAL
    rows = [_of_recipe(recipe.load(path), card, lengths) for path in recipe.shipped()]
    if args.json:
        import json

        print(json.dumps({"card": card.name, "recipes": rows}, indent=1))
        return 0
    print(f"{card.name}: the preset that `run` would choose, with real lengths")
    print(*aligned([HEADER, *map(_cells, rows)]), sep="\n")
    return 0


def _of_recipe(loaded: Loaded, card: Gpu, lengths: Lengths) -> dict[str, Any]:
    """What a recipe needs on a card; `why_not` where it does not fit, or nothing is predicted."""
    from r1recipes import planning

    about = {
        "recipe": loaded.name,
        "preset": None,
        "needed_bytes": None,
        "completions_an_hour": None,
    }
    try:
        made = planning.make(
            loaded.recipe,
            planning.Target.elsewhere(card),
            base_dir=loaded.path.parent,
            preset=None,
            offline=True,
            lengths=lengths,
        )
    except PlanError as error:
        return about | {"why_not": error.problems[0].message}
    predicted = made.predicted
    about |= {"preset": made.preset_name}
    if predicted is None:
        return about | {"why_not": "for the CPU" if made.device == "cpu" else "not predicted"}
    seconds = predicted.real_step_s
    return about | {
        "needed_bytes": predicted.needed_bytes,
        "completions_an_hour": 3600 / seconds * made.completions_per_step if seconds else None,
        "why_not": None if predicted.verdict == "fits" else predicted.verdict,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    needed, speed = row["needed_bytes"], row["completions_an_hour"]
    return [
        row["recipe"],
        row["preset"] or "-",
        "-" if needed is None else f"{needed / GIB:.1f} GiB",
        "-" if speed is None else f"{speed:,.0f}",
        row["why_not"] or "",
    ]

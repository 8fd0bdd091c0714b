"""`eval`: evaluate a trained run once more, the base model against base + adapter."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from r1recipes.cli.common import (
    offline_settings,
    refuse_code,
    screen,
    show_code,
    whole_number,
)

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.recipe import Loaded
    from r1recipes.runs.trained import TrainedRun


def add(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "eval", help="evaluate a trained run again, with more samples or on other data"
    )
    evaluate.add_argument("run", metavar="RUN", help="folder or name of a run")
    evaluate.add_argument(
        "--samples", type=whole_number, metavar="N", help="completions for each problem"
    )
    evaluate.add_argument("--size", type=whole_number, metavar="N", help="number of problems")
    evaluate.add_argument(
        "--data", metavar="RECIPE", help="use the held-out problems of this recipe"
    )
    evaluate.add_argument("--offline", action="store_true", help="make no request to the Hub")
    evaluate.add_argument(
        "--allow-code", action="store_true", help="run a reward from the recipe's own .py files"
    )
    evaluate.set_defaults(command=eval_command)


def eval_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.runs import trained
    from r1recipes.training.view import View

    settings = offline_settings(args.offline)
    run = trained.find(settings.runs_dir, args.run)
    other = recipe.load(args.data) if args.data else None
    _check_code(run, other, args.allow_code)
    console = screen()
    with View(console) as view:
        if run.note:
            view.note(run.note)
        view.phase("Starting")
        from r1recipes.training import evaluate_again
        from r1recipes.training.stages import Options

        changes = evaluate_again.Changes(samples=args.samples, size=args.size, other=other)
        options = Options(allow_code=args.allow_code)
        folder, summary = evaluate_again.execute(run, changes, [view], settings, options)
    for line in table(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _check_code(run: TrainedRun, other: Loaded | None, allowed: bool) -> None:
    """Show which code is allowed, or refuse it at once, as `run` does. Raises: RecipeError."""
    judging, base_dir = run.plan.recipe, run.plan.base_dir
    is_foreign = bool(run.run.read_lock().get("source"))
    if other:  # only the reward that decides is called
        judging, base_dir = other.recipe.model_copy(update={"rewards": {}}), other.path.parent
        is_foreign = other.source is not None
    if allowed:
        show_code(judging, base_dir, whole=is_foreign)
    else:
        refuse_code(judging, base_dir)


def table(summary: dict[str, Any]) -> list[str]:
    """The lines of a table: base beside trained model, each share with its 95 % interval."""
    base, trained = summary["base"], summary["trained"]
    rows = [("", "base", "base + adapter")]
    for k, estimate in base["pass_at"].items():
        rows.append((f"pass@{k}", _share(estimate), _share(trained["pass_at"][k])))
    if base["num_samples"] > 1:
        name = f"majority of {base['num_samples']}"
        rows.append((name, _share(base["majority"]), _share(trained["majority"])))
    greedy = [{"mean": s["greedy"], "interval": s["greedy_interval"]} for s in (base, trained)]
    rows.append(("greedy", _share(greedy[0]), _share(greedy[1])))
    rows.append(("tokens", f"{base['mean_length']:.0f}", f"{trained['mean_length']:.0f}"))
    rows.append(("cut", f"{base['share_cut']:.1%}", f"{trained['share_cut']:.1%}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    change, pairs = summary["difference"], summary["mcnemar"]
    low, high = change["interval"]
    return [
        f"{base['num_problems']} problems x {base['num_samples']} samples of {summary['data']}",
        *lines,
        f"difference of pass@1 {change['mean']:+.1%} (95 % {low:+.1%} to {high:+.1%})",
        f"greedy: {pairs['gained']} problems gained, {pairs['lost']} lost, "
        f"McNemar p = {pairs['p']:.2g}",
    ]


def _share(estimate: dict[str, Any]) -> str:
    low, high = estimate["interval"]
    return f"{estimate['mean']:.1%} ({low:.1%} to {high:.1%})"

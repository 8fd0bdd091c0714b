"""`eval`: a trained run once more, base against adapter."""

import argparse
from typing import Any

from r1recipes.cli.common import offline_settings, refuse_code, show_code, whole_number


def add(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser(
        "eval", help="evaluate a run again: base against adapter, more samples, other data"
    )
    evaluate.add_argument("run", metavar="RUN", help="a run folder")
    evaluate.add_argument(
        "--samples", type=whole_number, metavar="N", help="completions for each problem"
    )
    evaluate.add_argument("--size", type=whole_number, metavar="N", help="number of problems")
    evaluate.add_argument(
        "--data", metavar="RECIPE", help="take the held-out problems of this recipe"
    )
    evaluate.add_argument("--offline", action="store_true", help="make no request to the Hub")
    evaluate.add_argument(
        "--allow-code", action="store_true", help="run a reward from the recipe's own .py files"
    )
    evaluate.set_defaults(command=eval_command)


def eval_command(args: argparse.Namespace) -> int:
    from rich.console import Console

    from r1recipes import recipe
    from r1recipes.machine.terminal import Screen
    from r1recipes.runs.trained import find
    from r1recipes.training.view import View

    settings = offline_settings(args.offline)
    found = find(settings.runs_dir, args.run)
    other = recipe.load(args.data) if args.data else None
    _say_code(found, other, args.allow_code)
    console = Console(file=Screen())
    with View(console) as view:
        view.phase("Starting")
        from r1recipes.training import evaluate_again
        from r1recipes.training.stages import Options

        wanted = evaluate_again.Wanted(samples=args.samples, size=args.size, other=other)
        options = Options(allow_code=args.allow_code)
        folder, summary = evaluate_again.execute(found, wanted, view, settings, options)
    for line in table(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _say_code(found: Any, other: Any, allowed: bool) -> None:
    """Show which code is allowed, or refuse it at once, as `run` does."""
    judged, base_dir = found.plan.recipe, found.plan.base_dir
    is_foreign = bool(found.run.read_lock().get("source"))
    if other:  # of whose rewards only the one that decides is called
        judged, base_dir = other.recipe.model_copy(update={"rewards": {}}), other.path.parent
        is_foreign = other.source is not None
    if allowed:
        show_code(judged, base_dir, whole=is_foreign)
    else:
        refuse_code(judged, base_dir)


def table(summary: dict[str, Any]) -> list[str]:
    """The summary in lines: base beside trained, each share with its 95 % interval."""
    base, trained = summary["base"], summary["trained"]
    rows = [("", "base", "base + adapter")]
    for k, found in base["pass_at"].items():
        rows.append((f"pass@{k}", _share(found), _share(trained["pass_at"][k])))
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


def _share(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['mean']:.1%} ({low:.1%} to {high:.1%})"

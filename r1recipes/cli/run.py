"""`run`: train a recipe, or go on with a run."""

import argparse
import sys
from pathlib import Path
from typing import Any

from r1recipes.cli import export
from r1recipes.cli.common import offline_settings, overridable
from r1recipes.errors import RecipeError


def add(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="train, evaluate before and after, save")
    run.add_argument("recipe", nargs="?", help="a recipe file, or the name of one from `list`")
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run folder; without one, with the newest that is not complete",
    )
    run.add_argument("--preset", metavar="NAME", help="take this preset, not the largest that fits")
    run.add_argument("--run-dir", type=Path, metavar="FOLDER", help="the run folder to make")
    run.add_argument("--offline", action="store_true", help="make no request to the Hub")
    run.add_argument(
        "--allow-code", action="store_true", help="run rewards from the recipe's own .py files"
    )
    run.add_argument(
        "--force", action="store_true", help="train even if the probe sees nothing to learn from"
    )
    overridable(run)
    run.set_defaults(command=run_command)


def run_command(args: argparse.Namespace) -> int:
    from r1recipes import machine, plan, recipe

    if args.recipe is None and args.resume is None:
        raise RecipeError("which recipe?", hint="`r1recipes list` shows what there is")
    machine_settings = offline_settings(args.offline)
    if args.resume is not None:
        return _resume(args, machine_settings)
    loaded = recipe.load(args.recipe, args.overrides)
    if args.run_dir is not None and args.run_dir.exists():
        raise RecipeError(
            f"{args.run_dir} exists, and a run folder is never reused",
            hint=f"take another name, or `r1recipes run --resume {args.run_dir}` to go on with it",
        )
    resolved = plan.make(
        loaded.recipe,
        base_dir=loaded.path.parent,
        gpu=machine.gpu(),
        num_cores=machine.cores(),
        preset_name=args.preset,
    )
    return _train(args, machine_settings, loaded=loaded, plan=resolved)


def _resume(args: argparse.Namespace, machine_settings: Any) -> int:
    from r1recipes import record

    if args.overrides or args.preset or args.run_dir:
        raise RecipeError(
            "--set, --preset and --run-dir do not go with --resume",
            hint="a run goes on as it began; start a new run to change it",
        )
    name = args.resume or None
    wanted = Path(args.recipe).stem if args.recipe else None
    found = record.find(machine_settings.runs_dir, name, wanted)
    if wanted not in (None, found.read().get("recipe")):
        raise RecipeError(
            f"{found.folder} is a run of `{found.read().get('recipe')}`, not of `{wanted}`",
            hint=f"`r1recipes run --resume {found.folder}`",
        )
    if found.read()["status"] == "complete":
        print(f"{found.folder} is complete: nothing to resume", file=sys.stderr)
        return 0
    return _train(args, machine_settings, run=found)


def _train(
    args: argparse.Namespace, machine_settings: Any, run: Any = None, loaded: Any = None, plan=None
) -> int:
    from rich.console import Console

    from r1recipes.progress import View
    from r1recipes.terminal import Screen

    export.check_before_run(plan or run.plan())
    # The libraries' own output goes to train.log; the view keeps the real stdout.
    console = Console(file=Screen())
    with View(console) as view:
        view.phase("Starting")
        from r1recipes import run as runner
        from r1recipes.stages import Options

        options = Options(allow_code=args.allow_code, force=args.force)
        if run is None:
            finished = runner.start(
                loaded, plan, view, machine_settings, folder=args.run_dir, options=options
            )
        else:
            for change in runner.version_changes(run):
                view.note(f"since this run began: {change}; numbers may differ")
            finished = runner.resume(run, view, machine_settings, options=options)
    _say_result(finished, console)
    export.export_after_run(finished, machine_settings)
    return 0


def _say_result(run: Any, console: Any) -> None:
    record = run.read()
    evaluation, spent = record["evaluation"], sum(record["duration_s"].values())
    before, after = evaluation["before"], evaluation["after"]
    low, high = evaluation["difference"]["interval"]
    console.print(
        f"Accuracy {before['accuracy']:.1%} -> {after['accuracy']:.1%} "
        f"(difference {evaluation['difference']['mean']:+.1%}, 95 % {low:+.1%} to {high:+.1%}), "
        f"greedy {before['greedy']:.1%} -> {after['greedy']:.1%}",
        markup=False,
        highlight=False,
        style="bold",
        soft_wrap=True,
    )
    console.print(f"Done in {spent:.0f} s: {run.folder}", markup=False, highlight=False)

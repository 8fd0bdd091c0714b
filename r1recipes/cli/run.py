"""`run`: train a recipe, or go on with a run."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from r1recipes.cli import publish
from r1recipes.cli.common import offline_settings, overridable, printable, refuse_code, show_code
from r1recipes.errors import RecipeError


def add(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="train, evaluate before and after, save")
    run.add_argument(
        "recipe",
        nargs="?",
        help="a file, a name from `list`, or from elsewhere: FILE.r1.zip, a folder, https://..., "
        "hub:user/name[@revision][/path]",
    )
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run folder; without one, with the newest that is not complete",
    )
    run.add_argument("--preset", metavar="NAME", help="take this preset, not the largest that fits")
    run.add_argument("--run-dir", type=Path, metavar="FOLDER", help="the run folder to make")
    run.add_argument(
        "--locked", action="store_true", help="refuse what differs from the recipe's lock.json"
    )
    run.add_argument("--offline", action="store_true", help="make no request to the Hub")
    run.add_argument(
        "--allow-code", action="store_true", help="run rewards from the recipe's own .py files"
    )
    run.add_argument(
        "--force", action="store_true", help="train even if the probe sees nothing to learn from"
    )
    run.add_argument(
        "--wandb",
        nargs="?",
        const="online",
        choices=["online", "offline"],
        help="send the metrics to Weights & Biases, or offline only write its files; to be said "
        "again with --resume",
    )
    overridable(run)
    run.set_defaults(command=run_command)


def run_command(args: argparse.Namespace) -> int:
    from r1recipes import planning, recipe
    from r1recipes.machine import gpu, host
    from r1recipes.runs import lock
    from r1recipes.training import trackers

    if args.recipe is None and args.resume is None:
        raise RecipeError("which recipe?", hint="`r1recipes list` shows what there is")
    machine_settings = offline_settings(args.offline)
    if args.resume is not None:
        return _resume(args, machine_settings)
    loaded = recipe.load(args.recipe, args.overrides)
    if args.wandb:
        loaded = _with_wandb(loaded, args.wandb)
    if args.run_dir is not None and args.run_dir.exists():
        raise RecipeError(
            f"{args.run_dir} exists, and a run folder is never reused",
            hint=f"take another name, or `r1recipes run --resume {args.run_dir}` to go on with it",
        )
    locked = lock.of_source(loaded) if args.locked else None
    resolved = planning.make(
        loaded.recipe,
        planning.Target.here(gpu.take(), (locked and locked.machine.num_threads) or host.cores()),
        base_dir=loaded.path.parent,
        preset=args.preset or (locked.preset if locked else None),
        chosen=locked.chosen if locked else None,
        offline=machine_settings.offline,
    )
    if locked:  # before torch is imported; `start` compares what it loads
        lock.refuse_differences(lock.differences(locked, lock.make(loaded, resolved)))
    if loaded.source:
        print(f"from {printable(loaded.shown)}", file=sys.stderr)
    if args.allow_code:
        show_code(loaded.recipe, loaded.path.parent, whole=loaded.source is not None)
    else:
        refuse_code(loaded.recipe, loaded.path.parent)
    trackers.check(resolved.recipe.track, offline=machine_settings.offline)
    return _train(args, machine_settings, loaded=loaded, plan=resolved, locked=locked)


def _with_wandb(loaded: Any, mode: str) -> Any:
    """The recipe with `--wandb`, which counts more than its [track] section."""
    from dataclasses import replace

    from r1recipes.recipe.schema import Wandb

    track = loaded.recipe.track
    wandb = (track.wandb or Wandb()).model_copy(update={"mode": mode})
    track = track.model_copy(update={"wandb": wandb})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"track": track}))


def _resume(args: argparse.Namespace, machine_settings: Any) -> int:
    from r1recipes import runs
    from r1recipes.machine import gpu
    from r1recipes.training import trackers

    if args.overrides or args.preset or args.run_dir or args.locked:
        raise RecipeError(
            "--set, --preset, --run-dir and --locked do not go with --resume",
            hint="a run goes on as it began; start a new run to change it",
        )
    name = args.resume or None
    wanted = Path(args.recipe).stem if args.recipe else None
    found = runs.find(machine_settings.runs_dir, name, wanted)
    if wanted not in (None, found.read().get("recipe")):
        raise RecipeError(
            f"{found.folder} is a run of `{found.read().get('recipe')}`, not of `{wanted}`",
            hint=f"`r1recipes run --resume {found.folder}`",
        )
    if found.read()["status"] == "complete":
        print(f"{found.folder} is complete: nothing to resume", file=sys.stderr)
        return 0
    if args.allow_code:
        plan, began = found.plan(), found.read_lock()
        show_code(plan.recipe, plan.base_dir, whole=bool(began.get("source")))
    wanted = found.plan().recipe.track
    _ask_again_to_send(found, wanted, args.wandb)
    gpu.take()
    trackers.check(wanted, offline=machine_settings.offline)
    return _train(args, machine_settings, run=found)


def _ask_again_to_send(run: Any, wanted: Any, said: str | None) -> None:
    """A run folder may be somebody else's: it sends under this user's account only if they say so.

    Raises: RecipeError when `--wandb` is missing, or the run does not send.
    """
    from r1recipes.training import trackers

    if trackers.sends(wanted) and said is None:
        project = "/".join(filter(None, (wanted.wandb.entity, wanted.wandb.project)))
        raise RecipeError(
            f"this run sends its metrics to wandb, project `{project}`: under your account?",
            hint=f"`--resume {run.folder} --wandb` sends, `--wandb offline` keeps them here",
        )
    if said and (wanted.wandb is None or (said == "online" and not trackers.sends(wanted))):
        raise RecipeError(
            "this run sends nothing to wandb, and a run goes on as it began",
            hint="leave `--wandb` away",
        )
    if said == "offline":
        os.environ["WANDB_MODE"] = "offline"


def _train(
    args: argparse.Namespace,
    machine_settings: Any,
    run: Any = None,
    loaded: Any = None,
    plan: Any = None,
    locked: Any = None,
) -> int:
    from rich.console import Console

    from r1recipes.machine.terminal import Screen
    from r1recipes.training.view import View

    publish.check_before_run(plan or run.plan())
    # The libraries' own output goes to train.log; the view keeps the real stdout.
    console = Console(file=Screen())
    with View(console) as view:
        view.phase("Starting")
        from r1recipes import training
        from r1recipes.training.run import version_changes
        from r1recipes.training.stages import Options

        options = Options(allow_code=args.allow_code, force=args.force)
        if run is None:
            finished = training.start(
                loaded,
                plan,
                view,
                machine_settings,
                folder=args.run_dir,
                options=options,
                locked=locked,
            )
        else:
            for change in version_changes(run):
                view.note(f"since this run began: {change}; numbers may differ")
            finished = training.resume(run, view, machine_settings, options=options)
    _say_result(finished, console)
    publish.export_after_run(finished, machine_settings)
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
    if line := _memory_line(record["vram"]):
        console.print(line, markup=False, highlight=False)
    console.print(f"Done in {spent:.0f} s: {run.folder}", markup=False, highlight=False)


def _memory_line(found: dict[str, int | None]) -> str | None:
    predicted, measured = found["predicted_bytes"], found["measured_bytes"]
    if measured is None:
        return None
    line = f"Memory: peak {measured / 2**30:.1f} GiB"
    if predicted is None:
        return line
    return f"{line}, predicted {predicted / 2**30:.1f} ({predicted / measured - 1:+.1%})"

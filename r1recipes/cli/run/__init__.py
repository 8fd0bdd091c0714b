"""`run`: train a recipe, or resume a run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli import publish
from r1recipes.cli.common import (
    check_allowed,
    judged,
    look_here,
    named_run,
    offline_settings,
    overridable,
    printable,
    refuse_judge,
    screen,
    show_code,
)
from r1recipes.cli.run import ending
from r1recipes.errors import R1RecipesError, RecipeError, command

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.settings import Settings
    from r1recipes.planning import Plan
    from r1recipes.recipe import Loaded
    from r1recipes.recipe.targets import Track
    from r1recipes.runs import Run
    from r1recipes.runs.lock import Lock
    from r1recipes.training import Observer
    from r1recipes.training.prepared import Options

    Train = Callable[[list[Observer], Options], Run]


def add(commands: Commands) -> None:
    run = commands.add_parser("run", help="train a recipe, and evaluate it before and after")
    run.add_argument(
        "recipe",
        nargs="?",
        help="a file, a name from `list`, a FILE.r1.zip, a folder, https://..., or "
        "hub:user/name[@revision][/path]",
    )
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="resume this run; without a name, the newest run that is not complete",
    )
    run.add_argument(
        "--finish",
        metavar="RUN",
        help="train this run no further: evaluate its last checkpoint, and close it there",
    )
    run.add_argument(
        "--preset", metavar="NAME", help="use this preset (default: the largest that fits)"
    )
    run.add_argument("--run-dir", type=Path, metavar="FOLDER", help="make the run folder here")
    run.add_argument(
        "--locked",
        action="store_true",
        help="refuse to run if anything differs from the lock.json that came with the recipe",
    )
    run.add_argument("--offline", action="store_true", help="make no request to the Hub")
    run.add_argument(
        "--allow-code", action="store_true", help="run rewards from the recipe's own .py files"
    )
    judged(run)
    run.add_argument(
        "--force", action="store_true", help="train even if the probe sees nothing to learn from"
    )
    run.add_argument(
        "--wandb",
        nargs="?",
        const="online",
        choices=["online", "offline"],
        help="send the metrics to Weights & Biases, or with `offline` only write its files; "
        "needed again with --resume",
    )
    overridable(run)
    run.set_defaults(command=run_command)


def run_command(args: argparse.Namespace) -> int:
    if args.recipe is None and args.resume is None and args.finish is None:
        raise RecipeError(
            "`run` needs a recipe", hint=f"`{command('list')}` shows the shipped ones"
        )
    settings = offline_settings(args.offline)
    goes_on = args.resume is not None or args.finish is not None
    return _resume(args, settings) if goes_on else _start(args, settings)


def _start(args: argparse.Namespace, settings: Settings) -> int:
    from r1recipes import recipe
    from r1recipes.recipe.overrides import as_typed
    from r1recipes.runs import lock, record
    from r1recipes.training import trackers

    loaded = recipe.load(args.recipe, args.overrides)
    if args.wandb:
        loaded = _with_wandb(loaded, args.wandb)
    if args.run_dir is not None:
        record.refuse_used(args.run_dir)
    look_here(loaded)
    locked = lock.of_source(loaded) if args.locked else None
    plan = make_plan(args, loaded, locked, settings)
    if locked:  # before torch is imported; `start` compares the data once they are loaded
        lock.refuse_differences(lock.differences(locked, lock.make(loaded, plan)))
    if loaded.source:
        print(f"from {printable(loaded.shown)}", file=sys.stderr)
    is_foreign = loaded.source is not None
    check_allowed(loaded.recipe, loaded.path.parent, args, settings, is_foreign=is_foreign)
    with as_typed({("track", "wandb"): "--wandb"} if args.wandb else {}):
        trackers.check(plan.recipe.track, offline=settings.offline)
    _say_unpredicted(plan)

    def train(observers: list[Observer], options: Options) -> Run:
        from r1recipes import training

        return training.start(
            loaded,
            plan,
            observers,
            settings,
            folder=args.run_dir,
            options=options,
            locked=locked,
            began=args.began,
        )

    return _train(args, settings, plan, train)


def _say_unpredicted(plan: Plan) -> None:
    """Say on stderr that the memory of a plan for a GPU is not predicted, and why."""
    if plan.backend == "unsloth" and plan.predicted is None:
        from r1recipes.planning.fit import refusals

        print(printable(f"note: {refusals.unpredicted(plan.base_model.name)}"), file=sys.stderr)


def make_plan(
    args: argparse.Namespace, loaded: Loaded, locked: Lock | None, settings: Settings
) -> Plan:
    """The recipe on this machine, with everything that the lock decides taken from it."""
    from r1recipes import planning
    from r1recipes.machine import gpu, host
    from r1recipes.runs import origin

    num_threads = locked.machine.num_threads if locked else None
    return planning.make(
        loaded.recipe,
        planning.Target.here(gpu.take(), num_threads or host.cores()),
        base_dir=loaded.path.parent,
        preset=args.preset or (locked.preset if locked else None),
        chosen=locked.chosen if locked else None,
        offline=settings.offline,
        origin=origin.of_recipe(loaded, settings.runs_dir),
    )


def _with_wandb(loaded: Loaded, mode: str) -> Loaded:
    """The recipe with `--wandb`, which overrides its [track] section."""
    from dataclasses import replace

    from r1recipes.recipe.targets import Wandb

    track = loaded.recipe.track
    wandb = (track.wandb or Wandb()).model_copy(update={"mode": mode})
    track = track.model_copy(update={"wandb": wandb})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"track": track}))


def _resume(args: argparse.Namespace, settings: Settings) -> int:
    from r1recipes.machine import gpu
    from r1recipes.training import trackers

    if args.resume is not None and args.finish is not None:
        raise RecipeError(
            "--resume and --finish do not go together",
            hint="--resume trains to the last step; --finish ends the run at its last checkpoint",
        )
    if args.overrides or args.preset or args.run_dir or args.locked:
        raise RecipeError(
            "--set, --preset, --run-dir and --locked do not go with --resume or --finish",
            hint="a run goes on as it began: leave them out, or start a new run without --resume",
        )
    run = _run_to_resume(args, settings)
    run.refuse_special()
    if run.read("recipe", "fingerprint")["status"] == "complete":
        return _nothing_to_do(run, args)
    plan = run.plan()
    is_foreign = bool(run.read_lock().get("source"))
    refuse_judge(plan.recipe, allowed=args.allow_judge, settings=settings, is_foreign=is_foreign)
    if args.allow_code:
        show_code(plan.recipe, plan.base_dir, whole=is_foreign)
    _confirm_wandb(run, plan.recipe.track, args)
    gpu.take()
    trackers.check(plan.recipe.track, offline=settings.offline)

    def train(observers: list[Observer], options: Options) -> Run:
        from r1recipes import training

        return training.resume(run, observers, settings, options=options, began=args.began)

    return _train(args, settings, plan, train)


def _nothing_to_do(run: Run, args: argparse.Namespace) -> int:
    """What is said of a complete run. Raises: RecipeError when there are steps left to resume."""
    step, max_steps = run.read().get("stopped_at_step"), run.plan().recipe.train.max_steps
    if step and args.finish is None:
        anew = command("run", run.began_with(), "--set", f"model.name={run.folder}")
        raise RecipeError(
            f"{run.folder} was finished at step {step} of {max_steps}, and is trained no further",
            hint=f"`{anew}` trains a new adapter on it",
        )
    verb = "resume" if args.finish is None else "finish"
    print(printable(f"{run.folder} is complete: nothing to {verb}"), file=sys.stderr)
    return 0


def _run_to_resume(args: argparse.Namespace, settings: Settings) -> Run:
    """The run that `--resume` or `--finish` names, or the newest one of the recipe that is not
    complete."""
    from r1recipes.runs import record
    from r1recipes.runs.record import names

    recipe_name = Path(args.recipe).stem if args.recipe else None
    name = args.resume if args.finish is None else args.finish
    flag = "--resume" if args.finish is None else "--finish"
    if not name and args.finish is None:
        return record.find_unfinished(settings.runs_dir, recipe_name)
    named = names.look_up(settings.runs_dir, name)
    if named.recipe:  # its newest run may be complete, and one before it not
        run = record.find_unfinished(settings.runs_dir, named.recipe)
        print(printable(f"{name}: {run.folder}, the newest unfinished run"), file=sys.stderr)
    else:
        run = named_run(settings.runs_dir, name)
    if recipe_name not in (None, run.read().get("recipe")):
        raise RecipeError(
            f"{run.folder} is a run of `{run.read().get('recipe')}`, not of `{recipe_name}`",
            hint=f"`{command('run', flag, run.folder)}`, without the recipe",
        )
    return run


def _confirm_wandb(run: Run, track: Track, args: argparse.Namespace) -> None:
    """Send a resumed run to wandb only if `--wandb` is given again: the run folder may be somebody
    else's, and its metrics would go to this user's account.

    Raises: RecipeError when `--wandb` is missing, or when the run does not use wandb.
    """
    from r1recipes.training import trackers

    mode = args.wandb
    if track.wandb and trackers.sends(track) and mode is None:
        project = "/".join(filter(None, (track.wandb.entity, track.wandb.project)))
        raise RecipeError(
            f"this run sends its metrics to wandb, project `{project}`: under your account?",
            hint="`--wandb` sends, `--wandb offline` keeps them here",
        )
    if mode and (track.wandb is None or (mode == "online" and not trackers.sends(track))):
        raise RecipeError(
            "this run sends nothing to wandb, and a run goes on as it began",
            hint="leave out `--wandb`",
        )
    if mode == "offline":
        os.environ["WANDB_MODE"] = "offline"


def _train(args: argparse.Namespace, settings: Settings, plan: Plan, train: Train) -> int:
    """Train with a live view, trackers and a report page, print the result, export it, and say
    what to do next."""
    from r1recipes.training.view import View

    publish.check_before_run(plan)
    console = screen()
    view = View(console)
    try:
        with view:
            view.phase("Starting")
            from r1recipes.report.run import Live
            from r1recipes.training.prepared import Options
            from r1recipes.training.trackers import Trackers

            finish = args.finish is not None
            options = Options(args.allow_code, args.allow_judge, force=args.force, finish=finish)
            run = train([view, Trackers(view.note), Live()], options)
    except R1RecipesError:
        ending.print_page(view.run, console)  # what to do next is the hint of the error
        raise
    ending.print_result(run, console)
    publish.export_after_run(run, settings)
    ending.print_end(run, console, grading=_grading(args))
    return 0


def _grading(args: argparse.Namespace) -> list[str]:
    """The arguments of `grade` for the recipe of this command; empty where it goes on with a run,
    whose recipe may be anywhere."""
    if args.recipe is None:
        return []
    flags = [flag for flag in ("--allow-code", "--allow-judge") if getattr(args, _dest(flag))]
    sets = [word for override in args.overrides for word in ("--set", override)]
    return [args.recipe, *flags, *sets]


def _dest(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")

"""`export`, `share`, `copy`: a trained run in other forms, and recipes to and from other people."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.common import RUN_HELP, named_run, offline_settings, printable, screen, show_code
from r1recipes.errors import RecipeError

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.settings import Settings
    from r1recipes.planning import Plan
    from r1recipes.publish.share import Shared
    from r1recipes.recipe.targets import Target
    from r1recipes.runs import Run
    from r1recipes.runs.trained import TrainedRun


def add(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        help="export a trained run: adapter, merged weights, GGUF, Ollama, Hub",
    )
    export.add_argument("run", metavar="RUN", help=RUN_HELP)
    export.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="FORM",
        help="such as lora, merged_16bit, gguf:q8_0,q4_k_m, ollama or hub:user/name; an unknown "
        "name lists all; can be repeated",
    )
    export.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/export")
    export.add_argument(
        "--base", metavar="MODEL", help="Hub id or folder with 16-bit weights of the base model"
    )
    export.add_argument("--force", action="store_true", help="replace an existing export")
    export.add_argument("--public", action="store_true", help="make a new Hub repository public")
    export.add_argument("--offline", action="store_true", help="make no request to the Hub")
    export.set_defaults(command=export_command)

    share = commands.add_parser(
        "share", help="share a recipe, or a run with the proof of its result"
    )
    share.add_argument("recipe_or_run", metavar="RECIPE|RUN", help=f"a recipe, or {RUN_HELP}")
    share.add_argument(
        "--to",
        metavar="TARGET",
        help="FILE.r1.zip, a new folder, or hub:user/name[/folder] (default: a .r1.zip file named "
        "after the recipe and its fingerprint)",
    )
    share.add_argument("--force", action="store_true", help="replace an existing bundle")
    share.add_argument("--private", action="store_true", help="make a new Hub repository private")
    share.set_defaults(command=share_command)

    copy = commands.add_parser(
        "copy",
        help="copy a recipe from anywhere to a file of your own",
    )
    copy.add_argument("recipe", help="a file, a name or an address, as for `run`")
    copy.add_argument("file", type=Path, help="the .toml file to write; it must not exist yet")
    copy.add_argument(
        "--allow-code",
        action="store_true",
        help="also copy the rewards of a foreign recipe, after printing them",
    )
    copy.set_defaults(command=copy_command)


def export_command(args: argparse.Namespace) -> int:
    from r1recipes.recipe import targets
    from r1recipes.runs import trained

    settings = offline_settings(args.offline)
    forms, problems = targets.parse(args.to, "--to")
    if problems:
        raise RecipeError(problems=problems)
    export_run(
        trained.of_run(named_run(settings.runs_dir, args.run)),
        forms,
        settings,
        folder=args.out,
        base=args.base,
        replace=args.force,
        public=args.public,
    )
    return 0


def export_run(
    run: TrainedRun,
    forms: list[Target],
    settings: Settings,
    *,
    folder: Path | None = None,
    base: str | None = None,
    replace: bool = False,
    public: bool = False,
) -> None:
    """Export with a line for each stage; the output of libraries is discarded."""
    from r1recipes.machine.terminal import Capture
    from r1recipes.publish import export
    from r1recipes.training.backends import prepare_environment
    from r1recipes.training.view import View

    request = export.Request(
        forms,
        folder or run.run.export,
        base=base,
        replace=replace,
        public=public,
        offline=settings.offline,
    )
    export.check(run, request)
    prepare_environment(run.plan.model_copy(update={"backend": "trl"}), settings.cache_dir)
    with View(screen()) as view, Capture():
        places = export.execute(run, request, view.phase)
    for place in places:
        verb = "pushed" if place.startswith("http") else "wrote"
        print(printable(f"{verb} {place}"))


def check_before_run(plan: Plan) -> None:
    """Check that the forms of the recipe's [export] can be made here. Raises: RecipeError."""
    from r1recipes.publish import export
    from r1recipes.recipe import targets

    forms, _ = targets.parse(plan.recipe.export.to)
    problems = export.missing(forms, plan.recipe.model.name)
    if problems:
        raise RecipeError(problems=problems)


def export_after_run(run: Run, settings: Settings) -> None:
    """Make the forms of the recipe's [export] from a run that is complete."""
    from r1recipes.recipe import targets
    from r1recipes.runs import trained

    forms, _ = targets.parse(run.plan().recipe.export.to)
    if forms:
        export_run(trained.find(settings.runs_dir, str(run.folder)), forms, settings)


def share_command(args: argparse.Namespace) -> int:
    from r1recipes.publish import hub, share
    from r1recipes.rewards.judge import consent

    target = args.to
    if args.private and not (target or "").startswith("hub:"):
        raise RecipeError("--private needs a repository on the Hub", hint="--to hub:user/name")
    if target and "://" in target:
        raise RecipeError(
            f"`{target}` is neither a file nor on the Hub", hint="--to FILE.r1.zip or hub:user/name"
        )
    shared = _collect(args.recipe_or_run)
    target = target or f"{shared.name}-{shared.fingerprint[:8]}.r1.zip"
    if target.startswith("hub:"):
        reference = hub.push_recipe(shared.files, target, private=args.private)
    else:
        share.write(shared.files, Path(target), overwrite=args.force)
        reference = target
    size = sum(map(len, shared.files.values()))
    print(printable(f"shared {len(shared.files)} files, {size / 1000:.0f} kB: {reference}"))
    if shared.note:
        print(f"the run was cut short at {shared.note}")
    if shared.hides_judge:
        print(f"`judge.url` is private: {consent.STANDS_FOR} stands in its place")
    for name in sorted(shared.files):
        print(f"  {printable(name)}")
    print(f"fingerprint {shared.fingerprint}")
    print(printable(f"to repeat it: python -m r1recipes run {reference} --locked"))
    return 0


def _collect(argument: str) -> Shared:
    """The files of a run, by a name that `named_run` takes, or else of a recipe. Raises:
    RecipeError."""
    from r1recipes import recipe
    from r1recipes.publish import share

    run = _run_to_share(argument)
    return share.of_run(run) if run else share.of_recipe(recipe.load(argument))


def _run_to_share(argument: str) -> Run | None:
    """The run that an argument names; None where it names a recipe, or nothing. Raises:
    RecipeError for a piece of several ids."""
    from r1recipes.machine import settings
    from r1recipes.recipe import fetch
    from r1recipes.runs.record import names

    if fetch.is_remote(argument) or Path(argument).is_file():
        return None
    try:
        run = named_run(settings.load().runs_dir, argument)
    except names.Ambiguous:
        raise
    except RecipeError:
        return None
    # A shared folder has a record too, but no plan, which would name local folders.
    return run if run.resolved.is_file() else None


def copy_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.publish import share

    if args.file.suffix != ".toml":
        raise RecipeError(f"`{args.file}` is not a .toml file", hint=f"`{args.file}.toml`")
    loaded = recipe.load(args.recipe)
    if loaded.source:
        print(f"from {printable(loaded.shown)}", file=sys.stderr)
        if args.allow_code:
            show_code(loaded.recipe, loaded.path.parent, whole=True)
    written = share.copy(loaded, args.file, allow_code=args.allow_code)
    names = ", ".join(str(path) for path in written)
    print(f"wrote {printable(names)}; next: `r1recipes check {args.file}`")
    return 0

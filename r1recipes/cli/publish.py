"""`export`, `share`, `copy`: a trained run in other forms; a recipe to and from somebody else."""

import argparse
import sys
from pathlib import Path
from typing import Any

from r1recipes.cli.common import offline_settings, printable, show_code
from r1recipes.errors import RecipeError


def add(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="LoRA, merged weights, GGUF, Ollama, Hub")
    export.add_argument("run", metavar="RUN", help="a run folder")
    export.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="FORM",
        help="lora, merged_16bit, merged_4bit, gguf:q8_0,q4_k_m,q5_k_m, ollama, hub:user/name; "
        "may be given several times",
    )
    export.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/export")
    export.add_argument("--base", metavar="MODEL", help="16-bit weights of the base, id or folder")
    export.add_argument("--force", action="store_true", help="replace an export that is there")
    export.add_argument("--public", action="store_true", help="a new Hub repository is public")
    export.add_argument("--offline", action="store_true", help="make no request to the Hub")
    export.set_defaults(command=export_command)

    share = commands.add_parser("share", help="a recipe, or a run of it, with its proof")
    share.add_argument("what", metavar="RECIPE|RUN")
    share.add_argument(
        "--to",
        metavar="TARGET",
        help="FILE.r1.zip, a new folder, or hub:user/name[/folder]; default: a file named by the "
        "recipe and its fingerprint",
    )
    share.add_argument("--force", action="store_true", help="replace a bundle that is there")
    share.add_argument("--private", action="store_true", help="make a private repository")
    share.set_defaults(command=share_command)

    copy = commands.add_parser("copy", help="copy a recipe from anywhere to a file of yours")
    copy.add_argument("recipe", help="as for `run`")
    copy.add_argument("file", type=Path, help="the .toml file to write; it must not exist")
    copy.add_argument(
        "--allow-code", action="store_true", help="copy also rewards from elsewhere, after a look"
    )
    copy.set_defaults(command=copy_command)


def export_command(args: argparse.Namespace) -> int:
    from r1recipes.recipe import targets
    from r1recipes.runs import trained

    settings = offline_settings(args.offline)
    named, problems = targets.parse(args.to, "--to")
    if problems:
        raise RecipeError(problems=problems)
    found = trained.find(settings.runs_dir, args.run)
    export_run(
        found,
        named,
        settings,
        folder=args.out,
        base=args.base,
        replace=args.force,
        public=args.public,
    )
    return 0


def export_run(found: Any, named: list, settings: Any, *, folder: Path | None, **options: Any):
    """Export with a line for each stage; the libraries' own output goes to export.log."""
    from rich.console import Console

    from r1recipes.machine.terminal import Capture, Screen
    from r1recipes.publish import export
    from r1recipes.training.backends import prepare_environment
    from r1recipes.training.view import View

    request = export.Request(
        named, folder or found.run.folder / "export", offline=settings.offline, **options
    )
    export.check(found, request)
    prepare_environment(found.plan.model_copy(update={"backend": "trl"}), settings.cache_dir)
    with View(Console(file=Screen())) as view, Capture():
        done = export.execute(found, request, view.phase)
    for place in done:
        print(f"wrote {place}" if not place.startswith("http") else f"pushed {place}")


def check_before_run(plan: Any) -> None:
    """Raises: RecipeError when what the recipe's [export] names cannot be made here."""
    from r1recipes.publish import export
    from r1recipes.recipe import targets

    named, _ = targets.parse(plan.recipe.export.to)
    problems = export.missing(named, plan.recipe.model.name)
    if problems:
        raise RecipeError(problems=problems)


def export_after_run(run: Any, settings: Any) -> None:
    """Make what the recipe's [export] names. The run itself is complete already."""
    from r1recipes.recipe import targets
    from r1recipes.runs import trained

    named, _ = targets.parse(run.plan().recipe.export.to)
    if named:
        export_run(trained.find(settings.runs_dir, str(run.folder)), named, settings, folder=None)


def share_command(args: argparse.Namespace) -> int:
    from r1recipes.publish import hub, share

    to = args.to
    if args.private and not (to or "").startswith("hub:"):
        raise RecipeError("--private is for the Hub", hint="--to hub:user/name")
    if to and "://" in to:
        raise RecipeError(f"`{to}` is nowhere to share to", hint="a file, or hub:user/name")
    shared = _collect(args.what)
    to = to or f"{shared.name}-{shared.fingerprint[:8]}.r1.zip"
    if to.startswith("hub:"):
        reference = hub.push_recipe(shared.files, to, private=args.private)
    else:
        share.write(shared.files, Path(to), replace=args.force)
        reference = to
    size = sum(map(len, shared.files.values()))
    print(f"shared {len(shared.files)} files, {size / 1000:.0f} kB: {reference}")
    for name in sorted(shared.files):
        print(f"  {printable(name)}")
    print(f"fingerprint {shared.fingerprint}")
    print(f"to repeat it: python -m r1recipes run {reference} --locked")
    return 0


def _collect(what: str) -> Any:
    """A run by its folder or its name below the runs, or else a recipe."""
    from r1recipes import recipe, runs
    from r1recipes.machine import settings
    from r1recipes.publish import share
    from r1recipes.recipe import fetch

    runs_dir = settings.load().runs_dir
    if not fetch.is_remote(what):
        for folder in (Path(what), runs_dir / what):
            # A shared folder has a record too, but not the plan, which names local folders.
            if (folder / "resolved.json").is_file():
                return share.of_run(runs.Run(folder))
    return share.of_recipe(recipe.load(what))


def copy_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.publish import share

    if args.file.suffix != ".toml":
        raise RecipeError(f"`{args.file}` is no .toml file", hint=f"`{args.file}.toml`")
    loaded = recipe.load(args.recipe)
    if loaded.source:
        print(f"from {printable(loaded.shown)}", file=sys.stderr)
        if args.allow_code:
            show_code(loaded.recipe, loaded.path.parent, whole=True)
    written = share.copy(loaded, args.file, allow_code=args.allow_code)
    names = ", ".join(str(path) for path in written)
    print(f"wrote {printable(names)}; next: `r1recipes check {args.file}`")
    return 0

"""`export`: a trained run as LoRA, merged weights, GGUF, an Ollama model or a Hub repository."""

import argparse
from pathlib import Path
from typing import Any

from r1recipes.cli.common import offline_settings
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


def export_command(args: argparse.Namespace) -> int:
    from r1recipes import finished, targets

    settings = offline_settings(args.offline)
    named, problems = targets.parse(args.to, "--to")
    if problems:
        raise RecipeError(problems=problems)
    found = finished.find(settings.runs_dir, args.run)
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

    from r1recipes import export
    from r1recipes.backends import prepare_environment
    from r1recipes.progress import View
    from r1recipes.terminal import Capture, Screen

    wanted = export.Wanted(
        named, folder or found.run.folder / "export", offline=settings.offline, **options
    )
    problems = export.problems(found, wanted)
    if problems:
        raise RecipeError(problems=problems)
    prepare_environment(found.plan.model_copy(update={"backend": "trl"}), settings.cache_dir)
    with View(Console(file=Screen())) as view, Capture():
        done = export.execute(found, wanted, view.phase)
    for place in done:
        print(f"wrote {place}" if not place.startswith("http") else f"pushed {place}")


def check_before_run(plan: Any) -> None:
    """Raises: RecipeError when what the recipe's [export] names cannot be made here."""
    from r1recipes import export, targets

    named, _ = targets.parse(plan.recipe.export.to)
    problems = export.missing(named, plan.recipe.model.name)
    if problems:
        raise RecipeError(problems=problems)


def export_after_run(run: Any, settings: Any) -> None:
    """Make what the recipe's [export] names. The run itself is complete already."""
    from r1recipes import finished, targets

    named, _ = targets.parse(run.plan().recipe.export.to)
    if named:
        export_run(finished.find(settings.runs_dir, str(run.folder)), named, settings, folder=None)

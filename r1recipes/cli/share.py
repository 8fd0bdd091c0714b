"""`share`, `copy`: give a recipe with its proof to somebody else, and take one from anywhere."""

import argparse
import sys
from pathlib import Path
from typing import Any

from r1recipes.cli.common import printable, show_code
from r1recipes.errors import RecipeError


def add(commands: argparse._SubParsersAction) -> None:
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


def share_command(args: argparse.Namespace) -> int:
    from r1recipes import share

    to = args.to
    if args.private and not (to or "").startswith("hub:"):
        raise RecipeError("--private is for the Hub", hint="--to hub:user/name")
    if to and "://" in to:
        raise RecipeError(f"`{to}` is nowhere to share to", hint="a file, or hub:user/name")
    shared = _collect(args.what)
    to = to or f"{shared.name}-{shared.fingerprint[:8]}.r1.zip"
    if to.startswith("hub:"):
        reference = share.push(shared.files, to, private=args.private)
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
    from r1recipes import fetch, recipe, record, settings, share

    runs_dir = settings.load().runs_dir
    if not fetch.is_remote(what):
        for folder in (Path(what), runs_dir / what):
            # A shared folder has a record too, but not the plan, which names local folders.
            if (folder / "resolved.json").is_file():
                return share.of_run(record.Run(folder))
    return share.of_recipe(recipe.load(what))


def copy_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe, share

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

"""The commands; the only place that prints, catches, or exits.

Exit codes: 0 done, 2 the user's input, 1 the run failed, 130 stopped by the user. Data go to
stdout, messages to stderr. Nothing heavy is imported before a command needs it.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import r1recipes
from r1recipes import __version__
from r1recipes.errors import PlanError, Problem, R1RecipesError, RecipeError


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _open_standard_streams()
    args = parser().parse_args(argv)
    try:
        code = args.command(args)
        sys.stdout.flush()
        return code
    except R1RecipesError as error:
        report(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `r1recipes list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"error: {error.strerror or error}", file=sys.stderr)
        return 1


def _open_standard_streams() -> None:
    """Give a closed stdin, stdout or stderr /dev/null, or the next file opened takes its place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


def report(error: R1RecipesError) -> None:
    """Print every problem with its place and a change that works."""
    for problem in error.problems:
        label = "" if error.exit_code == 130 else "error: "
        print(f"{label}{located(problem)}", file=sys.stderr)
        if problem.hint:
            print(f"  hint: {problem.hint}", file=sys.stderr)
    if len(error.problems) > 1:
        print(f"{len(error.problems)} errors", file=sys.stderr)


def located(problem: Problem) -> str:
    return f"{problem.where}: {problem.message}" if problem.where else problem.message


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="r1recipes", description=r1recipes.__doc__)
    root.add_argument("--version", action="version", version=f"r1recipes {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")

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
    _overridable(run)
    run.set_defaults(command=run_command)

    rehearse = commands.add_parser("rehearse", help="measure memory and speed on random weights")
    rehearse.add_argument("recipe")
    rehearse.add_argument("--vram", type=float, metavar="GIB", help="act as a card of this memory")
    rehearse.add_argument("--preset", metavar="NAME", help="take this preset")
    rehearse.add_argument("--steps", type=int, default=4, help="optimiser steps (default 4)")
    rehearse.add_argument("--proof", type=Path, metavar="FILE", help="write what was measured")
    _overridable(rehearse)
    rehearse.set_defaults(command=rehearse_command)

    check = commands.add_parser("check", help="validate recipes, and say nothing if they are good")
    check.add_argument("recipes", nargs="+", metavar="RECIPE")
    _overridable(check)
    check.set_defaults(command=check_command)

    show = commands.add_parser("show", help="print a recipe with every default, and its origin")
    show.add_argument("recipe")
    show.add_argument("--json", action="store_true", help="as JSON, with the fingerprint")
    _overridable(show)
    show.set_defaults(command=show_command)

    listing = commands.add_parser("list", help="the recipes that come with r1recipes")
    listing.set_defaults(command=list_command)

    new = commands.add_parser("new", help="write a commented recipe")
    new.add_argument("file", type=Path, help="the file to write; it must not exist")
    new.add_argument("--model", required=True, help="Hub id or local folder of the model")
    new.set_defaults(command=new_command)

    schema = commands.add_parser("schema", help="write the JSON Schema of a recipe, for editors")
    schema.add_argument("file", type=Path, nargs="?", help="default: print it")
    schema.set_defaults(command=schema_command)
    return root


def _overridable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, such as train.max_steps=50; may be given several times",
    )


def run_command(args: argparse.Namespace) -> int:
    from r1recipes import machine, plan, recipe, settings

    if args.recipe is None and args.resume is None:
        raise RecipeError("which recipe?", hint="`r1recipes list` shows what there is")
    machine_settings = settings.load()
    if args.offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        os.environ["HF_HUB_OFFLINE"] = "1"  # before any library that reads it is imported
        machine_settings = machine_settings.model_copy(update={"offline": True})
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


def rehearse_command(args: argparse.Namespace) -> int:
    import json
    from dataclasses import replace

    from r1recipes import machine, plan, recipe, rehearse, settings

    loaded, card = recipe.load(args.recipe, args.overrides), machine.gpu()
    if card is None:
        raise PlanError("a rehearsal needs an NVIDIA GPU, and this machine has none")
    vram_bytes = round(args.vram * 2**30) if args.vram else None
    resolved = plan.make(
        loaded.recipe,
        base_dir=loaded.path.parent,
        gpu=replace(card, total_bytes=vram_bytes or card.total_bytes),
        num_cores=machine.cores(),
        preset_name=args.preset,
    )
    weights_dir = settings.load().cache_dir / "random-weights"
    weights_dir.mkdir(parents=True, exist_ok=True)
    proof = rehearse.rehearse(
        resolved, weights_dir=weights_dir, vram_bytes=vram_bytes, steps=args.steps
    )
    proof = {"recipe": loaded.name, "overrides": args.overrides} | proof
    text = json.dumps(proof, indent=1) + "\n"
    if args.proof:
        write_over(args.proof, text)
    print(text, end="")
    return 1 if "error" in proof else 0


def check_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe

    problems = []
    for name in args.recipes:
        try:
            recipe.load(name, args.overrides)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems=problems)
    return 0


def show_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe

    loaded = recipe.load(args.recipe, args.overrides)
    fingerprint = recipe.fingerprint(loaded.recipe)
    if args.json:
        import json

        data = loaded.recipe.model_dump(mode="json")
        print(json.dumps({"fingerprint": fingerprint, "recipe": data}, indent=1))
    else:
        print(f"# {loaded.path}, fingerprint {fingerprint}")
        print(recipe.render(loaded.recipe, recipe.origin_of(loaded)), end="")
    return 0


def list_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.schema import preset_bytes

    rows = []
    for path in recipe.shipped():
        found = recipe.load(path).recipe
        presets = ", ".join(sorted(found.preset, key=preset_bytes))
        rows.append((path.stem, found.model.name, presets))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    return 0


def new_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe, scaffold

    if args.file.suffix != ".toml":
        raise RecipeError(f"`{args.file}` is no .toml file", hint=f"`{args.file}.toml`")
    base = recipe.load(scaffold.base_for(args.model))
    text = scaffold.commented(base.recipe, args.model, None)
    write_new(args.file, text)
    print(f"wrote {args.file}, from {base.path.name}; next: `r1recipes check {args.file}`")
    return 0


def schema_command(args: argparse.Namespace) -> int:
    import json

    from r1recipes import schema

    text = json.dumps(schema.json_schema(), indent=1) + "\n"
    if args.file is None:
        print(text, end="")
    else:
        write_over(args.file, text)
    return 0


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist. Raises: RecipeError."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(f"`{path}` exists", hint="take another name") from error
    except OSError as error:
        raise _unwritable(path, error) from error


def write_over(path: Path, text: str) -> None:
    """Write a file that is made, not edited, by the user. Raises: RunError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> R1RecipesError:
    return R1RecipesError(f"`{path}` cannot be written: {error.strerror}")

"""`check`, `show`, `list`, `new`, `schema`: everything about a recipe that trains nothing."""

import argparse
from pathlib import Path

from r1recipes.cli.common import overridable, write_new, write_over
from r1recipes.errors import RecipeError


def add(commands: argparse._SubParsersAction) -> None:
    check = commands.add_parser("check", help="validate recipes, and say nothing if they are good")
    check.add_argument("recipes", nargs="+", metavar="RECIPE")
    overridable(check)
    check.set_defaults(command=check_command)

    show = commands.add_parser("show", help="print a recipe with every default, and its origin")
    show.add_argument("recipe")
    show.add_argument("--json", action="store_true", help="as JSON, with the fingerprint")
    overridable(show)
    show.set_defaults(command=show_command)

    listing = commands.add_parser("list", help="the recipes that come with r1recipes, or your runs")
    listing.add_argument("what", nargs="?", choices=["recipes", "runs"], default="recipes")
    listing.set_defaults(command=list_command)

    new = commands.add_parser("new", help="write a commented recipe")
    new.add_argument("file", type=Path, help="the file to write; it must not exist")
    new.add_argument("--model", required=True, help="Hub id or local folder of the model")
    new.set_defaults(command=new_command)

    schema = commands.add_parser("schema", help="write the JSON Schema of a recipe, for editors")
    schema.add_argument("file", type=Path, nargs="?", help="default: print it")
    schema.set_defaults(command=schema_command)


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
    from r1recipes.cli.runs import list_runs

    if args.what == "runs":
        return list_runs()
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

"""`check`, `show`, `list`, `new`, `schema`: everything about a recipe that trains nothing."""

import argparse
from pathlib import Path
from typing import Any

from r1recipes.cli.common import overridable, printable, write_new, write_over
from r1recipes.errors import RecipeError


def add(commands: argparse._SubParsersAction) -> None:
    check = commands.add_parser(
        "check", help="validate recipes and studies; say nothing of good ones"
    )
    check.add_argument("recipes", nargs="+", metavar="FILE")
    overridable(check)
    check.set_defaults(command=check_command)

    show = commands.add_parser("show", help="print a recipe with every default, and its origin")
    show.add_argument("recipe")
    show.add_argument("--json", action="store_true", help="as JSON, with the fingerprint")
    overridable(show)
    show.set_defaults(command=show_command)

    listing = commands.add_parser("list", help="recipes, with what was measured, or your runs")
    listing.add_argument("what", nargs="?", choices=["recipes", "runs"], default="recipes")
    listing.add_argument("--json", action="store_true", help="recipes as JSON")
    listing.set_defaults(command=list_command)

    new = commands.add_parser("new", help="write a commented recipe")
    new.add_argument("file", type=Path, help="the file to write; it must not exist")
    new.add_argument("--model", required=True, help="Hub id or local folder of the model")
    new.set_defaults(command=new_command)

    schema = commands.add_parser("schema", help="write the JSON Schema of a recipe or study")
    schema.add_argument("file", type=Path, nargs="?", help="default: print it")
    schema.add_argument("--study", action="store_true", help="of a study file")
    schema.set_defaults(command=schema_command)


def check_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.study.loading import load

    problems = []
    for name in args.recipes:
        try:
            try:
                recipe.load(name, args.overrides)
            except recipe.IsStudy:
                from r1recipes.study.loading import load

                load(name, args.overrides)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems=problems)
    return 0


def show_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.config import render
    from r1recipes.recipe.loading import origin_of

    loaded = recipe.load(args.recipe, args.overrides)
    fingerprint = recipe.fingerprint(loaded.recipe)
    if args.json:
        import json

        found = {"fingerprint": fingerprint, "recipe": loaded.recipe.model_dump(mode="json")}
        if loaded.source:
            found["source"] = loaded.source.origin()
        print(json.dumps(found, indent=1))
    else:
        print(f"# {printable(loaded.shown)}, fingerprint {fingerprint}")
        print(printable(render.render(loaded.recipe, origin_of(loaded))), end="")
    return 0


def list_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.cli.runs import list_runs
    from r1recipes.planning import proofs

    if args.what == "runs":
        if args.json:
            raise RecipeError("--json is for recipes", hint="each run has its record.json")
        return list_runs()
    from r1recipes.algorithms.base import preset_bytes

    rows = []
    for path in recipe.shipped():
        loaded = recipe.load(path)
        names = sorted(loaded.recipe.preset, key=preset_bytes)
        found = {name: proofs.find(loaded, name, proofs.folder()) for name in names}
        rows.append((loaded.name, loaded.recipe.model.name, found))
    if args.json:
        import json

        print(json.dumps([_as_json(*row) for row in rows], indent=1))
        return 0
    print(f"  PRESET  {'PEAK OF USABLE MEMORY':24}  S A STEP  COMPLETIONS/H  MEASURED ON")
    for name, model, found in rows:
        print(f"{name}  {model}")
        for preset, proof in found.items():
            said = "needs no card" if preset == "cpu" else _in_words(proof)
            print(f"  {preset:<6}  {said}")
    return 0


def _in_words(proof: Any) -> str:
    """What a preset's proof says, or the one reason why it says nothing."""
    if proof is None:
        return "not measured"
    if not proof.holds:
        return proof.fault
    measured, usable_gib = proof.measured, proof.class_bytes / 2**30
    return (
        f"{measured.peak_gib:5.2f} of {usable_gib:5.2f} GiB ({proof.share:.0%})  "
        f"{measured.step_s:8.1f}  {measured.completions_per_hour:13,}  "
        f"{proof.card}, {proof.date}"
    )


def _as_json(name: str, model: str, found: dict[str, Any]) -> dict[str, Any]:
    presets = {
        preset: None
        if proof is None
        else {
            "holds": proof.holds,
            "fault": proof.fault,
            "class_bytes": proof.class_bytes,
            "measured": proof.measured and proof.measured.model_dump(),
        }
        for preset, proof in found.items()
    }
    return {"recipe": name, "model": model, "presets": presets}


def new_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.recipe import scaffold

    if args.file.suffix != ".toml":
        raise RecipeError(f"`{args.file}` is no .toml file", hint=f"`{args.file}.toml`")
    from r1recipes.planning import models

    base = recipe.load(scaffold.base_for(args.model, models.find))
    text = scaffold.commented(base.recipe, args.model, None)
    write_new(args.file, text)
    print(f"wrote {args.file}, from {base.path.name}; next: `r1recipes check {args.file}`")
    return 0


def schema_command(args: argparse.Namespace) -> int:
    import json

    from r1recipes.config import json_schema
    from r1recipes.recipe import Recipe
    from r1recipes.study.schema import StudyFile

    if args.study:
        found = json_schema.of(StudyFile, "study")
    else:
        found = json_schema.of(Recipe, "recipe")
    text = json.dumps(found, indent=1) + "\n"
    if args.file is None:
        print(text, end="")
    else:
        write_over(args.file, text)
    return 0

"""`check`, `show`, `list`, `new`, `schema`: commands on recipes that do not train."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.cli.common import overridable, printable, write_new, write_over
from r1recipes.errors import Problem, RecipeError

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.planning.proofs import Proof
    from r1recipes.recipe import Loaded


def add(commands: Commands) -> None:
    check = commands.add_parser(
        "check", help="check recipes and studies for errors; valid files print nothing"
    )
    check.add_argument("recipes", nargs="+", metavar="FILE", help="a recipe or a study")
    overridable(check)
    check.set_defaults(command=check_command)

    show = commands.add_parser("show", help="print a recipe with all defaults, and their origin")
    show.add_argument("recipe", help="a file, or a name from `list`")
    show.add_argument("--json", action="store_true", help="print JSON, with the fingerprint")
    overridable(show)
    show.set_defaults(command=show_command)

    listing = commands.add_parser("list", help="list the shipped recipes, or your runs")
    listing.add_argument("kind", nargs="?", choices=["recipes", "runs"], default="recipes")
    listing.add_argument("--json", action="store_true", help="print recipes as JSON")
    listing.set_defaults(command=list_command)

    new = commands.add_parser("new", help="write a commented recipe for a model")
    new.add_argument("file", type=Path, help="the .toml file to write; it must not exist yet")
    new.add_argument("--model", required=True, help="Hub id or local folder of the model")
    new.set_defaults(command=new_command)

    schema = commands.add_parser("schema", help="write the JSON Schema of recipes or studies")
    schema.add_argument("file", type=Path, nargs="?", help="the file to write (default: print it)")
    schema.add_argument("--study", action="store_true", help="the schema of a study file")
    schema.set_defaults(command=schema_command)


def check_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe

    problems: list[Problem] = []
    for name in args.recipes:
        try:
            try:
                _check_gym(recipe.load(name, args.overrides))
            except recipe.IsStudy:
                from r1recipes import study

                for cell in study.load(name, args.overrides).cells:
                    if cell.names_gym:
                        _check_gym(cell.load())
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems=problems)
    return 0


def _check_gym(loaded: Loaded) -> None:
    """Raises: RecipeError with all that reasoning-gym does not take, where the data are its own."""
    from r1recipes.recipe import references

    if references.is_gym(loaded.recipe.data.name):
        from r1recipes import data

        data.check(loaded)


def show_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.config import render
    from r1recipes.recipe.loading import origin_of

    loaded = recipe.load(args.recipe, args.overrides)
    fingerprint = recipe.fingerprint(loaded.recipe)
    if args.json:
        import json

        shown = {"fingerprint": fingerprint, "recipe": loaded.recipe.model_dump(mode="json")}
        if loaded.source:
            shown["source"] = loaded.source.origin()
        print(json.dumps(shown, indent=1))
    else:
        print(f"# {printable(loaded.shown)}, fingerprint {fingerprint}")
        print(printable(render.render(loaded.recipe, origin_of(loaded))), end="")
    return 0


def list_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.cli.runs import list_runs
    from r1recipes.planning import proofs

    if args.kind == "runs":
        if args.json:
            raise RecipeError("--json is for recipes", hint="each run has its record.json")
        return list_runs()
    from r1recipes.algorithms.base import preset_bytes

    rows = []
    for path in recipe.shipped():
        loaded = recipe.load(path)
        presets = sorted(loaded.recipe.preset, key=preset_bytes)
        by_preset = {preset: proofs.find(loaded, preset, proofs.folder()) for preset in presets}
        rows.append((loaded.name, loaded.recipe.model.name, by_preset))
    if args.json:
        import json

        print(json.dumps([_as_json(*row) for row in rows], indent=1))
        return 0
    print(f"  PRESET  {'PEAK OF USABLE MEMORY':24}  S A STEP  COMPLETIONS/H  MEASURED ON")
    for name, model, by_preset in rows:
        print(f"{name}  {model}")
        for preset, proof in by_preset.items():
            text = "needs no GPU" if preset == "cpu" else _in_words(proof)
            print(f"  {preset:<6}  {text}")
    return 0


def _in_words(proof: Proof | None) -> str:
    """The measurements of a preset, or the reason why there are none that hold."""
    if proof is None:
        return "not measured"
    measured = proof.measured
    if not proof.holds or measured is None:
        return proof.fault or ""
    usable_gib = proof.class_bytes / 2**30
    return (
        f"{measured.peak_gib:5.2f} of {usable_gib:5.2f} GiB ({proof.share:.0%})  "
        f"{measured.step_s:8.1f}  {measured.completions_per_hour:13,}  "
        f"{proof.card}, {proof.date}"
    )


def _as_json(name: str, model: str, by_preset: dict[str, Proof | None]) -> dict[str, Any]:
    presets = {
        preset: None
        if proof is None
        else {
            "holds": proof.holds,
            "fault": proof.fault,
            "class_bytes": proof.class_bytes,
            "measured": proof.measured and proof.measured.model_dump(),
        }
        for preset, proof in by_preset.items()
    }
    return {"recipe": name, "model": model, "presets": presets}


def new_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.recipe import scaffold

    if args.file.suffix != ".toml":
        raise RecipeError(f"`{args.file}` is not a .toml file", hint=f"`{args.file}.toml`")
    from r1recipes.planning import models

    base = recipe.load(scaffold.base_for(args.model, models.find))
    text = scaffold.commented(base.recipe, args.model, None)
    write_new(args.file, text)
    print(f"wrote {args.file}, from {base.path.name}; next: `r1recipes check {args.file}`")
    return 0


def schema_command(args: argparse.Namespace) -> int:
    import json

    from r1recipes.config import json_schema
    from r1recipes.recipe import schema
    from r1recipes.study.schema import StudyFile

    editor_schema = json_schema.of(StudyFile, "study") if args.study else schema.for_editors()
    text = json.dumps(editor_schema, indent=1) + "\n"
    if args.file is None:
        print(text, end="")
    else:
        write_over(args.file, text)
    return 0

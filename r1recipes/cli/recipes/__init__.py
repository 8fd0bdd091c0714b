"""`check`, `show`, `list`, `new`, `schema`: commands on recipes that do not train.

listing  `list`, also of runs and studies        new  `new`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.common import (
    distinct_recipes,
    find_origin,
    overridable,
    printable,
    refuse_folder,
    refuse_model,
    runs_folder,
    write_over,
)
from r1recipes.cli.recipes import listing, new
from r1recipes.errors import PlanError, Problem, RecipeError

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.data.local import Findings
    from r1recipes.planning.architectures import Origin
    from r1recipes.recipe import Loaded


def add(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="check recipes and studies, and the files, folders and code that they name",
    )
    check.add_argument("recipes", nargs="+", metavar="FILE", help="a recipe or a study")
    check.add_argument(
        "--allow-code", action="store_true", help="import the files of a recipe's own rewards"
    )
    overridable(check)
    check.set_defaults(command=check_command)

    show = commands.add_parser("show", help="print a recipe with all defaults, and their origin")
    show.add_argument("recipe", help="a file, or a name from `list`")
    show.add_argument("--json", action="store_true", help="print JSON, with the fingerprint")
    overridable(show)
    show.set_defaults(command=show_command)

    listing.add(commands)
    new.add(commands)

    schema = commands.add_parser(
        "schema",
        help="write the JSON Schema of recipes or studies",
    )
    schema.add_argument("file", type=Path, nargs="?", help="the file to write (default: print it)")
    schema.add_argument("--study", action="store_true", help="the schema of a study file")
    schema.set_defaults(command=schema_command)


def check_command(args: argparse.Namespace) -> int:
    problems: list[Problem] = []
    for name in args.recipes:
        try:
            findings = _look(name, args.overrides, args.allow_code)
        except RecipeError as error:
            problems += error.problems
            continue
        problems += findings.problems
        for warning in findings.warnings:
            print(printable(f"warning: {name}: {warning}"), file=sys.stderr)
        if not findings.problems:
            print(printable("\n  ".join([f"{name}: ok", *findings.lines])))
    if problems:
        raise RecipeError(problems=list(dict.fromkeys(problems)))
    return 0


def _look(name: str, overrides: list[str], allow_code: bool) -> Findings:
    """What a recipe, or all recipes of a study, name on this machine. Raises: RecipeError."""
    from r1recipes import recipe
    from r1recipes.algorithms import ALGORITHMS
    from r1recipes.data import local

    try:
        recipes = [recipe.load(name, overrides)]
    except recipe.IsStudy:
        from r1recipes import study

        recipes = distinct_recipes(study.load(name, overrides).cells)
    origins = [_origin(loaded) for loaded in recipes]
    looks = [local.look(loaded, allow_code=allow_code) for loaded in recipes]
    for loaded, origin, findings in zip(recipes, origins, looks, strict=True):
        _check_model(loaded, origin, findings)
        if origin:
            name = loaded.recipe.model.name
            start, *warnings = origin.sentences(loaded.recipe.cold_start is not None)
            findings.lines.append(f"model.name {name}: {start}")
            findings.warnings += [text.removeprefix("warning: ") for text in warnings]
        findings.warnings += ALGORITHMS[loaded.recipe.algorithm].limits
        if loaded.recipe.eval.every:
            _check_every(loaded, findings)
        _check_weights(loaded, findings)
    return local.Findings(
        lines=list(dict.fromkeys(line for look in looks for line in look.lines)),
        problems=[problem for look in looks for problem in look.problems],
        warnings=list(dict.fromkeys(warning for look in looks for warning in look.warnings)),
    )


def _check_weights(loaded: Loaded, findings: Findings) -> None:
    """FP8 weights that the card of this machine cannot load, in the preset that it would get; and
    rollouts with the adapter in weights of fewer bits than 16."""
    from r1recipes.algorithms.base import preset_bytes
    from r1recipes.machine import gpu
    from r1recipes.planning import fit, plan
    from r1recipes.planning.fit import refusals

    presets = loaded.recipe.preset
    if not refusals.merges_rollouts() and not any(p.load_in == "fp8" for p in presets.values()):
        return
    card = gpu.current()
    fitting = card and fit.presets_for(sorted(presets, key=preset_bytes), card)
    if card is None or not fitting:
        return  # this machine may be another than the one that trains
    engine = plan.has_unsloth() and all(
        row.trains_on("unsloth", train) for row, train in loaded.recipe.trainings
    )
    try:
        refusals.check_weights(presets[fitting[-1]], card, has_engine=engine, is_here=True)
    except PlanError as error:
        findings.problems += error.problems


def _check_every(loaded: Loaded, findings: Findings) -> None:
    """Presets whose steps are too short for `eval.every`: a warning for each, and a problem where
    these are all. A preset that leaves the size of a step open is left out."""
    from r1recipes.algorithms import ALGORITHMS
    from r1recipes.planning.auto import open_keys
    from r1recipes.planning.speed import eval_problems

    recipe, refused = loaded.recipe, {}
    if (recipe.eval.every or 0) >= recipe.train.max_steps:
        findings.warnings.append(
            f"`eval.every = {recipe.eval.every}` never comes in {recipe.train.max_steps} steps"
        )
    for name, preset in recipe.preset.items():
        if {"prompts_per_step", "per_device_train_batch_size"} & {*open_keys(preset)}:
            continue
        completions = ALGORITHMS[recipe.algorithm].step(preset).completions
        try:
            eval_problems(recipe, "cpu" if name == "cpu" else "cuda", completions)
        except PlanError as error:
            refused[name] = error.problems[0]
    if len(refused) == len(recipe.preset):
        where = loaded.where(("eval", "every"))
        findings.problems += [Problem(p.message, where, p.hint) for p in refused.values()]
    else:
        findings.warnings += [
            f"preset {name} is refused: {problem.message}; {problem.hint}"
            for name, problem in refused.items()
        ]


def _check_model(loaded: Loaded, origin: Origin | None, findings: Findings) -> None:
    """What `plan` refuses by name is refused here, in place of what its folder lacks; else as long
    as nothing else is wrong with it."""
    where = loaded.where(("model", "name"))
    try:
        refuse_folder(loaded)
    except PlanError as error:
        others = [problem for problem in findings.problems if problem.where != where]
        refusals = [Problem(p.message, where, p.hint) for p in error.problems]
        findings.problems[:] = [*others, *refusals]
        return
    if any(problem.where == where for problem in findings.problems):
        return
    try:
        line = refuse_model(loaded, origin)
    except PlanError as error:
        findings.problems += [Problem(p.message, where, p.hint) for p in error.problems]
    else:
        findings.lines += [line] if line else []


def _origin(loaded: Loaded) -> Origin | None:
    """The run or the adapter that a recipe names as its model; None where it names a model. Raises:
    RecipeError."""
    from r1recipes.recipe.schema import BUILTIN_MODELS

    name = loaded.recipe.model.name
    if name in BUILTIN_MODELS:
        return None
    return find_origin(loaded, runs_folder())


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

"""What the numbers of a run depend on: written as lock.json, read, and compared with what is here.

Compared: the recipe's fingerprint, seed, preset, versions, kind of GPU, CPU threads, every file
that the recipe names, and, once loaded, data and chat template. Revisions are taken from the lock,
and so is what was chosen for "auto": the same card with less memory free would get other values.
Limits: the driver and the make of the CPU are not compared, though a last digit can depend on them.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from r1recipes.machine import gpu, packages
from r1recipes.planning import auto
from r1recipes import recipe
from r1recipes.recipe import references
from r1recipes.errors import Problem
from r1recipes.errors import RecipeError
from r1recipes.planning.plan import Plan
from r1recipes.recipe.loading import Loaded

Short = Annotated[str, StringConstraints(max_length=300)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Table = Annotated[dict[Short, Short], Field(max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Machine(_Part):
    """The part of a machine that numbers depend on."""

    gpu: Short | None = None
    num_threads: Annotated[int | None, Field(ge=1, le=1024)] = None


class Lock(_Part):
    """A lock, of a run or of a recipe that was not run; keys that are not compared are ignored."""

    format: Literal[1]
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    seed: int
    preset: Short | None = None
    chosen: Annotated[dict[Short, bool | int | float], Field(max_length=len(auto.OPEN))] = {}
    """Key of the preset -> value, for each that is "auto" in the recipe."""
    versions: Table = {}
    machine: Machine = Machine()
    files: Table = {}
    """Name in the recipe -> sha256, of the local files that it names."""
    inputs: Table = {}
    """What a run read beside its recipe -> sha256."""
    model_revision: Commit | None = None
    data_revision: Commit | None = None


def make(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    """The lock of a run that begins; what it loads is added once that is known."""
    card = gpu.current() if plan.device == "cuda" else None
    given = loaded.recipe.preset[plan.preset_name]
    return of_recipe(loaded) | {
        "preset": plan.preset_name,
        "chosen": {key: getattr(plan.preset, key) for key in auto.open_keys(given)},
        "versions": packages.versions(),
        "machine": {
            "gpu": card.name if card else None,
            "driver": card.driver if card else None,
            "num_threads": plan.num_threads,
        },
    }


def of_recipe(loaded: Loaded) -> dict[str, Any]:
    """The lock of a recipe that was not run: what does not depend on a machine."""
    found = {
        "format": 1,
        "fingerprint": recipe.fingerprint(loaded.recipe),
        "recipe": loaded.name,
        "overrides": sorted(set(loaded.overrides.values())),
        "seed": loaded.recipe.seed,
        "files": file_hashes(loaded.recipe.model_dump(), loaded.path.parent),
    }
    return found | ({"source": loaded.source.origin()} if loaded.source else {})


def file_hashes(data: dict[str, Any], base_dir: Path) -> dict[str, str]:
    """Name in the recipe -> sha256, of the local files that it names and that are there."""
    files = references.local_files(data, base_dir)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def of_source(loaded: Loaded) -> Lock:
    """The lock that came with a recipe. Raises: RecipeError when none did, or it is not valid."""
    path = loaded.path.parent / "lock.json"
    if loaded.source is None or not path.is_file():
        hint = "--locked goes with what `r1recipes share` made, or with the folder of a run"
        raise RecipeError.at(loaded.shown, "has no lock.json", hint)
    return read(path.read_bytes(), f"{loaded.source.reference}: lock.json")


def read(content: bytes, where: str) -> Lock:
    """Raises: RecipeError, one problem, when it is not a lock."""
    try:
        return Lock.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))[:80]
        message = f"is no lock: {f'`{key}`: ' if key else ''}{first['msg'][:200]}"
        raise RecipeError.at(where, message) from error


def differences(locked: Lock, today: dict[str, Any]) -> list[str]:
    """What is not as in the lock, one line each, of what is known before anything is loaded."""
    here = Lock.model_validate(today)
    pairs = [
        ("the recipe's fingerprint", locked.fingerprint, here.fingerprint),
        ("the seed", locked.seed, here.seed),
        ("the GPU", locked.machine.gpu or "none", here.machine.gpu or "none"),
        ("CPU threads", locked.machine.num_threads, here.machine.num_threads),
        ("the preset", locked.preset, here.preset),
    ]
    if locked.preset == here.preset:
        names = sorted(locked.chosen.keys() | here.chosen.keys())
        pairs += [
            (f"the value chosen for `{name}`", locked.chosen.get(name), here.chosen.get(name))
            for name in names
        ]
    on_gpu = bool(locked.machine.gpu or here.machine.gpu)
    tables = [
        ("", _used(locked.versions, on_gpu), _used(here.versions, on_gpu)),
        ("file ", locked.files, here.files),
    ]
    for label, then, now in tables:
        names = sorted(then.keys() | now.keys()) if then else []
        pairs += [(f"{label}{name}", then.get(name), now.get(name)) for name in names]
    optional = ("CPU threads", "the preset")  # a recipe that was not run has none
    return [
        f"{what}: {_short(then)} in the lock, {_short(now)} here"
        for what, then, now in pairs
        if then != now and not (what in optional and then is None)
    ]


def _used(versions: dict[str, str], on_gpu: bool) -> dict[str, str]:
    """Versions of what takes part: on a CPU nothing that is for a GPU, even where it is there."""
    unused = () if on_gpu else packages.GPU_PACKAGES
    return {name: version for name, version in versions.items() if name not in unused}


def input_differences(locked: Lock, inputs: dict[str, str], data_revision: str | None) -> list[str]:
    """What was loaded and is not as in the lock, one line each."""
    pairs = [(what, then, inputs.get(what)) for what, then in locked.inputs.items()]
    if locked.data_revision:
        pairs.append(("the data's commit", locked.data_revision, data_revision))
    return [
        f"{what}: {_short(then)} in the lock, {_short(now)} here"
        for what, then, now in pairs
        if then != now
    ]


def refuse_differences(found: list[str]) -> None:
    """Raises: RecipeError with every difference, if there are any."""
    if found:
        hint = "make them equal, or run without --locked: the numbers may then differ"
        problems = [Problem(line, "--locked") for line in found[:-1]]
        raise RecipeError(problems=[*problems, Problem(found[-1], "--locked", hint)])


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text[:12] if len(text) in (40, 64) else text

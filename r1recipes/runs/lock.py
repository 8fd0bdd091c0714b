"""lock.json: everything that the numbers of a run depend on, and its comparison with this machine.

A lock has the recipe's fingerprint, the seed, the preset, versions, the GPU, the CPU and its
threads, the hash of every file that the recipe names, and once they are loaded those of the data
and chat template. All of these are compared, the CPU only where nothing was trained on a GPU.
Commits of model and data are taken from the lock, and so are the values that were chosen for
"auto", since the same card with less free memory would get others, and the problems that
`data.keep` kept, since samples on a GPU differ.
Limits: the driver is not compared, though last digits can depend on it, and neither is the CPU of
a lock that an older version wrote without it.
"""

import hashlib
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from r1recipes import recipe
from r1recipes.errors import Problem, RecipeError
from r1recipes.machine import gpu, host, packages
from r1recipes.planning import auto
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded
from r1recipes.rewards.judge import consent
from r1recipes.rewards.user_code import is_user_code

Short = Annotated[str, StringConstraints(max_length=300)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Rows = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]
Table = Annotated[dict[Short, Short], Field(max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Machine(_Part):
    """The properties of a machine that numbers depend on."""

    gpu: Short | None = None
    cpu: Short | None = None
    num_threads: Annotated[int | None, Field(ge=1, le=1024)] = None


class Lock(_Part):
    """The lock of a run, or of a recipe that was not run; other keys in the file are ignored."""

    format: Literal[1]
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    seed: int
    preset: Short | None = None
    chosen: Annotated[dict[Short, bool | int | float], Field(max_length=len(auto.OPEN))] = {}
    """Key of the preset -> chosen value, for each key that is "auto" in the recipe."""
    versions: Table = {}
    machine: Machine = Machine()
    files: Table = {}
    """File name in the recipe -> sha256, for each local file."""
    inputs: Table = {}
    """Each thing that the run read beside its recipe -> sha256."""
    model_revision: Commit | None = None
    data_revision: Commit | None = None
    recipe: Short | None = None
    overrides: Annotated[list[str], Field(max_length=1000)] = []
    source: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    examples_revision: Commit | None = None
    stage_revisions: Annotated[dict[Short, Commit], Field(max_length=100)] = {}
    """Stage -> commit of its examples on the Hub."""
    kept_rows: Rows | None = None
    """Places of the training rows within `data.keep`, where the recipe has it and the run measured
    them: a run of this lock trains on the same ones."""


def command(
    recipe_file: str, preset: str | None, overrides: Iterable[str], flags: Iterable[str] = ()
) -> str:
    """The command that repeats a run. `overrides` are those of its lock, with or without the flag
    that the user typed; `flags` are those of `permissions`."""
    sets = [f"--set {shlex.quote(text.removeprefix('--set ').strip())}" for text in overrides]
    preset_flag = [f"--preset {shlex.quote(preset)}"] if preset else []
    words = [f"r1recipes run {shlex.quote(recipe_file)}", *preset_flag, *sets, *flags]
    return " ".join(words)


def permissions(recipe_data: dict[str, Any], *, is_foreign: bool = False) -> list[str]:
    """The flags without which a recipe does not run: `--allow-code` for rewards of the user's own,
    `--allow-judge` for a judge elsewhere. `is_foreign`: even for one on this machine."""
    stages = recipe_data.get("stage") or []
    sections = [part.get("rewards") or {} for part in (recipe_data, *stages)]
    names = [name for section in sections for name in section]
    names.append((recipe_data.get("eval") or {}).get("reward") or "")
    url = (recipe_data.get("judge") or {}).get("url")
    flags = ["--allow-code"] if any(map(is_user_code, names)) else []
    if url and (is_foreign or consent.place_of(url) != "this machine"):
        flags.append("--allow-judge")
    return flags


def make(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    """The lock of a run that begins; hashes of what it loads are added later."""
    card = gpu.current() if plan.device == "cuda" else None
    preset = loaded.recipe.preset[plan.preset_name]
    return (
        of_recipe(loaded)
        | {
            "preset": plan.preset_name,
            "chosen": {key: getattr(plan.preset, key) for key in auto.open_keys(preset)},
            "versions": packages.versions(),
            "machine": {
                "gpu": card.name if card else None,
                "driver": card.driver if card else None,
                "cpu": host.cpu(),
                "num_threads": plan.num_threads,
            },
        }
        | ({"origin": plan.origin.model_dump(mode="json")} if plan.origin else {})
    )


def of_recipe(loaded: Loaded) -> dict[str, Any]:
    """The lock of a recipe that was not run: everything that does not depend on a machine."""
    locked = {
        "format": 1,
        "fingerprint": recipe.fingerprint(loaded.recipe),
        "recipe": loaded.name,
        "overrides": sorted(set(loaded.overrides.values())),
        "seed": loaded.recipe.seed,
        "files": file_hashes(loaded.recipe.model_dump(), loaded.path.parent),
    }
    return locked | ({"source": loaded.source.origin()} if loaded.source else {})


def file_hashes(data: dict[str, Any], base_dir: Path) -> dict[str, str]:
    """File name in the recipe -> sha256, for each local file that exists."""
    files = references.local_files(data, base_dir)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def of_source(loaded: Loaded) -> Lock:
    """The lock that came with a recipe. Raises: RecipeError without one, or if it is not valid."""
    path = loaded.path.parent / "lock.json"
    if loaded.source is None or not path.is_file():
        hint = "leave out `--locked`, or name a recipe that was shared or the folder of a run"
        raise RecipeError.at(loaded.shown, "has no lock.json", hint)
    return read(path.read_bytes(), f"{loaded.source.reference}: lock.json")


def read(content: bytes, where: str) -> Lock:
    """The lock in a file. Raises: RecipeError with the first problem when it is not valid."""
    try:
        return Lock.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))[:80]
        message = f"is not a valid lock: {f'`{key}`: ' if key else ''}{first['msg'][:200]}"
        hint = "put back the lock.json that came with it, or leave out `--locked`"
        raise RecipeError.at(where, message, hint) from error


def differences(locked: Lock, today: dict[str, Any]) -> list[str]:
    """What differs from the lock, one line each, as far as it is known before loading anything."""
    here = Lock.model_validate(today)
    pairs: list[tuple[str, object, object]] = [
        ("the recipe's fingerprint", locked.fingerprint, here.fingerprint),
        ("the seed", locked.seed, here.seed),
        ("the GPU", locked.machine.gpu or "none", here.machine.gpu or "none"),
        *_processors(locked.machine, here.machine),
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
    for label, old, new in tables:
        names = sorted(old.keys() | new.keys()) if old else []
        pairs += [(f"{label}{name}", old.get(name), new.get(name)) for name in names]
    optional = ("CPU threads", "the preset")  # the lock of a recipe that was not run has neither
    return _lines([pair for pair in pairs if not (pair[0] in optional and pair[1] is None)])


def _processors(locked: Machine, here: Machine) -> list[tuple[str, object, object]]:
    """The CPUs where they did the arithmetic and both are recorded: their kinds of vector
    instructions decide the order of sums, and so the last digits."""
    if locked.gpu or here.gpu or not (locked.cpu and here.cpu):
        return []
    return [("the CPU", locked.cpu, here.cpu)]


def _lines(pairs: list[tuple[str, object, object]]) -> list[str]:
    """A line for each (name, value in the lock, value here) whose values differ."""
    return [
        f"{name}: {_short(old)} in the lock, {_short(new)} here"
        for name, old, new in pairs
        if old != new
    ]


def _used(versions: dict[str, str], on_gpu: bool) -> dict[str, str]:
    """Versions of the packages that a run uses: on a CPU without those for a GPU."""
    unused = () if on_gpu else packages.GPU_PACKAGES
    return {name: version for name, version in versions.items() if name not in unused}


def input_differences(locked: Lock, inputs: dict[str, str], data_revision: str | None) -> list[str]:
    """Loaded data, template or code that differ from the lock, one line each."""
    pairs: list[tuple[str, object, object]] = [
        (name, sha256, inputs.get(name)) for name, sha256 in locked.inputs.items()
    ]
    if locked.data_revision:
        pairs.append(("the data's commit", locked.data_revision, data_revision))
    return _lines(pairs)


def refuse_differences(lines: list[str]) -> None:
    """Raises: RecipeError with every difference, if there are any."""
    if lines:
        hint = "make them equal, or run without --locked: the numbers may then differ"
        problems = [Problem(line, "--locked") for line in lines[:-1]]
        raise RecipeError(problems=[*problems, Problem(lines[-1], "--locked", hint)])


def _short(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text[:12] if len(text) in (40, 64) else text

"""Merge `--set key=value` into the data of a recipe, and remember which flag set which key.

A key is dotted as in TOML. A value is TOML, or else taken as a text, so that a shell needs no
quotes for `--set model.name=unsloth/Phi-4`. Sections are merged, lists are replaced. The number of
a stage, or its name, stands for its place in the list: `--set stage.1.train.max_steps=30`. The keys
of a study come here as flags too, so what is refused here is refused in [set], [search] and
[matrix].
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tomli

from r1recipes.algorithms.base import (
    CPU_ONLY,
    GPU_ONLY,
    OTHER_NAMES,
    likely_preset,
    preset_gb,
)
from r1recipes.config.render import Loc, dotted, show
from r1recipes.config.suggest import section_at
from r1recipes.config.toml import MAX_DEPTH
from r1recipes.errors import Problem, R1RecipesError
from r1recipes.recipe.schema import Recipe

STAGE = re.compile(r"0*([1-9][0-9]{0,3})(?:-(.*))?", re.DOTALL)
"""How a stage is named: by its number, or as its folder, with its algorithm."""
BARE = ("cold_start", "eval", "lora", "preset", "train")
"""Sections whose keys messages also name without their section."""


def merge(
    file_data: dict[str, Any], overrides: list[str]
) -> tuple[dict[str, Any], dict[Loc, str], list[Problem]]:
    """The data of a file with `key=value` overrides merged in.

    `preset.KEY=...` without a preset's name sets the key in every preset. Returns the data, the
    flag that set each path, and a problem for each override that is not valid and was left out.
    """
    data, origins, problems = _merged(file_data, overrides)
    checked = [(override, _misnamed(override, file_data, data)) for override in overrides]
    misnamed = [problem for _, problem in checked if problem]
    if misnamed:
        named = [override for override, problem in checked if not problem]
        data, origins, problems = _merged(file_data, named)
    return data, origins, misnamed + problems


def _merged(
    file_data: dict[str, Any], overrides: list[str]
) -> tuple[dict[str, Any], dict[Loc, str], list[Problem]]:
    """As `merge`, whatever the stages are called."""
    data = copy(file_data)
    origins: dict[Loc, str] = {}
    problems: list[Problem] = []
    for override in overrides:
        flag = _flag(override)
        parsed = _parse(override)
        if isinstance(parsed, Problem):
            problems.append(parsed)
            continue
        for path, value in _leaves(*parsed):
            for target in _spread_over_presets(path, data):
                if blocked := _set(data, target, value):
                    problems.append(_blocked(blocked, data, flag, override.partition("=")[2]))
                origins[target] = flag
                _drop_other_name(data, target, origins)
    return data, origins, problems


@contextmanager
def as_typed(flags: Mapping[Loc, str]) -> Iterator[None]:
    """Errors within the context name what the user typed in place of the keys that it set.

    `flags` are by key, such as `--size` or `--set data.eval_size=500`: a hint becomes `--size 50`,
    or `--set data.eval_size=50`, where it was ``set `data.eval_size = 50` ``.
    """
    try:
        yield
    except R1RecipesError as error:
        error.problems = named_as_typed(error.problems, flags)
        raise


def named_as_typed(problems: Iterable[Problem], flags: Mapping[Loc, str]) -> list[Problem]:
    """The problems as `as_typed` words them."""
    return [_named_as_typed(problem, flags) for problem in problems]


def _named_as_typed(problem: Problem, flags: Mapping[Loc, str]) -> Problem:
    message, hint, where = problem.message, problem.hint or "", problem.where
    for loc, typed in flags.items():
        key, name = dotted(loc), re.escape(str(loc[-1]))
        is_bare = loc[0] in BARE or where == typed
        names = f"(?:{re.escape(key)}|{name})" if is_bare else re.escape(key)
        if not re.search(f"`{names}\\b", f"{message} {hint}"):
            continue
        where = where or typed
        is_set, flag = typed.startswith("--set "), typed.partition("=")[0]
        change = rf"(?:set|write|add|such as) `{names} = ([^`]*)`(?: in the preset)?"
        hint = re.sub(change, rf"`{flag}{'=' if is_set else ' '}\1`", hint)
        if not is_set:
            message, hint = (re.sub(f"`{names}`", f"`{flag}`", text) for text in (message, hint))
    return Problem(message, where, hint or None)


def copy(data: Any) -> Any:
    """A copy of plain data, so that the original stays as it is."""
    if isinstance(data, dict):
        return {key: copy(value) for key, value in data.items()}
    return [copy(value) for value in data] if isinstance(data, list) else data


def _blocked(path: Loc, data: dict[str, Any], flag: str, typed: str) -> Problem:
    """The problem with a key below one that cannot have it."""
    if path[0] == "stage" and isinstance(stages := data.get("stage"), list):
        numbers = " or ".join(f"`stage.{number}`" for number in range(1, len(stages) + 1))
        message = f"a stage is named by its number: {numbers or 'the recipe has none'}"
        return Problem(message, flag, "such as `--set stage.1.train.max_steps=30`")
    message = f"`{dotted(path)}` has a value and can have no keys"
    return Problem(message, flag, f"such as `--set {dotted(path)}={typed}`")


def _misnamed(override: str, before: dict[str, Any], after: dict[str, Any]) -> Problem | None:
    """The problem with a key such as `stage.1-dpo.train.max_steps` where stage 1 is `sft`; None
    where the name is right, or there is none.

    A stage is called by the algorithm that it has after all flags; the flag that sets its algorithm
    may also call it by the one of the file.
    """
    key = override.partition("=")[0]
    parts = _parts(key) or []
    match = STAGE.fullmatch(parts[1]) if len(parts) > 1 and parts[0] == "stage" else None
    if match is None or match[2] is None:
        return None
    number = int(match[1])
    algorithm = _algorithm(after, number)
    if algorithm is None or match[2] == algorithm:
        return None
    parsed = _parse(override)
    if not isinstance(parsed, Problem) and match[2] == _algorithm(before, number):
        if ("stage", number - 1, "algorithm") in dict(_leaves(*parsed)):
            return None
    right = dotted(("stage", f"{number}-{algorithm}", *parts[2:]))
    return Problem(
        f"stage {number} is `{number}-{algorithm}`, not `{parts[1]}`",
        _flag(override),
        f"write `{right}`, or `{dotted(('stage', str(number), *parts[2:]))}`",
    )


def _algorithm(data: Mapping[str, Any], number: int) -> str | None:
    """The algorithm of the stage with this number, as far as the data name one."""
    stages = data.get("stage")
    if not isinstance(stages, list) or number > len(stages):
        return None
    stage = stages[number - 1]
    algorithm = stage.get("algorithm") if isinstance(stage, dict) else None
    return algorithm if isinstance(algorithm, str) else None


def _parse(override: str) -> tuple[Loc, Any] | Problem:
    """The path and the value of `key=value`, or the problem with it."""
    key, equals, value = override.partition("=")
    flag = _flag(override)
    if not equals or not key.strip():
        return Problem("is not key=value", flag, "such as `--set train.max_steps=50`")
    path = path_of(key)
    if path is None:
        message = f"{show(key.strip())} is not a dotted key"
        return Problem(message, flag, "such as `--set train.max_steps=50`")
    try:
        parsed = tomli.loads(f"value = {value}")
        return path, parsed["value"] if len(parsed) == 1 else value
    except (ValueError, RecursionError):
        return path, value


def _flag(override: str) -> str:
    return "--set " + override.replace("\n", "\\n")


def path_of(key: str) -> Loc | None:
    """The parts of a dotted key as TOML reads it, or None if it is not a dotted key; the place of
    `stage.1`, or `stage.1-sft`, is 0."""
    parts = _parts(key)
    if parts is None:
        return None
    if len(parts) > 1 and parts[0] == "stage" and (number := STAGE.fullmatch(parts[1])):
        return ("stage", int(number[1]) - 1, *parts[2:])
    return tuple(parts)


def _parts(key: str) -> list[str] | None:
    """The parts of a dotted key as they are written, or None if it is not a dotted key."""
    if "\n" in key or key.count(".") > MAX_DEPTH:
        return None
    try:
        data = tomli.loads(f"{key} = 0")
    except ValueError:
        return None
    parts: list[str] = []
    value: Any = data
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return parts


def _leaves(path: Loc, value: Any) -> list[tuple[Loc, Any]]:
    """`train={beta=0.1}` sets `train.beta` and leaves the rest of [train] as it is."""
    if not isinstance(value, dict) or not value or len(path) > MAX_DEPTH:
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves((*path, key), inner)]


def _spread_over_presets(path: Loc, data: dict[str, Any]) -> list[Loc]:
    """The paths that an override sets: with `preset.KEY` that of each preset that has the key."""
    presets = data.get("preset")
    if path[0] != "preset" or len(path) != 2 or not isinstance(presets, dict):
        return [path]
    assert isinstance(path[1], str)
    settings = section_at(("preset", "8GB"), Recipe)
    if path[1] in presets or not settings:
        return [path]
    is_preset = likely_preset(path[1]) or preset_gb(path[1]) is not None
    if path[1] not in settings.model_fields and is_preset:
        return [path]
    names = [name for name, preset in presets.items() if isinstance(preset, dict)]
    if path[1] in GPU_ONLY:
        names = [name for name in names if name != "cpu"]
    elif path[1] in CPU_ONLY:
        names = [name for name in names if name == "cpu"]
    return [("preset", name, path[1]) for name in names] or [path]


def _drop_other_name(data: dict[str, Any], path: Loc, origins: dict[Loc, str]) -> None:
    """Remove the key that sets the same thing under its older or newer name: the flag replaces it,
    unless it has set both."""
    if len(path) != 3 or path[0] != "preset" or path[2] not in OTHER_NAMES:
        return
    other = (*path[:2], OTHER_NAMES[path[2]])
    presets = data.get("preset")
    preset = presets.get(path[1]) if isinstance(presets, dict) else None
    if isinstance(preset, dict) and origins.get(other) != origins[path]:
        preset.pop(other[2], None)
        origins.pop(other, None)


def _set(data: dict[str, Any], path: Loc, value: Any) -> Loc | None:
    """Set the value, or return the path of a key above it that has a value already."""
    table: Any = data
    for depth, part in enumerate(path[:-1], 1):
        if isinstance(table, dict) and isinstance(part, str):
            table = table.setdefault(part, [] if isinstance(path[depth], int) else {})
        elif isinstance(table, list) and isinstance(part, int) and part < len(table):
            table = table[part]
        else:
            return path[: depth - 1]
        if not isinstance(table, dict | list):
            return path[:depth]
    if not isinstance(table, dict):
        return path[:-1]
    table[path[-1]] = value
    return None

"""One cell of a study: a recipe with fixed overrides, and the keys that are searched on it.

A `Cell` is all that a worker needs to know; it travels through the database, so a worker reads no
study file. No file is read here: the text of the recipe is a part of the cell.
"""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from r1recipes import planning
from r1recipes.config import suggest
from r1recipes.config.render import show, toml_value
from r1recipes.machine import settings
from r1recipes.machine.gpu import Gpu
from r1recipes.planning.plan import Plan
from r1recipes.recipe import loading, overrides
from r1recipes.recipe.loading import Loaded
from r1recipes.recipe.schema import Recipe
from r1recipes.runs import origin
from r1recipes.study.schema import Range, Study

MAX_PART = 40
"""Characters of a cell's name for each key; the name is that of folders."""
MAX_NAME_BYTES = 200
"""Bytes of a cell's whole name; a file system takes 255, and a run folder adds the trial's number
and the fingerprint."""


class Cell(BaseModel):
    """One recipe with fixed overrides, and the keys that are searched on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    name: str
    """Empty if the study has one cell only."""
    index: int
    axes: dict[str, Any]
    """Key of [matrix] -> its value in this cell."""
    recipe_path: str
    recipe_text: str
    overrides: list[str]
    preset: str | None
    search: dict[str, Range]
    settings: Study
    num_trials: int

    @property
    def full_name(self) -> str:
        return f"{self.study}/{self.name}" if self.name else self.study

    def load(self, params: dict[str, Any] | None = None) -> Loaded:
        """The recipe of a trial. Raises: RecipeError when the values do not go together."""
        flags = self.overrides + assignments(params or {})
        return loading.load_text(self.recipe_text, Path(self.recipe_path), flags)

    def own_values(self) -> dict[str, Any]:
        """The recipe's own values of the searched keys, where they are within their ranges."""
        data = self.load().recipe.model_dump(mode="json")
        values = {key: _look_up(data, key) for key in self.search}
        return {key: value for key, value in values.items() if _within(value, self.search[key])}


def plan_trial(cell: Cell, loaded: Loaded, cores: int, card: Gpu | None, *, offline: bool) -> Plan:
    """The plan of a trial on this machine; `card` as it is before a trial loads anything.

    Raises: PlanError; planning.DoesNotFit if the only reason is that memory is short; RecipeError
    for a model that cannot be trained on.
    """
    return planning.make(
        loaded.recipe,
        planning.Target.here(card, cores),
        base_dir=loaded.path.parent,
        preset=cell.preset,
        offline=offline,
        origin=origin.of_recipe(loaded, settings.load().runs_dir),
    )


def assignments(params: dict[str, Any]) -> list[str]:
    """Values of keys in the form of `--set`: `key=value`."""
    return [f"{key}={toml_value(value)}" for key, value in params.items()]


def is_whole(key: str) -> bool:
    """Whether a recipe key takes whole numbers."""
    path = overrides.path_of(key) or ()
    if len(path) == 2 and path[0] == "preset":
        path = ("preset", "cpu", path[1])
    field = suggest.field_at(path, Recipe)
    return field is not None and field.annotation in (int, int | None)


def cell_name(axes: dict[str, Any]) -> str:
    """`qwen2.5-7b,beta=0.1,seed=2`: short, readable, and fit for a file name."""
    parts = []
    for key, value in axes.items():
        text = Path(value).stem if key == "recipe" else f"{key.split('.')[-1]}={value}"
        if len(text) > MAX_PART:  # such as a prompt
            text = f"{text[: MAX_PART - 9]}-{_digest(text)}"
        parts.append("".join(c if c.isalnum() or c in "=.-+_" else "_" for c in text))
    name = ",".join(parts)
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    short = name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore")
    return f"{short}-{_digest(repr(axes))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(old: Cell, new: Cell) -> list[str]:
    """How the search space and the recipe of two cells differ, one line each.

    The number of trials, the sampler and the pruner are left out: a study may go on with others.
    """
    lines = []
    for key in sorted(old.search.keys() | new.search.keys()):
        before, after = (_describe_range(cell.search.get(key)) for cell in (old, new))
        if before != after:
            lines.append(f"[search] `{key}`: {before} -> {after}")
    if old.settings.metrics != new.settings.metrics:
        metrics = (", ".join(cell.settings.metrics) for cell in (old, new))
        lines.append("metric: " + " -> ".join(metrics))
    if old.settings.directions != new.settings.directions:
        lines.append(f"direction: {old.settings.directions} -> {new.settings.directions}")
    lines += _recipe_differences(old, new)
    if old.preset != new.preset:
        lines.append(f"preset: {old.preset} -> {new.preset}")
    return lines


def _recipe_differences(old: Cell, new: Cell) -> list[str]:
    """One line for each key of the recipes that differs, unless it is searched."""
    lines = []
    before, after = (_leaves(cell.load().recipe.model_dump(mode="json")) for cell in (old, new))
    searched = {leaf for key in new.search for leaf in (key, key.split(".")[-1])}
    for key in sorted(before.keys() | after.keys()):
        is_searched = key in searched or (
            key.startswith("preset.") and key.split(".")[-1] in searched
        )
        if before.get(key) != after.get(key) and key != "description" and not is_searched:
            lines.append(f"recipe `{key}`: {show(before.get(key))} -> {show(after.get(key))}")
    return lines


def _describe_range(searched: Range | None) -> str:
    if searched is None:
        return "absent"
    keys = searched.model_dump(exclude_defaults=True)
    return "{ " + ", ".join(f"{key} = {toml_value(value)}" for key, value in keys.items()) + " }"


def _leaves(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of everything in nested data that is not a section with keys."""
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _look_up(data: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; `preset.KEY` is the value that all presets share, or None. A
    reward that the recipe does not name has the weight 0."""
    path = overrides.path_of(key) or ()
    if len(path) == 2 and path[0] == "preset" and path[1] not in data["preset"]:
        values = [preset.get(path[1]) for preset in data["preset"].values()]
        return values[0] if all(value == values[0] for value in values) else None
    if path[:1] == ("rewards",):
        return data.get("rewards", {}).get(path[-1], 0.0)
    value: Any = data
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) and part < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _within(value: Any, searched: Range) -> bool:
    if searched.choices is not None:
        return value in searched.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    low, high = searched.bounds()
    steps = (value - low) / searched.step if searched.step else 0.0
    return low <= value <= high and abs(steps - round(steps)) < 1e-9

"""Write the text of a new recipe: every key of the schema with its meaning and a sound first value.

The values come from the shipped recipe with the nearest model. Limits: nearest by size, not by
behaviour; nothing is downloaded or measured, so only `plan` can tell whether it fits.
"""

import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from r1recipes import machine
from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.algorithms.base import CPU_ONLY, GPU_ONLY, Preset, Train, preset_bytes
from r1recipes.config import render
from r1recipes.config.render import toml_key
from r1recipes.config.suggest import models_in
from r1recipes.recipe import loading, references
from r1recipes.recipe.schema import BUILTIN_MODELS, Recipe, of_algorithm

WIDTH = 98
PASS_KEYS = ("per_device_train_batch_size", "gpu_memory_utilization")
"""Keys of a preset that are left to the planner where no preset of the algorithm was measured."""
SCHEMAS = {"recipe": "recipes", "study": "sweeps"}
"""What a schema is of -> the folder that has it."""
_SCHEMA = re.compile(rf"#:schema [^\n]*\b({'|'.join(SCHEMAS)})\.schema\.json(?=\s)")
DEFAULT, EXAMPLE = "default", "example; not set by default"
"""How the line of a key that is not set ends."""
HEAD = (
    "A line that begins with # and no space is not set. It ends with what it shows: the default, "
    "which holds, or an example. Take away the # to set it."
)


def schema_line(folder: Path, kind: str = "recipe") -> str:
    """The line that tells an editor the schema of a file in `folder`: a path from there where the
    file lies in the clone that r1recipes runs from, or else the URL of the installed file.

    `kind`: one of SCHEMAS.
    """
    schema = machine.shipped_folder(SCHEMAS[kind]).resolve() / f"{kind}.schema.json"
    folder = folder.resolve()
    if "_data" not in schema.parts and folder.is_relative_to(schema.parents[1]):
        path = Path(os.path.relpath(schema, folder)).as_posix()
        return f"#:schema {path if path.startswith('../') else './' + path}"
    return f"#:schema {schema.as_uri()}"


def with_schema_of(text: str, folder: Path) -> str:
    """The text of a recipe or a study, with its `#:schema` line, if it has one, as it holds in
    `folder`."""
    return _SCHEMA.sub(lambda match: schema_line(folder, match[1]), text, count=1)


def commented(
    base: Recipe,
    model: str,
    folder: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> str:
    """A recipe for `model` with the values of `base` and each key's meaning above it.

    Keys that `base` sets to another value than the default are lines of the recipe. The others
    stand there with their defaults, or with an example, behind a `#` without a space, and end with
    which of the two it is. A revision and a chat template belong to the model of `base` and are
    left out. `folder`: where the file will lie, for its `#:schema` line; None leaves it out.
    `notes`: name of a preset -> what is known of its memory. The text loads to a valid recipe.
    """
    changes = {"name": model, "revision": None, "chat_template": None}
    section = base.model.model_copy(update=changes)
    title = ALGORITHMS[base.algorithm].title
    base = base.model_copy(update={"model": section, "description": f"{title} for {model}"})
    lines = [schema_line(folder)] if folder else []
    lines += [*_comment(HEAD), ""]
    for name, field in type(base).model_fields.items():
        if name == "algorithm":  # the default of a file that does not name one
            field = copy(field)
            field.default = Recipe.model_fields[name].default
        if not models_in(field.annotation) and name != "rewards":
            lines += _key(name, field, getattr(base, name))
    for name, field in type(base).model_fields.items():
        value = getattr(base, name)
        if name == "rewards":
            lines += ["", *_comment(_text(field)), "[rewards]"]
            for key, weight in value.items():
                lines.append(f"{toml_key(key)} = {render.toml_value(weight)}")
        elif name == "preset":
            lines += ["", *_comment(_text(field) + " " + _doc(Preset))]
            lines += _presets(value, notes or {})
        elif name == "examples" and ALGORITHMS[base.algorithm].samples:
            continue  # the section is for others
        elif name == "stage":
            end = "" if value else f" ({EXAMPLE.capitalize()}:)"
            lines += ["", *_comment(_text(field) + end), *([] if value else STAGE)]
            for number, stage in enumerate(value):
                lines += render.render_section((name, number), stage)
        elif inner := models_in(field.annotation):
            lines += _section(name, inner[0], value)
    return "\n".join(lines) + "\n"


STAGE = ("#[[stage]]", '#algorithm = "sft"')
"""A stage as a comment; its other sections are like those of the recipe."""


def for_algorithm(base: Recipe, name: str) -> Recipe:
    """A recipe with another algorithm. [train] keeps the values of keys that every algorithm has
    and that this one takes, unless its own default is another; the others are the algorithm's own
    defaults. Where it takes another number of completions of a prompt, a step keeps as many as
    before. Where its passes take other memory, the planner chooses their size."""
    if base.algorithm == name:
        return base
    keys = ALGORITHMS[name].train
    own = keys.model_fields
    shared = [key for key, f in Train.model_fields.items() if own[key].default == f.default]
    train = {key: getattr(base.train, key) for key in shared}
    refused = {key for key, _, _ in keys.model_construct(**train).problems()}
    train = {key: value for key, value in train.items() if key not in refused}
    changed = base.model_dump(exclude_none=True) | {"algorithm": name, "train": train}
    if not ALGORITHMS[name].has_dropout:
        changed["lora"].pop("lora_dropout")
    for size, preset in changed["preset"].items():
        _fit(preset, ALGORITHMS[name], on_gpu=size != "cpu")
    return of_algorithm(name).model_validate(changed)


def _fit(preset: dict[str, Any], algorithm: Algorithm, *, on_gpu: bool) -> None:
    """Change the keys of a preset to those that an algorithm takes."""
    if (group := algorithm.group_size) and isinstance(preset["prompts_per_step"], int):
        completions = preset["prompts_per_step"] * preset["num_generations"]
        preset["prompts_per_step"] = math.ceil(completions / group)
    preset["num_generations"] = group or preset["num_generations"]
    has_other_passes = not algorithm.samples or algorithm.logit_bytes
    if on_gpu and has_other_passes and "unsloth" in algorithm.backends:
        preset |= dict.fromkeys(PASS_KEYS, "auto")
    elif on_gpu and algorithm.logit_bytes:  # the planner chooses nothing for plain TRL
        preset["per_device_train_batch_size"] = algorithm.step(Preset.model_validate(preset)).unit


def _section(name: str, kind: type[BaseModel], value: BaseModel | None) -> list[str]:
    """The lines of a section; all of them are comments if `value` is None."""
    lines = ["", *_comment(_doc(kind)), f"[{name}]"]
    inner: list[str] = []
    for key, field in kind.model_fields.items():
        key_value = getattr(value, key) if value is not None else None
        if sections := models_in(field.annotation):
            inner += _section(f"{name}.{key}", sections[0], key_value)
        else:
            lines += _key(key, field, key_value)
    if value is None:
        lines = [line if line.startswith("#") or not line else f"#{line}" for line in lines]
    return lines + inner


def _presets(presets: dict[str, Preset], notes: Mapping[str, str]) -> list[str]:
    """The lines of the presets by size; only the first one has the meaning of each key."""
    lines: list[str] = []
    for number, name in enumerate(sorted(presets, key=preset_bytes)):
        lines += [""] * (number > 0) + _comment(notes.get(name, "")) + [f"[preset.{name}]"]
        values = presets[name].written()
        for key, field in Preset.model_fields.items():
            if key not in values or key in (GPU_ONLY if name == "cpu" else CPU_ONLY):
                continue
            value = values[key]
            if number == 0:
                lines += _key(key, field, value)
            elif value != field.default:
                lines.append(f"{key} = {render.toml_value(value)}")
    return lines


def _key(key: str, field: FieldInfo, value: Any) -> list[str]:
    """The meaning of a key and its line, which is a comment if the value is the default."""
    default = None if field.is_required() else field.default
    shown = next((v for v in (value, default, *(field.examples or ())) if v is not None), "...")
    text = f"{toml_key(key)} = {render.toml_value(shown)}"
    if value is not None and value != default:
        return [*_comment(_text(field)), text]
    text = "\n".join(f"#{line}" for line in text.split("\n"))
    end = EXAMPLE if shown != default else DEFAULT
    if len(marked := f"{text}  # {end}") <= WIDTH and "\n" not in text:
        return [*_comment(_text(field)), marked]
    return [*_comment(f"{_text(field)} ({end.capitalize()}:)"), text]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _doc(kind: type[BaseModel]) -> str:
    return " ".join((kind.__doc__ or "").split())


class Shape(Protocol):
    """The shape of a model, of which the number of parameters is needed here."""

    @property
    def parameters(self) -> int: ...


FindShape = Callable[[str], Shape | None]
"""A model's name -> the same object for all names of one model; None for an unknown model."""


def base_for(model: str, find_shape: FindShape, family: str | None = None) -> Path:
    """The shipped recipe with the nearest model: the same one, the same family, or by size.

    `family`: the model's, such as `qwen`, where its config.json tells; else its name does. Size is
    that of the shape, or else what the name says, such as `3B`; a name without either is taken as
    8B, the middle. Families weigh more than sizes up to twofold. Recipes whose problems are made on
    the spot are left out: a new recipe begins with GSM8K. So are, but for their own model, recipes
    of which nothing was measured.
    """
    recipes = {path: loading.load(path).recipe for path in loading.shipped()}
    for path, recipe in recipes.items():
        if recipe.model.name in BUILTIN_MODELS and recipe.model.name == model:
            return path
    names = {
        path: recipe.model.name
        for path, recipe in recipes.items()
        if not recipe.data.name.startswith(references.MADE_HERE)
        and (is_measured(path) or _is_same(model, recipe.model.name, find_shape))
    }
    family = family or _family(model)
    return min(
        names, key=lambda path: (_distance(model, names[path], find_shape, family), path.name)
    )


def _distance(model: str, other: str, find_shape: FindShape, family: str) -> float:
    sizes = sorted((_billions(model, find_shape), _billions(other, find_shape)))
    if _is_same(model, other, find_shape):
        return -1.0
    return sizes[1] / sizes[0] - (family == _family(other))


def _is_same(model: str, other: str, find_shape: FindShape) -> bool:
    return find_shape(model) is not None and find_shape(model) is find_shape(other)


def is_measured(path: Path) -> bool:
    """Whether any preset of a shipped recipe has a proof."""
    return any((path.parent / "proofs").glob(f"{path.stem}.*GB.json"))


def _family(model: str) -> str:
    """`qwen`, `llama`, `mistral` or `phi`: the first word of a repository's name."""
    word = re.match(r"[a-z]+", model.lower().rpartition("/")[2].removeprefix("meta-"))
    return word[0] if word else model


def _billions(model: str, find_shape: FindShape) -> float:
    """Billions of parameters; 8.0 if neither the catalogue nor the name tells."""
    shape = find_shape(model)
    if shape:
        return shape.parameters / 1e9
    size = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", model.lower())
    if not size or float(size[1]) == 0:
        return 8.0
    return float(size[1]) / (1 if size[2] == "b" else 1000)

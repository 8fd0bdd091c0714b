"""The keys, presets and forms of a result that a shell completes on a command line.

Keys are those of the JSON Schema that comes with the recipes, since pydantic takes longer to import
than a Tab may take. Limits: whatever cannot be read has no names, and nothing is said of it; of a
bundle, or of what is elsewhere, nothing is read; a name that needs quotes is left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r1recipes.machine import shipped_folder

MAX_BYTES = 1_000_000
"""Of a file that is read for a Tab; recipes have no more, see `recipe.loading`."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that needs no quotes in TOML."""


def preset_names(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """The presets of the recipe on the line."""
    return [name for name in _presets(recipe_data(parsed_args)) if name.startswith(prefix)]


def recipe_keys(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """The keys that `--set` takes, each with its `=`: also `preset.KEY`, which stands for all
    presets, and those of the presets and stages of the recipe on the line."""
    data = recipe_data(parsed_args)
    schema = _read_json(shipped_folder("recipes") / "recipe.schema.json")
    return [f"{key}=" for key in _keys(schema, data, prefix) if key.startswith(prefix)]


def export_forms(prefix: str, **_: object) -> list[str]:
    """What `export --to` takes; the types of a gguf or ollama form once its name is typed."""
    from r1recipes.recipe.targets import GGUF_TYPES, KINDS

    names = ["hub:" if kind == "hub" else kind for kind in KINDS]
    for kind in ("gguf", "ollama"):
        if not prefix.startswith(kind):
            continue
        typed = prefix.rpartition(",")[0] if kind == "gguf" else ""
        begin = f"{typed}," if typed else f"{kind}:"
        used = typed.partition(":")[2].split(",")
        names += [f"{begin}{name}" for name in GGUF_TYPES if name not in used]
    return [name for name in names if name.startswith(prefix)]


def recipe_data(args: argparse.Namespace) -> dict[str, Any]:
    """The data of the recipe on the line, or of the first recipe of the study there; empty where
    there is none that can be read."""
    listed = getattr(args, "recipes", None) or [None]
    name, kind = getattr(args, "recipe", None) or listed[-1], "recipes"
    if name is None:
        name, kind = getattr(args, "study", None), "sweeps"
    if not isinstance(name, str):
        return {}
    path = _path(name, kind)
    data = _read_toml(path)
    recipes = _table(data.get("matrix")).get("recipe")
    inner = data.get("recipe") or (recipes[0] if isinstance(recipes, list) and recipes else None)
    if not isinstance(inner, str):
        return data
    beside = path.parent / inner
    return _read_toml(beside if beside.is_file() else _path(inner, "recipes"))


def _path(name: str, kind: str) -> Path:
    """The file that a name on the line means: a shipped one, a file, or the recipe in a folder."""
    path, shipped = Path(name).expanduser(), shipped_folder(kind) / f"{name}.toml"
    if not path.is_file() and "/" not in name and shipped.is_file():
        return shipped
    return path / "recipe.toml" if path.is_dir() else path


def _keys(schema: Mapping[str, Any], data: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, node in _table(schema.get("properties")).items():
        if name == "preset":
            yield from _keys_of_presets(node, data)
        elif name == "stage":
            yield from _keys_of_stages(node, data, prefix)
        elif _BARE.fullmatch(name):
            yield from _leaves(node, name)


def _keys_of_presets(node: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    for section in _table(node.get("patternProperties")).values():
        for name in ("preset", *(f"preset.{name}" for name in _presets(data))):
            yield from _leaves(section, name)


def _keys_of_stages(node: Mapping[str, Any], data: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The keys of each stage of a recipe by its number, or where one is typed by its name."""
    stages = data.get("stage")
    for number, stage in enumerate(stages if isinstance(stages, list) else (), 1):
        if not isinstance(stage, dict):
            continue
        algorithm = stage.get("algorithm")
        is_named = prefix.startswith(f"stage.{number}-") and isinstance(algorithm, str)
        name = f"{number}-{algorithm}" if is_named else f"{number}"
        yield from _leaves(_table(node.get("items")), f"stage.{name}")


def _leaves(node: Mapping[str, Any], name: str) -> Iterator[str]:
    """The keys in a section of the schema, or the key itself where it is no section."""
    sections = [node, *(_table(each) for each in node.get("anyOf", ()))]
    keys = [_table(each.get("properties")) for each in sections]
    if not any(keys):
        yield name
    for key, inner in (pair for each in keys for pair in each.items()):
        if _BARE.fullmatch(key):
            yield from _leaves(inner, f"{name}.{key}")


def _presets(data: Mapping[str, Any]) -> list[str]:
    return [name for name in _table(data.get("preset")) if _BARE.fullmatch(name)]


def _read_toml(path: Path) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(_text(path))
    except (OSError, ValueError, RecursionError):
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _table(json.loads(_text(path)))
    except (OSError, ValueError, RecursionError):
        return {}


def _text(path: Path) -> str:
    """Raises: OSError for what is no file, which may otherwise be waited for; ValueError for what
    is no text, or too long."""
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(path)
    return content.decode("utf-8-sig")


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

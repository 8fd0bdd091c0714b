"""JSON Schema of a file's model, in the form that TOML tools of editors understand.

Draft 7, with every definition written out in its place: the tools read newer drafts and `$ref` only
in part. The schema has no rules over two keys; those are checked when a file is loaded.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def of(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The schema of `model`, with its keys, types, ranges, defaults and descriptions."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    plain = _plain(schema, definitions)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title} | plain


def _plain(node: Any, definitions: dict[str, Any]) -> Any:
    """Write out references, and leave out null, which TOML does not have."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _plain(definitions[name] | rest, definitions)
    if "anyOf" in node:
        choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
        if len(choices) == 1:
            rest = {key: value for key, value in node.items() if key != "anyOf"}
            return _plain(choices[0] | rest, definitions)
    plain: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties"):
            plain[key] = {name: _plain(inner, definitions) for name, inner in value.items()}
        elif key == "default" and (value is None or isinstance(value, dict)):
            continue  # a section is not written out by default
        elif key == "const":
            plain["enum"] = [value]  # editors complete the values of an enum
        elif key == "propertyNames":
            continue  # patternProperties says the same
        elif key != "title":
            plain[key] = _plain(value, definitions)
    if "patternProperties" in plain:
        plain["additionalProperties"] = False
    return plain


def merged(models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The schemas of the keys of several models, by their names, as those of one section."""
    keys: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        for key, schema in of(model, name)["properties"].items():
            keys.setdefault(key, {})[name] = schema
    return {key: _one(schemas, len(models)) for key, schemas in keys.items()}


def _one(schemas: dict[str, Any], num_models: int) -> dict[str, Any]:
    """One schema for a key from those of the models that have it, with the values of all."""
    first: dict[str, Any] = next(iter(schemas.values()))
    text: str = first["description"]
    if len(schemas) < num_models:
        text = f"{', '.join(schemas)}: {text}"
    one = first | {"description": text}
    if all("enum" in schema for schema in schemas.values()):
        values = [value for schema in schemas.values() for value in schema["enum"]]
        one["enum"] = list(dict.fromkeys(values))
    defaults = {name: schema.get("default") for name, schema in schemas.items()}
    if any(default != first.get("default") for default in defaults.values()):
        names = ", ".join(f"{default} for {name}" for name, default in defaults.items())
        del one["default"]
        one["description"] += f" Default: {names}."
    return one

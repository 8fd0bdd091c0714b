"""JSON Schema of a recipe or a study, in the form that the TOML editors' tools understand.

Draft 7, with every definition written out in its place: the tools read newer drafts and `$ref` only
in part. What needs two keys to decide (`consistency`) an editor cannot see; `check` does.
"""

from typing import Any

from pydantic import BaseModel


def of(model: type[BaseModel], title: str = "recipe") -> dict[str, Any]:
    """The schema of `model`, with its keys, types, ranges, defaults and descriptions."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    plain = _plain(schema, definitions)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title} | plain


def _plain(node: Any, definitions: dict[str, Any]) -> Any:
    """Write out references, and leave out what TOML has no word for: null."""
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
    plain = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties"):
            plain[key] = {name: _plain(inner, definitions) for name, inner in value.items()}
        elif key == "default" and (value is None or isinstance(value, dict)):
            continue  # a section is not written out by default
        elif key == "const":
            plain["enum"] = [value]  # of which editors offer completions
        elif key == "propertyNames":
            continue  # said by patternProperties
        elif key != "title":
            plain[key] = _plain(value, definitions)
    if "patternProperties" in plain:
        plain["additionalProperties"] = False
    return plain

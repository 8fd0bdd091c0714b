"""Turn what pydantic found wrong into messages that say where, what was expected, and a way out."""

import difflib
import json
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from r1recipes.errors import Problem

Loc = tuple[str | int, ...]

# What people know from other tools, and what it is called or replaced by here.
FOREIGN = {
    "bf16": "remove it: the card decides",
    "fp16": "remove it: the card decides",
    "gradient_accumulation_steps": "remove it: it follows from `per_device_train_batch_size`",
    "kl_coef": "it is called `train.beta`",
    "logging_steps": "remove it: every step is logged",
    "lora_r": "it is called `lora_rank` and belongs in each preset",
    "lr": "it is called `train.learning_rate`",
    "max_prompt_length": "remove it: a prompt gets `max_seq_length` - `max_completion_length`",
    "num_train_epochs": "set `train.max_steps`",
    "r": "it is called `lora_rank` and belongs in each preset",
    "reward_funcs": "write `name = weight` lines in [rewards]",
    "reward_weights": "write `name = weight` lines in [rewards]",
    "use_vllm": "remove it: vLLM is used wherever there is a GPU",
}


def explain(
    errors: list[dict[str, Any]],
    model: type[BaseModel],
    where: Callable[[Loc, bool], str | None],
) -> list[Problem]:
    """One Problem for each error of a validation of `model`, in the order of the file.

    `where(path, at_key)` gives `file:line:column` of a key or, with at_key False, of its value.
    """
    problems = []
    for error in _without_echoes(errors):
        loc = tuple(part for part in error["loc"] if part != "[key]")
        if error["type"] == "refused":
            problems += _refused(error, loc, where)
            continue
        at_key = error["type"] == "extra_forbidden" or "[key]" in error["loc"]
        message, hint = _message(error, loc, model)
        problems.append(Problem(message, where(loc, at_key), hint))
    problems = list(dict.fromkeys(_once_a_flag(problem) for problem in problems))
    return sorted(problems, key=lambda problem: _order(problem.where))


def _refused(
    error: dict[str, Any], loc: Loc, where: Callable[[Loc, bool], str | None]
) -> list[Problem]:
    """Problems that the schema words itself; a key with a leading `/` is counted from the top."""
    problems = []
    for key, message, hint in error["ctx"]["problems"]:
        start = () if key.startswith("/") else loc
        path = start + tuple(part for part in key.lstrip("/").split(".") if part)
        problems.append(Problem(message, where(path, False), hint))
    return problems


def _without_echoes(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out errors that only follow from another one.

    A misspelt key is unknown, and the one that was meant is missing. Settings right below [preset]
    are wrong as names and as values, however many there are.
    """
    in_preset = [error for error in errors if error["loc"][:1] == ("preset",)]
    misnamed = {error["loc"][:2] for error in errors if "[key]" in error["loc"]}
    valueless = {error["loc"] for error in in_preset if error["type"] == "model_type"}
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]

    def echo(refused: dict[str, Any], problem: tuple[str, str, str]) -> bool:
        path = (*refused["loc"], *problem[0].split("."))
        return problem[1].endswith("is missing") and _misspelt(path, unknown)

    kept, nameless = [], False
    for error in errors:
        place = error["loc"][:2]
        if error["type"] == "missing" and _misspelt(error["loc"], unknown):
            continue
        if error["type"] == "refused":
            found = error.get("ctx", {}).get("problems", [])
            kept += [error | {"ctx": {"problems": [p]}} for p in found if not echo(error, p)]
            continue
        if error["loc"] in misnamed and isinstance(error["input"], dict):
            continue
        if place in misnamed & valueless:
            if not nameless:
                kept.append(error | {"type": "nameless_preset", "loc": (*place, "[key]")})
            nameless = True
        else:
            kept.append(error)
    return kept


def _misspelt(missing: Loc, unknown: list[Loc]) -> bool:
    near = [str(loc[-1]) for loc in unknown if loc[:-1] == missing[:-1]]
    return bool(difflib.get_close_matches(str(missing[-1]), near, 1, 0.8))


def _once_a_flag(problem: Problem) -> Problem:
    """`--set preset.KEY=..` is wrong in every preset alike: leave the presets' names out."""
    flag = re.match(r"--set preset\.([a-z_0-9]+)=", problem.where or "")
    if not flag:
        return problem
    nameless = [
        re.sub(r"`preset\.\w+\.(\w+)`", r"`preset.\1`", text or "")
        for text in (problem.message, problem.hint)
    ]
    return Problem(nameless[0], problem.where, nameless[1])


def _message(error: dict[str, Any], loc: Loc, model: type[BaseModel]) -> tuple[str, str | None]:
    kind, given, ctx = error["type"], error.get("input"), error.get("ctx", {})
    key = "`" + dotted(loc) + "`"
    if kind == "extra_forbidden":
        return _unknown(loc, model, given)
    if kind == "missing":
        return f"{key} is missing", f"add {_example(loc, model)}"
    if kind == "unknown_name":
        name = str(loc[-1] if "[key]" in error["loc"] else given)
        return f"{ctx['what']} {show(name)}", _nearest_name(name, ctx["known"], model)
    if kind == "literal_error":
        expected = ctx["expected"].replace("'", '"')
        hint = _nearest_literal(given, expected) or f"such as {_example(loc, model)}"
        return f"{key} must be {expected}, not {show(given)}", hint
    if kind == "nameless_preset":
        message = f"`{loc[1]}` stands in [preset] itself, which has a section for each size of card"
        return message, "write `[preset.24GB]`, by the memory of the card, above its settings"
    if kind == "string_pattern_mismatch" and loc[:1] == ("preset",) and len(loc) == 2:
        return _preset_name(str(loc[1]))
    message = f"{key} {_expected(kind, ctx, error['msg'])}, not {show(given)}"
    return message, _type_hint(kind, given, loc) or f"such as {_example(loc, model)}"


def _unknown(loc: Loc, model: type[BaseModel], given: Any) -> tuple[str, str]:
    if isinstance(given, dict):
        known = [name for name in model.model_fields if _is_section(name, model)]
        close = difflib.get_close_matches(str(loc[-1]), known, 1, 0.5)
        hint = f"did you mean `[{close[0]}]`?" if close else "remove it; known: " + ", ".join(known)
        return f"unknown section [{dotted(loc)}]", hint
    return f"unknown key `{dotted(loc)}`", _nearest_key(loc, model)


def _is_section(name: str, model: type[BaseModel]) -> bool:
    field = model.model_fields.get(name)
    is_table = field is not None and typing.get_origin(field.annotation) is dict
    return is_table or (field is not None and bool(models_in(field.annotation)))


def _nearest_name(name: str, known: list[str], model: type[BaseModel]) -> str:
    if _is_section(name, model):
        return f"`{name}` is a section of its own: write `[{name}]`"
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(known)


def _preset_name(name: str) -> tuple[str, str]:
    from r1recipes import catalog

    size = re.fullmatch(r"0*([1-9]\d{0,3})[\s_-]*(g|gb|gib)?", name.strip().lower())
    card = catalog.find_gpu(name)
    likely = size[1] + "GB" if size else f"{card.sold_gb}GB" if card else None
    if name.strip().lower() == "cpu":
        likely = "cpu"
    hint = "name it by the memory of the card, such as `8GB` or `24GB`, or `cpu`"
    message = f"{show(name)} is not a preset's name"
    return message, f"did you mean `[preset.{likely}]`?" if likely else hint


_EXPECTED = {
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text in quotes",
    "list_type": "must be a list in brackets",
    "dict_type": "must be a section",
    "model_type": "must be a section",
    "finite_number": "must be a finite number",
    "string_too_short": "must have a character",
    "string_pattern_mismatch": "must be one line of text without spaces around it",
    "too_short": "must have an entry",
}


def _expected(kind: str, ctx: dict[str, Any], fallback: str) -> str:
    if "must" in ctx:
        return f"must {ctx['must']}"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    for name, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if name in ctx:
            return f"must be {word} {ctx[name]:.15g}"
    return f"is not valid ({fallback})"


def _type_hint(kind: str, given: Any, loc: Loc) -> str | None:
    if kind in ("int_type", "float_type", "bool_type") and isinstance(given, str):
        number = r"[+-]?\d+" if kind == "int_type" else r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?"
        wanted = r"true|false" if kind == "bool_type" else number
        return f"remove the quotes: `{given}`" if re.fullmatch(wanted, given) else None
    if kind == "bool_type" and isinstance(given, int | float) and given in (0, 1):
        return f"write `{'true' if given else 'false'}`"
    if kind == "int_type" and isinstance(given, float) and abs(given) < 1e15:
        return f"write `{round(given)}`"
    if kind == "list_type" and given == "all-linear":
        return "remove this line: all linear layers are the default"
    if kind in ("dict_type", "model_type"):
        header = f"[{dotted(loc)}]"
        single = isinstance(given, list) and given and isinstance(given[0], dict)
        return f"write `{header}`" + (" in single brackets" if single else ", with its keys below")
    return None


def _nearest_literal(given: Any, expected: str) -> str | None:
    known = re.findall(r'"([^"]*)"', expected)
    close = difflib.get_close_matches(given, known, 1, 0.5) if isinstance(given, str) else []
    if isinstance(given, bool) and "none" in known and not given:
        close = ["none"]
    return f'did you mean "{close[0]}"?' if close else None


def _nearest_key(loc: Loc, model: type[BaseModel]) -> str:
    key, section = str(loc[-1]), section_at(loc[:-1], model)
    if _is_section(key, model):
        return f"`{key}` is a section of its own: write `[{key}]`"
    homes = [path for path, name in _all_keys(model) if name == key and path != loc[:-1]]
    if homes:
        return f"`{key}` belongs " + " or ".join(_home(path) for path in homes)
    known = list(section.model_fields) if section else []
    close = difflib.get_close_matches(key, known, 1, 0.6)
    if close:
        return f"did you mean `{dotted((*loc[:-1], close[0]))}`?"
    if key in FOREIGN:
        return FOREIGN[key]
    everywhere = {name: path for path, name in _all_keys(model)}
    close = difflib.get_close_matches(key, everywhere, 1, 0.75)
    if close:
        return f"did you mean `{close[0]}`? It belongs {_home(everywhere[close[0]])}"
    listed = ", ".join(known)
    return f"remove it; known here: {listed}" if known and len(listed) < 120 else "remove it"


def _home(path: Loc) -> str:
    if not path:
        return "at the top of the file, above the first [section]"
    return "in each [preset.24GB]" if path[0] == "preset" else f"in [{dotted(path)}]"


def _all_keys(model: type[BaseModel], prefix: Loc = ()) -> Iterator[tuple[Loc, str]]:
    for name, field in model.model_fields.items():
        yield prefix, name
        for inner in models_in(field.annotation):
            is_table = typing.get_origin(field.annotation) is dict
            yield from _all_keys(inner, (*prefix, name, "NAME") if is_table else (*prefix, name))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The section models that an annotation such as `dict[str, Preset]` or `Eval | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for arg in typing.get_args(annotation) for found in models_in(arg)]


def section_at(path: Loc, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the section at `path`, or None where keys are free."""
    current: type[BaseModel] | None = model
    is_table = False
    for part in path:
        if is_table:  # this part is the free name of a table such as [preset.8GB]
            is_table = False
            continue
        field = current.model_fields.get(str(part)) if current else None
        inner = models_in(field.annotation) if field else []
        is_table = bool(field) and typing.get_origin(field.annotation) is dict
        current = inner[0] if inner else None
    return None if is_table else current


_SECTIONS = {
    "model": '`[model]` with `name = "unsloth/Qwen2.5-1.5B-Instruct"`',
    "data": '`[data]` with `name = "openai/gsm8k"`',
    "rewards": "`[rewards]` with `correctness = 2.0`",
    "preset": "`[preset.24GB]` with `lora_rank = 32` and the rest, see `r1recipes show phi4`",
}


def _example(loc: Loc, model: type[BaseModel]) -> str:
    """A line that is valid for the key at `loc`: its default, or the schema's example."""
    names = [part for part in loc if not isinstance(part, int)]
    section = section_at(tuple(names[:-1]), model)
    field = section.model_fields.get(str(names[-1])) if section else None
    if field is None:
        return f"`{dotted(names[-1:])} = 1.0`"  # a reward
    if section is model and names[0] in _SECTIONS:
        return _SECTIONS[str(names[0])]
    value = field.examples[0] if field.examples else field.default
    return f"`{names[-1]} = {json.dumps(value)}`"


def dotted(path: Loc | list[str | int]) -> str:
    """`train.beta`, `lora.target_modules[0]`; a part that is no bare TOML key is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + toml_key(part)
    return text


def toml_key(name: str) -> str:
    """A key as TOML writes it: bare, or quoted with JSON's escapes, which TOML has too."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def show(value: Any) -> str:
    """A given value as it stood in the file, cut to a line."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a section" if value else "an empty section"
    elif isinstance(value, list):
        text = "a list" if value else "an empty list"
    elif isinstance(value, int) and value.bit_length() > 200:
        text = f"a number of {value.bit_length()} bits"
    elif isinstance(value, str):
        text = json.dumps(value[:80], ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _order(where: str | None) -> tuple[int, int]:
    try:
        line, column = (where or "").rsplit(":", 2)[-2:]
        return int(line), int(column)
    except ValueError:
        return 0, 0

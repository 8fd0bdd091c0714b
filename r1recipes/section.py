"""What the sections of the schema share: their base, common types, and errors over several keys."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from r1recipes import rewards
from r1recipes.consistency import Found

AUTO = "auto"
"""The one special value: the planner puts what is fastest on the card in its place."""


def refuse(found: Found) -> None:
    """Raise one error that carries every `(key, message, hint)` found in a section."""
    if found:
        raise PydanticCustomError("refused", "refused", {"problems": found})


def with_problems(error: ValidationError, found: Found) -> ValidationError:
    """The same errors and one more; pydantic has no other way to add one."""
    refused = PydanticCustomError("refused", "refused", {"problems": found})
    details = [InitErrorDetails(type=refused, loc=(), input=None)]
    for old in error.errors(include_url=False):
        kind = PydanticCustomError(old["type"], "not valid", old.get("ctx", {}))
        details.append(InitErrorDetails(type=kind, loc=old["loc"], input=old["input"]))
    return ValidationError.from_exception_data(error.title, details)


def a_whole_number(value: Any) -> Any:
    """Refuse `true` and `1.0`, which are equal to 1 and so would pass as the literal 1."""
    if type(value) is not int:
        raise PydanticCustomError("int_type", "not a whole number")
    return value


def known_builtin(name: str, known: tuple[str, ...], what: str) -> str:
    """Refuse a name below `builtin:` that is none of `known`."""
    if name.startswith("builtin:") and name not in known:
        raise PydanticCustomError("unknown_name", "unknown", {"what": what, "known": list(known)})
    return name


def known_reward(name: str) -> str:
    """Refuse a reward that is neither in the table nor somebody's own function."""
    if not rewards.is_user_code(name) and name not in rewards.REWARDS:
        known = {"what": "unknown reward", "known": sorted(rewards.REWARDS)}
        raise PydanticCustomError("unknown_name", "unknown", known)
    return name


def rewards_schema(schema: dict[str, Any]) -> None:
    """Let an editor complete the names of the rewards, each with its first docstring line."""
    number = {"type": "number", "minimum": 0, "maximum": 1000}
    schema["properties"] = {
        name: number | {"description": (function.__doc__ or "").strip().split("\n")[0]}
        for name, function in rewards.REWARDS.items()
    }
    schema["patternProperties"] = {r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$": number}


Word = Annotated[
    str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$")
]
"""A name of a model, a file or the like: one line, with no spaces around it."""
Text = Annotated[str, StringConstraints(min_length=1)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Weight = Annotated[float, Field(ge=0, le=1000)]
RewardName = Annotated[str, AfterValidator(known_reward)]
PresetName = Annotated[str, StringConstraints(pattern=r"^(cpu|[1-9][0-9]{0,3}GB)$")]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def _auto_or(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return value if value == AUTO and isinstance(value, str) else validate(value)


def _auto_schema(schema: dict[str, Any]) -> None:
    """Let an editor take "auto" beside the values of the type; it does not know `anyOf`."""
    schema |= {"type": [schema["type"], "string"], "pattern": f"^{AUTO}$"}


# The value or "auto"; as a union pydantic would report an error for each branch.
_OR_AUTO = (WrapValidator(_auto_or), PlainSerializer(lambda value: value, return_type=Any))
AutoBool = Annotated[bool, Field(json_schema_extra=_auto_schema), *_OR_AUTO]
AutoCount = Annotated[int, Field(ge=1, le=65536, json_schema_extra=_auto_schema), *_OR_AUTO]
AutoShare = Annotated[float, Field(gt=0, le=0.95, json_schema_extra=_auto_schema), *_OR_AUTO]

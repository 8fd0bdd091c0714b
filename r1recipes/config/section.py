"""What all sections of a file share: their base, common types, and errors over several keys."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from r1recipes.config.render import Loc

KeyProblems = list[tuple[str | Loc, str, str]]
"""Problems with the keys of a section, `(key, message, hint)` each. The key is dotted, seen from
the section, or from the top of the file with a leading `/`; it is a path where a part has dots."""
AUTO = "auto"
"""The value for "choose it for me", of keys that allow it; the reader of the file chooses."""


def refuse(problems: KeyProblems) -> None:
    """Raise one error that carries all problems of a section, if there are any."""
    if problems:
        raise PydanticCustomError("refused", "refused", {"problems": problems})


def with_problems(error: ValidationError, problems: KeyProblems) -> ValidationError:
    """`error` with the problems added to its errors; pydantic has no other way to add one."""
    refused = PydanticCustomError("refused", "refused", {"problems": problems})
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


def known_builtin(name: str, names: tuple[str, ...], message: str) -> str:
    """Refuse a name that begins with `builtin:` and is not among `names`."""
    if name.startswith("builtin:") and name not in names:
        context = {"what": message, "known": list(names)}
        raise PydanticCustomError("unknown_name", "unknown", context)
    return name


Word = Annotated[
    str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$")
]
"""A name of a model, a file or the like: one line, with no spaces around it."""
Text = Annotated[str, StringConstraints(min_length=1)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=65_536)]


@dataclass(frozen=True)
class NamedSections:
    """Words about a key whose value has sections with free names, such as [server.NAME]."""

    example: str
    """A name that such a section may have."""
    meaning: str
    """What there is a section for, such as "a section for each machine"."""
    naming: str
    """How to name one, such as "by the host name"."""


class Section(BaseModel):
    """A section of a file: strict and frozen, and an unknown key is an error.

    The class variables are words for messages; the model of a whole file sets them.
    """

    foreign_keys: ClassVar[Mapping[str, str]] = {}
    """Key that users of other tools write -> what to write here."""
    foreign_values: ClassVar[Mapping[str, str]] = {}
    """Value that users of other tools write where a list is needed -> what to write here."""
    section_examples: ClassVar[Mapping[str, str]] = {}
    """Section that may be missing -> a line that begins it."""
    named_sections: ClassVar[Mapping[str, NamedSections]] = {}
    """Key of the file whose value has sections with free names -> words about them."""
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class OpenSection(Section):
    """A section with free keys, whose meaning is checked elsewhere. A value is plain: a text, a
    number, true or false, or a list of these."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _plain(self) -> Self:
        refuse(
            [
                (key, f"`{key}` cannot be {_in_words(value)}", _PLAIN_HINT)
                for key, value in self.values().items()
                if not _is_plain(value)
            ]
        )
        return self

    def values(self) -> dict[str, Any]:
        """The keys that were given, with their values."""
        return dict(self.model_extra or {})


_PLAIN_HINT = "a value is a text in quotes, a number, true or false, or a list of these"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, str | int) or isinstance(value, float) and math.isfinite(value)


def _in_words(value: Any) -> str:
    if isinstance(value, date | time):
        return "a date or time; write it in quotes"
    return "a section" if isinstance(value, dict) else f"`{value}`"


def _auto_or(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    return value if value == AUTO and isinstance(value, str) else validate(value)


def _auto_schema(schema: dict[str, Any]) -> None:
    """Let an editor take "auto" beside the values of the type; it does not know `anyOf`."""
    schema |= {"type": [schema["type"], "string"], "pattern": f"^{AUTO}$"}


# The value or "auto"; as a union pydantic would report an error for each branch.
_OR_AUTO = (WrapValidator(_auto_or), PlainSerializer(lambda value: value, return_type=Any))
AutoBool = Annotated[bool, Field(json_schema_extra=_auto_schema), *_OR_AUTO]
MAX_COUNT = 65536
"""The largest count that a key may have."""
AutoLayers = Annotated[int, Field(ge=0, le=1024, json_schema_extra=_auto_schema), *_OR_AUTO]
AutoCount = Annotated[int, Field(ge=1, le=MAX_COUNT, json_schema_extra=_auto_schema), *_OR_AUTO]
AutoShare = Annotated[float, Field(gt=0, le=0.95, json_schema_extra=_auto_schema), *_OR_AUTO]


class _AddedLater:
    """The type of `ADDED_LATER`."""


ADDED_LATER = _AddedLater()
"""Annotates a key that was added after files of its format were published, as in
`every: Annotated[int | None, ADDED_LATER] = None`: the fingerprint of a file leaves the key out
while it has its default, so that files written before it keep theirs."""


def without_later_defaults(section: BaseModel, dumped: dict[str, Any]) -> dict[str, Any]:
    """The dump of a section, without the keys marked `ADDED_LATER` that have their default, at any
    depth. A whole section may be marked as well."""
    remaining: dict[str, Any] = {}
    for name, value in dumped.items():
        if name not in type(section).model_fields:  # a free key of an open section
            remaining[name] = value
            continue
        field, current = type(section).model_fields[name], getattr(section, name)
        default = field.get_default(call_default_factory=True)
        if any(mark is ADDED_LATER for mark in field.metadata) and current == default:
            continue
        if isinstance(current, BaseModel):
            value = without_later_defaults(current, value)
        elif isinstance(current, list):
            value = [
                without_later_defaults(inner, dump) if isinstance(inner, BaseModel) else dump
                for inner, dump in zip(current, value, strict=True)
            ]
        elif isinstance(current, Mapping):
            value = {
                key: without_later_defaults(inner, value[key])
                if isinstance(inner, BaseModel)
                else value[key]
                for key, inner in current.items()
            }
        remaining[name] = value
    return remaining

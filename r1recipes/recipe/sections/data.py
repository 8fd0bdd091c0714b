"""The section [data]: where questions and reference answers come from.

Limits: names are checked, nothing is read.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from r1recipes.config.section import (
    ADDED_LATER,
    OpenSection,
    Section,
    Text,
    Word,
    known_builtin,
    refuse,
)
from r1recipes.recipe import references, rules

BUILTIN_DATA = {
    "builtin:arithmetic": rules.Builtin("correctness"),
    "builtin:countdown": rules.Builtin(
        "countdown", ("numbers", "target"), "it pays for the bare target, without an expression"
    ),
}
_DATA_NAME = (
    f"Hub id, a local {', '.join(references.FILE_SUFFIXES)} file, {', '.join(BUILTIN_DATA)}, or "
    "gym:NAME for a data set of reasoning-gym, such as gym:chain_sum."
)


class Problems(Section):
    """How hard the problems of a built-in data set are; the settings of a gym: data set."""

    model_config = ConfigDict(json_schema_extra=rules.gym_settings_schema)

    digits: Annotated[int, Field(ge=1, le=9)] = 2
    """builtin:arithmetic: digits of each term."""
    terms: Annotated[int, Field(ge=2, le=6)] = 2
    """builtin:arithmetic: terms of a problem."""
    operators: Annotated[str, StringConstraints(pattern=r"^[+*-]{1,3}$")] = "+"
    """builtin:arithmetic: the operators that occur, such as "+-"."""
    numbers: Annotated[int, Field(ge=2, le=6)] = 3
    """builtin:countdown: how many numbers a problem gives."""
    largest: Annotated[int, Field(ge=5, le=999)] = 20
    """builtin:countdown: the largest number that is given."""


AnswerKind = Literal[
    "number", "choice", "boolean", "date", "list", "set", "json", "expression", "text"
]
"""The kinds that `rewards.answers.Kind` has."""


class Data(Section):
    """Where questions and reference answers come from."""

    name: Annotated[Word, Field(examples=["openai/gsm8k"], description=_DATA_NAME)]
    config: Annotated[Word | None, Field(examples=["main"])] = None
    """Configuration of a Hub data set, such as "main"."""
    revision: Annotated[Word | None, Field(examples=["main"])] = None
    """Commit, tag or branch of a Hub data set."""
    split: Word = "train"
    """Split that is trained on."""
    size: Annotated[int | None, Field(ge=1, le=100_000_000, examples=[2000])] = None
    """At most so many training rows, a seeded choice; the number made for built-in and gym: data
    (2000)."""
    question: Text = "question"
    """Column with the question."""
    answer: Text = "answer"
    """Column with the reference answer."""
    answer_after: Annotated[Text | None, Field(examples=["####"])] = None
    """Text in the answer column after which the final answer stands, "####" in GSM8K."""
    answer_kind: Annotated[AnswerKind | None, ADDED_LATER, Field(examples=["number"])] = None
    """What the reference answers are; without it the whole column is read to find out."""
    eval_split: Annotated[Word | None, Field(examples=["test"])] = None
    """Held-out split; without it eval_size rows are held out of the training split."""
    eval_size: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Number of held-out problems that are evaluated before and after."""
    keep: Annotated[list[float] | None, ADDED_LATER, rules.KEEP] = None
    """Train only on problems whose pass rate before training lies from the first number to the
    second: the share of num_generations samples that eval.reward calls right."""
    overlong: Literal["drop", "refuse"] = "drop"
    """What is done with prompts that do not fit beside max_completion_length."""
    problems: Problems | SkipJsonSchema[OpenSection] | None = None
    """Difficulty of a built-in data set; settings of a data set of reasoning-gym."""

    @field_validator("name")
    @classmethod
    def _known_builtin(cls, name: str) -> str:
        return known_builtin(name, tuple(BUILTIN_DATA), "unknown built-in data set")

    @field_validator("problems", mode="wrap")
    @classmethod
    def _of_its_kind(
        cls, value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        if not isinstance(value, Mapping):
            return validate(value)
        if not value and not info.data.get("name", "").startswith(references.MADE_HERE):
            return None  # a heading whose keys are all comments sets nothing
        is_gym = references.is_gym(info.data.get("name", ""))
        return (OpenSection if is_gym else Problems).model_validate(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(rules.of_data(self))
        return self

    @property
    def builtin(self) -> rules.Builtin | None:
        """What is known of built-in problems; None of other data."""
        return BUILTIN_DATA.get(self.name)

"""What the files of a run folder hold: every key that a command reads, with its type and its range.

A folder may come from elsewhere, or from another version. Keys that are not named here are neither
read nor refused; of those that are, only the ones that every run has must be there.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from r1recipes.config.render import show
from r1recipes.errors import shorten
from r1recipes.machine.meter import TOTAL

Status = Literal["running", "complete", "failed", "stopped", "pruned"]
STATUSES: tuple[str, ...] = get_args(Status)


def _is_text(value: Any) -> str:
    """A text, also one with half a character, which JSON can hold and pydantic refuses."""
    if not isinstance(value, str):
        raise PydanticCustomError("text", "must be a text")
    return value


def _moderate(value: float) -> float:
    if abs(value) > 1e100 and value - value == 0:  # not of inf or nan
        raise PydanticCustomError("range", "must be at most 1e100")
    return value


Text = Annotated[str, PlainValidator(_is_text)]
Name = Annotated[str, StringConstraints(max_length=300)]
Long = Annotated[str, StringConstraints(max_length=100_000)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
Measure = Annotated[float, AfterValidator(_moderate)]
"""A number of a step, which may be inf or nan."""
Shares = Annotated[list[Share], Field(min_length=2, max_length=2)]
Signed = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Plain = Name | bool | int | Finite | None


class Part(BaseModel):
    """A part of a file: strict in its keys' types, with other keys left alone."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Summary(Part):
    """An evaluation in the record."""

    accuracy: Share
    interval: Shares
    greedy: Share
    num_problems: Annotated[int, Field(ge=1, le=10**9)]
    num_samples: Annotated[int, Field(ge=0, le=10**9)]
    mean_length: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
    share_cut: Share


class Difference(Part):
    """Accuracy after training minus that before it."""

    mean: Signed
    interval: Annotated[list[Signed], Field(min_length=2, max_length=2)]


class Evaluations(Part):
    """The evaluations in the record."""

    before: Summary | None = None
    after: Summary | None = None
    difference: Difference | None = None


class Memory(Part):
    """`vram` of the record."""

    predicted_bytes: Count | None = None
    measured_bytes: Count | None = None
    shared: bool | None = None
    """True where what other processes took is in `measured_bytes`."""


class Failure(Part):
    """`error` of the record."""

    kind: Name | None = None
    message: Long = ""
    hint: Long = ""


class Stage(Part):
    """`stage` of the record, while one is at work."""

    name: Name
    began_s: Finite


class Trained(Part):
    """One of `stages` of the record: a training of a recipe with [[stage]]."""

    name: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}-[a-z_]{1,40}$")]
    algorithm: Name
    steps: Count | None = None
    seconds: Seconds | None = None
    evaluation: Summary | None = None
    difference: Difference | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.evaluation and None in (self.steps, self.seconds, self.difference):
            raise PydanticCustomError("missing", "lacks steps, seconds or difference")
        return self


class PassRates(Part):
    """`pass_rates` of the record."""

    low: Share
    high: Share
    num_kept: Count
    from_lock: bool = False
    num_samples: Annotated[int, Field(ge=1, le=100_000)] | None = None
    num_available: Count | None = None
    num_measured: Count | None = None
    num_too_hard: Count | None = None
    num_too_easy: Count | None = None
    histogram: Annotated[list[Count], Field(max_length=100_001)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        measured = ("num_samples", "num_measured", "num_too_hard", "num_too_easy", "histogram")
        for name in () if self.from_lock else measured:
            if getattr(self, name) is None:
                raise PydanticCustomError("missing", "lacks {name}", {"name": name})
        return self


class Record(Part):
    """record.json."""

    format: Literal[1] = 1
    status: Status
    recipe: Name | None = None
    description: Long | None = None
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    preset: Name | None = None
    started: Name | None = None
    updated: Name | None = None
    finished: Name | None = None
    attempts: Count = 0
    duration_s: Annotated[dict[Name, Seconds], Field(max_length=100)] = {}
    time: Annotated[dict[Name, Seconds], Field(max_length=100)] = {}
    evaluation: Evaluations = Evaluations()
    stages: Annotated[list[Trained], Field(max_length=1000)] = []
    vram: Memory | None = None
    error: Failure | None = None
    stage: Stage | None = None
    stopped_at_step: Count | None = None
    pass_rates: PassRates | None = None
    probe: dict[Name, Plain] | None = None
    study: Any = None

    @model_validator(mode="after")
    def _compared(self) -> Self:
        both = self.evaluation.before and self.evaluation.after
        if self.status == "complete" and both and not self.evaluation.difference:
            raise PydanticCustomError("missing", "lacks `evaluation.difference`")
        if self.time and TOTAL not in self.time:
            raise PydanticCustomError("missing", "lacks `time.{total}`", {"total": TOTAL})
        return self


class _Named(Part):
    name: Name | None = None


class _Train(Part):
    max_steps: Count | None = None
    beta: Finite | None = None


class _Recipe(Part):
    algorithm: Name | None = None
    model: _Named = _Named()
    data: _Named = _Named()
    train: _Train = _Train()
    rewards: Annotated[dict[Text, Finite], Field(max_length=1000)] = {}


class _Preset(Part):
    max_completion_length: Count | None = None
    prompts_per_step: Count | None = None
    num_generations: Count | None = None


class Resolved(Part):
    """resolved.json, as far as a page or a comparison reads it; `Plan` is the whole."""

    recipe: _Recipe = _Recipe()
    preset: _Preset = _Preset()
    preset_name: Name | None = None
    backend: Name | None = None
    device: Name | None = None
    dtype: Name | None = None
    origin: dict[Name, Any] | None = None


class Step(Part):
    """A line of metrics.jsonl: `step`, and any numbers."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Measure | None]

    step: Count
    reward_failures: dict[Text, Count] = {}


class Completion(Part):
    """A line of completions.jsonl."""

    step: Count = 0
    prompt: Text | list[Any]
    completion: Text | list[Any]
    rewards: dict[Text, Measure | None]


class Sample(Part):
    """An answer of an evaluation."""

    text: Text
    num_tokens: Count
    cut: bool
    right: bool


class Item(Part):
    """A line of evaluation-*.jsonl."""

    question: Text
    answer: Any
    samples: Annotated[list[Sample], Field(max_length=100_000)]
    greedy: Sample


def fault(data: Mapping[str, Any], model: type[BaseModel], *, is_strict: bool = True) -> str | None:
    """The first thing that is wrong with the data of a file, as it follows `is damaged: `.

    `is_strict` False: as JSON, which has neither paths nor tuples.
    """
    try:
        model.model_validate(data) if is_strict else model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        loc = [str(part) for part in detail["loc"] if part != "[key]"]
        union = {"str", "bool", "int", "float", "constrained-str", "none", "function-plain"}
        names = [part for part in loc if part not in union and "[" not in part]
        return _words(".".join(names), detail)
    return None


def _words(field: str, detail: Any) -> str:
    if detail["type"] == "refused":  # by a section of a recipe, in its own words
        return str(detail["ctx"]["problems"][0][1])
    message = detail["msg"].replace("Input should be", "must be")
    message = shorten(message[0].lower() + message[1:])
    key = f"`{shorten(field)}` " if field else "it "
    if detail["type"] == "missing":
        return f"{key}is missing" if field else message
    if message.startswith("must") and "value_error" not in detail["type"]:
        return f"{key}{message}, not {_given(detail['input'])}"
    return f"{key}{message}" if message.startswith("lacks") else f"{key}is not valid: {message}"


def _given(value: Any) -> str:
    return show(value) if isinstance(value, str | int | float | bool | dict | list) else "null"

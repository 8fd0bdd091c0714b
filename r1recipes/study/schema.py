"""A study file as frozen pydantic models: what is searched, on which cells, and how.

`study` reads such files and checks them against their recipes; nothing is read here.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1recipes.config.render import Loc, show
from r1recipes.config.section import Section, Word, a_whole_number, refuse

METRICS = {
    "eval/accuracy": "maximize",
    "eval/greedy": "maximize",
    "eval/mean_length": "minimize",
    "eval/share_cut": "minimize",
}
"""Held-out measures of a record's `evaluation.after`, and which way is better."""
Metric = Literal["eval/accuracy", "eval/greedy", "eval/mean_length", "eval/share_cut"]


_RANGES = "such as `{ low = 1e-6, high = 5e-5, log = true }` or `{ choices = [16, 32, 64] }`"


class Range(Section):
    """Values that a key is searched over: low to high, or choices."""

    low: Annotated[float | None, Field(examples=[1e-6])] = None
    """Smallest value."""
    high: Annotated[float | None, Field(examples=[5e-5])] = None
    """Largest value."""
    log: bool = False
    """Sample the logarithm evenly, as suits a learning rate."""
    step: Annotated[float | None, Field(gt=0, examples=[0.5])] = None
    """Distance between values."""
    choices: Annotated[list[Any] | None, Field(min_length=2, examples=[[16, 32]])] = None
    """The values themselves, in no order."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        refuse(_range_problems(self))
        return self

    def ends(self) -> list[tuple[Loc, Any]]:
        """(key, value) of everything that stands in the file."""
        if self.choices is not None:
            return [(("choices", number), value) for number, value in enumerate(self.choices)]
        return [(("low",), self.low), (("high",), self.high)]


def _range_problems(given: Range) -> list[tuple[str, str, str]]:
    if given.choices is not None:
        found = [
            (key, f"`{key}` does not go with `choices`", "remove one of them")
            for key in ("low", "high", "log", "step")
            if key in given.model_fields_set
        ]
        if len({repr(choice) for choice in given.choices}) < len(given.choices):
            found.append(("choices", "a choice is given twice", "remove one"))
        if any(isinstance(choice, list | dict) for choice in given.choices):
            found.append(("choices", "a choice is a list", "write single values"))
        return found
    if given.low is None or given.high is None:
        return [("", "a range needs `low` and `high`, or `choices`", _RANGES)]
    found = []
    if given.low >= given.high:
        hint = "exchange them; a key with one value belongs in [set]"
        found.append(("high", f"`high` {given.high:g} is not above `low` {given.low:g}", hint))
    elif given.step is not None and given.step > given.high - given.low:
        message = f"`step` {given.step:g} is wider than the range, which leaves one value"
        found.append(("step", message, "make it smaller; a key with one value belongs in [set]"))
    if given.log and given.low <= 0:
        found.append(("low", f"`low` {given.low:g} has no logarithm", "set it above 0"))
    if given.log and given.step is not None:
        found.append(("step", "`step` does not go with `log`", "remove one of them"))
    return found


class Study(Section):
    """How values are proposed and hopeless trials ended. Optuna's words."""

    metric: Metric | list[Metric] = "eval/accuracy"
    """What is searched for; a list of several gives a front of best trials."""
    direction: Literal["maximize", "minimize"] | list[Literal["maximize", "minimize"]] | None = None
    """Which way is better; without it up for accuracy, down for lengths."""
    n_trials: Annotated[int, Field(ge=1, le=100_000, examples=[40])] = 40
    """Trials of each cell, those that are pruned or fail included."""
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    """How values are proposed."""
    pruner: Annotated[
        Literal["noise", "median", "hyperband", "none"] | None, Field(examples=["noise"])
    ] = None
    """When a trial is ended early; "noise", the default, waits until chance cannot explain it."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Seed of the sampler; each recipe has its own."""
    baseline: bool = True
    """Try the recipe's own values first."""

    @property
    def metrics(self) -> list[str]:
        return self.metric if isinstance(self.metric, list) else [self.metric]

    @property
    def directions(self) -> list[str]:
        if self.direction is None:
            return [METRICS[metric] for metric in self.metrics]
        return self.direction if isinstance(self.direction, list) else [self.direction]

    @property
    def is_accuracy(self) -> bool:
        """Whether it is searched for what trials report in training: Optuna takes the intermediate
        values of one objective, and as values of that objective."""
        return self.metrics in (["eval/accuracy"], ["eval/greedy"]) and (
            self.directions == ["maximize"]
        )

    @property
    def pruner_name(self) -> str:
        return self.pruner or ("noise" if self.is_accuracy else "none")

    @field_validator("metric", mode="before")
    @classmethod
    def _held_out(cls, given: Any) -> Any:
        names = given if isinstance(given, list) else [given]
        if any(isinstance(name, str) and name.split("/")[-1] in _MOVES for name in names):
            message = f"{show(given)} cannot be searched for: it moves with what is searched"
            refuse([("", message, 'write `metric = "eval/accuracy"`')])
        if not names or any(not isinstance(name, str) or name not in METRICS for name in names):
            known = {"what": "unknown metric", "known": list(METRICS)}
            raise PydanticCustomError("unknown_name", "unknown", known)
        return given

    @field_validator("direction", mode="before")
    @classmethod
    def _one_way(cls, given: Any) -> Any:
        for name in given if isinstance(given, list) else [given]:
            if name not in ("maximize", "minimize", None):
                hint = "remove this line: it follows from the metric"
                refuse([("", f'{show(name)} is neither "maximize" nor "minimize"', hint)])
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = []
        if len(set(self.metrics)) < len(self.metrics):
            found.append(("metric", "each metric is named once", 'such as `"eval/accuracy"`'))
        if len(self.directions) != len(self.metrics):
            counts = f"{len(self.metrics)} metrics and {len(self.directions)} directions"
            found.append(("direction", counts, "give one for each, or remove this line"))
        if self.pruner_name != "none" and not self.is_accuracy:
            several = len(self.metrics) > 1
            message = "with several metrics nothing can be pruned"
            other = f"trials are pruned by their accuracy, not by {self.metrics[0]}"
            found.append(("pruner", message if several else other, "remove this line"))
        refuse(found)
        return self


_MOVES = {"reward", "loss", "rewards", "kl", "eval_loss"}


class StudyFile(Section):
    """A study, a matrix, or a matrix of studies."""

    format: Annotated[Literal[1], BeforeValidator(a_whole_number), Field(examples=[1])]
    """Version of the format."""
    description: str = ""
    """One line for people."""
    recipe: Annotated[Word | None, Field(examples=["../recipes/tiny.toml"])] = None
    """The recipe that is varied: a file, meant from this file's folder, or a shipped name."""
    preset: Word | None = None
    """Preset to take, not the largest that fits."""
    set: dict[str, Any] = {}
    """Recipe keys that are the same in all trials, as with `--set`."""
    study: Study | None = None
    search: Annotated[dict[str, Range], Field(min_length=1)] = {}
    """Recipe keys that are searched."""
    matrix: Annotated[
        dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)
    ] = {}
    """Recipe keys, or `recipe`, each with all the values to run."""

    @field_validator("set", "search", "matrix", mode="before")
    @classmethod
    def _right_shape(cls, given: Any, info: ValidationInfo) -> Any:
        found = []
        for key, value in given.items() if isinstance(given, dict) else ():
            if isinstance(value, dict) and not value.keys() & Range.model_fields.keys():
                inner = next(iter(value), "KEY")
                hint = f'write `"{key}.{inner}" = ...`, with the quotes'
                found.append(((key,), f"`{key}` is a section of the recipe", hint))
            elif info.field_name == "search" and not isinstance(value, dict):
                hint = f"{_RANGES}; one value belongs in [set]"
                found.append(((key,), f"`{key}` needs a range or choices, not {show(value)}", hint))
            elif info.field_name == "matrix" and not (isinstance(value, list) and value):
                hint = "all values to run, in brackets, such as `[1, 2, 3]`"
                found.append(((key,), f"`{key}` needs a list of values, not {show(value)}", hint))
        refuse(found)
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(_file_problems(self))
        return self


def _file_problems(file: StudyFile) -> list[tuple[str, str, str]]:
    found = []
    if not file.search and not file.matrix:
        hint = 'add [search] with `"train.learning_rate" = { low = 1e-6, high = 5e-5, log = true }`'
        found.append(("", "there is neither [search] nor [matrix]: nothing varies", hint))
    if file.study is not None and not file.search and file.matrix:
        hint = "add [search], or remove [study]: a matrix alone runs each cell once"
        found.append(("study", "[study] has nothing to search", hint))
    if file.recipe is None and "recipe" not in file.matrix:
        found.append(
            ("", "`recipe` is missing", 'add `recipe = "../recipes/tiny.toml"` at the top')
        )
    if file.recipe is not None and "recipe" in file.matrix:
        hint = "remove the one at the top"
        found.append(("recipe", "`recipe` is given here and in [matrix]", hint))
    homes: dict[str, str] = {}
    for section in ("set", "search", "matrix"):
        for key in getattr(file, section):
            if key in homes:
                message = f"`{key}` is in [{homes[key]}] too"
                found.append(((section, key), message, "keep one"))
            homes[key] = section
    return found

"""A study file as frozen pydantic models: which keys are searched, on which cells, and how.

No file is read here: `loading` reads study files and checks them against their recipes.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1recipes.config.render import Loc, show, toml_value
from r1recipes.config.section import KeyProblems, Section, Word, a_whole_number, refuse

Metric = Literal["eval/accuracy", "eval/greedy", "eval/mean_length", "eval/share_cut"]
Direction = Literal["maximize", "minimize"]
METRICS: dict[str, Direction] = {
    "eval/accuracy": "maximize",
    "eval/greedy": "maximize",
    "eval/mean_length": "minimize",
    "eval/share_cut": "minimize",
}
"""Held-out measures of a record's `evaluation.after`, and which way is better."""
NOT_HELD_OUT = {"reward", "loss", "rewards", "kl", "eval_loss"}
"""Names of measures that users of other tools search for; searched keys would move them."""
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
        """Key within the range, and value, of each value that is written in the file."""
        if self.choices is not None:
            return [(("choices", number), value) for number, value in enumerate(self.choices)]
        return [(("low",), self.low), (("high",), self.high)]

    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value of a range without choices."""
        assert self.low is not None and self.high is not None  # see _range_problems
        return self.low, self.high


def _range_problems(searched: Range) -> KeyProblems:
    if searched.choices is not None:
        return _choices_problems(searched, searched.choices)
    low, high, step = searched.low, searched.high, searched.step
    if low is None or high is None:
        return [("", "a range needs `low` and `high`, or `choices`", _RANGES)]
    problems: KeyProblems = []
    if low >= high:
        hint = "exchange them; a key with one value belongs in [set]"
        problems.append(("high", f"`high` {high:g} is not above `low` {low:g}", hint))
    elif step is not None and step > high - low:
        message = f"`step` {step:g} is wider than the range, which leaves one value"
        problems.append(("step", message, "make it smaller; a key with one value belongs in [set]"))
    if searched.log and low <= 0:
        problems.append(("low", f"`low` {low:g} has no logarithm", "set it above 0"))
    if searched.log and step is not None:
        problems.append(("step", "`step` does not go with `log`", "remove one of them"))
    return problems


def _choices_problems(searched: Range, choices: list[Any]) -> KeyProblems:
    problems: KeyProblems = [
        (key, f"`{key}` does not go with `choices`", "remove one of them")
        for key in ("low", "high", "log", "step")
        if key in searched.model_fields_set
    ]
    if len({repr(choice) for choice in choices}) < len(choices):
        problems.append(("choices", "a choice is given twice", "remove one"))
    if any(isinstance(choice, list | dict) for choice in choices):
        problems.append(("choices", "a choice is a list", "write single values"))
    return problems


class Study(Section):
    """How values are proposed and hopeless trials are ended, in the words of Optuna."""

    metric: Metric | list[Metric] = "eval/accuracy"
    """What is searched for; a list of several gives a front of best trials."""
    direction: Direction | list[Direction] | None = None
    """Which way is better; without it up for accuracy, down for lengths."""
    n_trials: Annotated[int, Field(ge=1, le=100_000, examples=[40])] = 40
    """Trials of each cell, those that are pruned or fail included."""
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    """How values are proposed."""
    pruner: Annotated[
        Literal["noise", "median", "hyperband", "none"] | None, Field(examples=["noise"])
    ] = None
    """When a trial is ended early, by its held-out accuracy where the recipe has `eval.every`, else
    by that in training; "noise", the default, waits until chance cannot explain it."""
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Seed of the sampler; each recipe has its own."""
    baseline: bool = True
    """Try the recipe's own values first."""

    @property
    def metrics(self) -> list[str]:
        """The metrics in their order; the first decides which trial is the best."""
        return [*self.metric] if isinstance(self.metric, list) else [self.metric]

    @property
    def directions(self) -> list[Direction]:
        """Which way is better, for each metric."""
        if self.direction is None:
            return [METRICS[metric] for metric in self.metrics]
        return self.direction if isinstance(self.direction, list) else [self.direction]

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is an accuracy, as are the values that trials report while training.

        Optuna takes intermediate values of a single objective only, and as values of it.
        """
        return self.metrics in (["eval/accuracy"], ["eval/greedy"]) and (
            self.directions == ["maximize"]
        )

    @property
    def pruner_name(self) -> str:
        """The pruner that is taken: the one in the file, or the default for the metric."""
        return self.pruner or ("noise" if self.is_accuracy else "none")

    @field_validator("metric", mode="before")
    @classmethod
    def _held_out(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else [value]
        if any(isinstance(name, str) and name.split("/")[-1] in NOT_HELD_OUT for name in names):
            message = f"{show(value)} cannot be searched for: it moves with what is searched"
            refuse([("", message, 'write `metric = "eval/accuracy"`')])
        if not names or any(not isinstance(name, str) or name not in METRICS for name in names):
            context = {"what": "unknown metric", "known": list(METRICS)}
            raise PydanticCustomError("unknown_name", "unknown", context)
        return value

    @field_validator("direction", mode="before")
    @classmethod
    def _one_way(cls, value: Any) -> Any:
        for name in value if isinstance(value, list) else [value]:
            if name not in ("maximize", "minimize", None):
                hint = "remove this line: it follows from the metric"
                refuse([("", f'{show(name)} is neither "maximize" nor "minimize"', hint)])
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems: KeyProblems = []
        if len(set(self.metrics)) < len(self.metrics):
            problems.append(("metric", "a metric is named twice", 'such as `"eval/accuracy"`'))
        if len(self.directions) != len(self.metrics):
            counts = f"{len(self.metrics)} metrics and {len(self.directions)} directions"
            problems.append(("direction", counts, "give one for each, or remove this line"))
        if self.pruner_name != "none" and not self.is_accuracy:
            message = f"trials are pruned by their accuracy, not by {self.metrics[0]}"
            if len(self.metrics) > 1:
                message = "with several metrics nothing can be pruned"
            problems.append(("pruner", message, "remove this line"))
        refuse(problems)
        return self


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
    def _right_shape(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict):
            refuse(_shape_problems(value, info.field_name))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(_file_problems(self))
        return self


def _shape_problems(section: dict[str, Any], name: str | None) -> KeyProblems:
    """Keys of [set], [search] or [matrix] that have values of another shape."""
    problems: KeyProblems = []
    for key, value in section.items():
        if isinstance(value, dict) and not value.keys() & Range.model_fields.keys():
            inner, at = next(iter(value.items()), ("KEY", None))
            shown = "..." if at is None or _is_nested(at) else toml_value(at)
            hint = f'write `"{key}.{inner}" = {shown}`, with the quotes'
            problems.append(((key,), f"`{key}` is a section of the recipe", hint))
        elif name == "search" and not isinstance(value, dict):
            hint = f"{_RANGES}; one value belongs in [set]"
            if isinstance(value, list) and len(value) > 1 and not any(map(_is_nested, value)):
                hint = f"write `{{ choices = {toml_value(value)} }}`"
            problems.append(((key,), f"`{key}` needs a range or choices, not {show(value)}", hint))
        elif name == "matrix" and not (isinstance(value, list) and value):
            hint = "all values to run, in brackets, such as `[1, 2, 3]`"
            problems.append(((key,), f"`{key}` needs a list of values, not {show(value)}", hint))
    return problems


def _file_problems(file: StudyFile) -> KeyProblems:
    problems: KeyProblems = []
    if not file.search and not file.matrix:
        hint = 'add [search] with `"train.learning_rate" = { low = 1e-6, high = 5e-5, log = true }`'
        problems.append(("", "there is neither [search] nor [matrix]: nothing varies", hint))
    if file.study is not None and not file.search and file.matrix:
        hint = "add [search], or remove [study]: a matrix alone runs each cell once"
        problems.append(("study", "[study] has nothing to search", hint))
    if file.recipe is None and "recipe" not in file.matrix:
        hint = 'add `recipe = "../recipes/tiny.toml"` at the top'
        problems.append(("", "`recipe` is missing", hint))
    if file.recipe is not None and "recipe" in file.matrix:
        message = "`recipe` is given here and in [matrix]"
        problems.append(("recipe", message, "remove the one at the top"))
    sections: dict[str, str] = {}
    for section in ("set", "search", "matrix"):
        for key in getattr(file, section):
            if key in sections:
                message = f"`{key}` is in [{sections[key]}] too"
                problems.append(((section, key), message, "keep one"))
            sections[key] = section
    return problems


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)

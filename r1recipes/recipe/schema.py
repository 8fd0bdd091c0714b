"""The recipe as frozen pydantic models: each key with its type, its range and its meaning.

The keys of [train], [lora] and a preset are in `algorithms` (`base` and each algorithm), those of
[cold_start] in `algorithms.sft`, of [export] and [track] in `recipe.targets`. The JSON Schema for
editors comes from here. `recipe.loading` reads files, `planning.plan` decides: nothing is read or
chosen here. A key that no module reads is a defect.

Keys carry the names that Unsloth, vLLM, PEFT and TRL users know; where a library is named in a
field's text, the key is passed on under that name.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from r1recipes.algorithms import ALGORITHMS, GRPO
from r1recipes.algorithms.base import PRESET_NAME, Lora, Preset, Train
from r1recipes.algorithms.checks import of_dropout
from r1recipes.algorithms.examples import Examples
from r1recipes.algorithms.sft import ColdStart
from r1recipes.config import json_schema
from r1recipes.config.section import (
    ADDED_LATER,
    Batch,
    OpenSection,
    Section,
    Steps,
    Text,
    Word,
    a_whole_number,
    known_builtin,
    refuse,
    with_problems,
)
from r1recipes.recipe import references, rules
from r1recipes.recipe.foreign_keys import (
    FOREIGN_KEYS,
    FOREIGN_VALUES,
    NAMED_SECTIONS,
    SECTION_EXAMPLES,
)
from r1recipes.recipe.targets import Export, Track
from r1recipes.rewards.judge.section import Judge, of_use

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
BUILTIN_MODELS = ("builtin:tiny", "builtin:small")
SYSTEM_PROMPT = """\
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>
"""


AlgorithmName = Annotated[str, AfterValidator(rules.known_algorithm)]
Weight = Annotated[float, Field(ge=0, le=1000)]
RewardName = Annotated[str, AfterValidator(rules.known_reward)]
Rewards = Annotated[dict[RewardName, Weight], Field(json_schema_extra=rules.rewards_schema)]
PresetName = Annotated[
    str,
    StringConstraints(pattern=f"^({PRESET_NAME.pattern})$"),
    BeforeValidator(rules.preset_name),
]


class Model(Section):
    """The model that is trained."""

    name: Annotated[Word, Field(examples=["unsloth/Qwen2.5-1.5B-Instruct"])]
    """Hub id, a local folder, `builtin:tiny`, about 1M parameters built on the spot, or a run."""
    revision: Annotated[Word | None, Field(examples=["main"])] = None
    """Commit, tag or branch on the Hub; without it the newest commit, which is then recorded."""
    chat_template: Annotated[Text | None, Field(examples=["template.jinja"])] = None
    """A Jinja template, inline or the name of a file; needed for a base model that has none."""

    @field_validator("name")
    @classmethod
    def _known_builtin(cls, name: str) -> str:
        return known_builtin(name, BUILTIN_MODELS, "unknown built-in model")


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


class Prompt(Section):
    """What the model sees beside the question."""

    system: str = SYSTEM_PROMPT
    """System message; an empty text leaves it out."""


class Eval(Section):
    """The evaluation before and after training, and small ones in between."""

    samples: Annotated[int, Field(ge=1, le=256)] = 4
    """Completions for each held-out problem, sampled at train.temperature."""
    reward: RewardName = "correctness"
    """The reward that decides: a completion is right when it pays 1 or more."""
    batch_size: Batch = 64
    """Completions that plain TRL generates at once; vLLM takes what its memory holds."""
    every: Annotated[Steps | None, ADDED_LATER, Field(examples=[50])] = None
    """Steps between small held-out evaluations while training (3 % of its time); none without."""


class Recipe(Section):
    """A recipe: everything that turns one open model into a reasoning model."""

    foreign_keys = FOREIGN_KEYS
    foreign_values = FOREIGN_VALUES
    section_examples = SECTION_EXAMPLES
    named_sections = NAMED_SECTIONS

    format: Annotated[Literal[1], BeforeValidator(a_whole_number), Field(examples=[1])]
    """Version of the recipe format."""
    description: str = ""
    """One line for people."""
    algorithm: AlgorithmName = "grpo"
    """How the model is trained; [train] has the keys of this algorithm."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 3407
    """Seed of the data, the adapter, the sampling and the trainer."""
    model: Model
    data: Data
    prompt: Prompt = Prompt()
    rewards: Annotated[Rewards, Field(min_length=1)]
    """Reward = weight. The name is one of the table or `file.py:function`."""
    examples: Annotated[Examples | None, ADDED_LATER, Field(validate_default=True)] = None
    lora: Lora = Lora()
    train: SerializeAsAny[Train] = GRPO.train()
    """The keys of the algorithm, see `of_algorithm`."""
    cold_start: Annotated[ColdStart | None, Field(validate_default=True)] = None
    eval: Annotated[Eval, Field(validate_default=True)] = Eval()
    judge: Annotated[Judge | None, ADDED_LATER, Field(validate_default=True)] = None
    export: Export = Export()
    preset: Annotated[dict[PresetName, Preset], Field(min_length=1)]
    """Settings by memory of the card; the largest that the card can hold is used."""
    track: Track = Track()
    """Trackers beside the metrics that every run keeps; no part of the fingerprint."""

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_algorithm(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """`Recipe` itself stands for the recipes of all algorithms: take the one that is named."""
        if cls is Recipe and isinstance(data, Mapping):
            return cast(Self, of_algorithm(data.get("algorithm")).model_validate(data))
        return validate(data)

    @field_validator("rewards")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and not any(weights.values()):
            message = "every reward has weight 0: nothing to learn from"
            refuse([("", message, "give one a weight, such as `correctness = 2.0`")])
        return weights

    @field_validator("examples")
    @classmethod
    def _learned_from(cls, examples: Examples | None, info: ValidationInfo) -> Examples | None:
        refuse(rules.of_examples(examples, info.data))
        return examples

    @field_validator("preset", mode="wrap")
    @classmethod
    def _fit_their_names(
        cls, tables: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> dict[str, Preset]:
        problems = rules.of_presets(tables, info.data.get("algorithm"))
        try:
            presets = validate(tables)
        except ValidationError as error:
            if problems:  # report these beside the errors within a preset
                raise with_problems(error, problems) from None
            raise
        problems += rules.of_keep(info.data.get("data"), presets)
        algorithm = ALGORITHMS.get(info.data.get("algorithm", ""))
        refuse(problems + of_dropout(algorithm, info.data.get("lora")))
        return presets

    @field_validator("cold_start")
    @classmethod
    def _has_demonstrations(cls, start: ColdStart | None, info: ValidationInfo) -> ColdStart | None:
        refuse(rules.of_cold_start(start, info.data.get("model"), info.data.get("data")))
        return start

    @field_validator("judge")
    @classmethod
    def _is_used(cls, judge: Judge | None, info: ValidationInfo) -> Judge | None:
        refuse(of_use(judge, info.data.get("rewards"), info.data.get("eval")))
        return judge

    @field_validator("eval")
    @classmethod
    def _judges_the_data(cls, evaluation: Eval, info: ValidationInfo) -> Eval:
        weights, data = info.data.get("rewards"), info.data.get("data")
        refuse(rules.of_rewards(evaluation, weights, data))
        return evaluation


def of_algorithm(name: Any) -> type[Recipe]:
    """The model of a recipe whose `algorithm` is `name`; without one that of the default.

    A name that is not known is refused by its key alone: [train] is taken for the default's.
    """
    if name is None or (isinstance(name, str) and name in ALGORITHMS):
        return _of_algorithm("grpo" if name is None else name)
    return create_model("Recipe", __base__=Recipe, train=(GRPO.train, GRPO.train()))


@cache
def _of_algorithm(name: str) -> type[Recipe]:
    algorithm = ALGORITHMS[name]
    rewards = Recipe.model_fields["rewards"].description
    about = f"{algorithm.description} ({algorithm.source})."
    keys = " ".join((algorithm.train.__doc__ or "").split())
    fields: dict[str, Any] = {
        "algorithm": (Literal[name], Field(name, description=about)),
        "train": (algorithm.train, Field(algorithm.train(), description=keys)),
    }
    if not algorithm.samples:
        fields["rewards"] = (Rewards, Field({}, description=rewards))
    model = create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **fields)
    model.foreign_keys = FOREIGN_KEYS | rules.keys_of_others(algorithm)
    return model


def for_editors() -> dict[str, Any]:
    """JSON Schema (draft 7) of a recipe. [train] has the keys of all algorithms; `check` knows
    which of them the one that is named takes."""
    root = json_schema.of(of_algorithm("grpo"), "recipe")
    root["properties"]["algorithm"] |= {"enum": list(ALGORITHMS)}
    root["required"].remove("rewards")  # some of the algorithms do without
    root["properties"]["train"]["properties"] = json_schema.merged(
        {name: algorithm.train for name, algorithm in ALGORITHMS.items()}
    )
    return root

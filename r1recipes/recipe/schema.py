"""The recipe as frozen pydantic models: each key with its type, its range and its meaning.

The keys of [train], [lora] and a preset are in `algorithms` (`base` and each algorithm), those of
[cold_start] in `algorithms.sft`, of [data] and [[stage]] in `recipe.sections`, of [export] and
[track] in `recipe.targets`. The JSON Schema for editors comes from here. `recipe.loading` reads
files, `planning.plan` decides: nothing is read or chosen here.

Keys carry the names that Unsloth, vLLM, PEFT and TRL users know; where a library is named in a
field's text, the key is passed on under that name.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, Self, TypeGuard, cast

from pydantic import (
    BeforeValidator,
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

from r1recipes.algorithms import ALGORITHMS, GRPO, Algorithm
from r1recipes.algorithms.base import PRESET_NAME, Lora, Preset, Train
from r1recipes.algorithms.checks import of_dropout
from r1recipes.algorithms.examples import Examples
from r1recipes.algorithms.sft import ColdStart
from r1recipes.config import explain, json_schema
from r1recipes.config.section import (
    ADDED_LATER,
    Batch,
    KeyProblems,
    Section,
    Steps,
    Text,
    Word,
    a_whole_number,
    known_builtin,
    refuse,
    with_problems,
)
from r1recipes.recipe import rules
from r1recipes.recipe.sections.data import Data
from r1recipes.recipe.sections.foreign_keys import (
    FOREIGN_KEYS,
    FOREIGN_VALUES,
    named_sections,
    section_examples,
)
from r1recipes.recipe.sections.stage import COUNTS, AlgorithmName, RewardName, Rewards, Stage
from r1recipes.recipe.targets import Export, Track
from r1recipes.rewards.judge.section import Judge, of_use
from r1recipes.rewards.user_code import is_user_code

BUILTIN_MODELS = ("builtin:tiny", "builtin:small")
MAX_SYSTEM = 20_000
"""Characters of the system message, which stands in every prompt; assumed, about 5,000 tokens."""
SYSTEM_PROMPT = """\
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>
"""


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


class Prompt(Section):
    """What the model sees beside the question."""

    system: Annotated[str, Field(max_length=MAX_SYSTEM)] = SYSTEM_PROMPT
    """System message; an empty text leaves it out. A model without system messages gets it at the
    beginning of the first user message."""
    thinking: Annotated[bool | None, ADDED_LATER, Field(examples=[False])] = None
    """Whether a model that can think before it answers does so: the `enable_thinking` of its chat
    template, as Qwen3 has it; without it as the template has it."""


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
    section_examples = section_examples("24GB")
    named_sections = named_sections("24GB")

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
    stage: Annotated[list[Stage], ADDED_LATER] = []
    """Stages before the training that `algorithm` and [train] describe, which is the last one."""
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
        weights, stages = info.data.get("rewards"), info.data.get("stage", [])
        if judge and weights is not None:  # without one, `of_stage` says which stage needs it
            weights = dict.fromkeys([*weights, *(n for s in stages for n in s.rewards or ())])
        refuse(of_use(judge, weights, info.data.get("eval")))
        return judge

    @field_validator("eval")
    @classmethod
    def _judges_the_data(cls, evaluation: Eval, info: ValidationInfo) -> Eval:
        weights, data = info.data.get("rewards"), info.data.get("data")
        refuse(rules.of_rewards(evaluation, weights, data))
        return evaluation

    @model_validator(mode="after")
    def _has_trainable_stages(self) -> Self:
        problems: KeyProblems = []
        for number, stage in enumerate(self.stage):
            try:
                of_stage(self, stage, self.preset)
            except ValidationError as error:
                problems += _located(error, number)
        refuse(problems)
        return self

    @property
    def reward_names(self) -> list[str]:
        """Every reward that is paid in a stage or decides, each once."""
        of_stages = [name for stage in self.stage for name in stage.rewards or ()]
        return list(dict.fromkeys([*self.rewards, *of_stages, self.eval.reward]))

    @property
    def code_names(self) -> list[str]:
        """The rewards that are functions of the user's own code."""
        return [name for name in self.reward_names if is_user_code(name)]

    @property
    def algorithms(self) -> list[str]:
        """The algorithms of the stages, and of the training after them."""
        return [algorithm.name for algorithm, _ in self.trainings]

    @property
    def trainings(self) -> list[tuple[Algorithm, Train]]:
        """The algorithm and the keys of each stage, and of the training after them."""
        parts: list[Stage | Recipe] = [*self.stage, self]
        return [(ALGORITHMS[part.algorithm], part.train) for part in parts]

    @property
    def stage_names(self) -> list[str]:
        """The names of the stages, such as "1-sft", without the training after them."""
        return [f"{number}-{stage.algorithm}" for number, stage in enumerate(self.stage, 1)]


def of_stage(recipe: Recipe, stage: Stage, presets: Mapping[str, Preset]) -> Recipe:
    """The recipe that trains one stage and nothing else, with `presets` for its settings.

    `data.keep` and `eval.every` belong to the training after the stages. Raises: ValidationError
    where the stage does not go with the rest of the recipe.
    """
    data = recipe.model_dump(exclude={"description", "stage", "export", "track", "preset"})
    own = stage.model_dump(include={"algorithm", "train", "examples"})
    weights = recipe.rewards if stage.rewards is None else stage.rewards
    data |= own | {"rewards": weights}
    data |= {"preset": {name: stage.preset(preset) for name, preset in presets.items()}}
    data["data"]["keep"] = data["eval"]["every"] = None
    if "judge" not in (*weights, recipe.eval.reward):
        data["judge"] = None
    return Recipe.model_validate(data)


def _located(error: ValidationError, number: int) -> KeyProblems:
    """The problems of the recipe of a stage, with their keys in the recipe that has the stage."""
    problems: KeyProblems = []
    for detail in error.errors(include_url=False):
        if detail["type"] != "refused":  # each value is valid, so it is the empty [rewards]
            message = "[rewards] is missing, by which this stage learns"
            hint = "add [rewards] to the recipe, or [stage.rewards] to the stage"
            problems.append((("stage", number), message, hint))
            continue
        for key, message, hint in detail["ctx"]["problems"]:
            path = explain.path_of(detail["loc"], key)
            if path[0] == "preset" and path[-1] in COUNTS:
                path = ("stage", number, path[-1])
            elif path[0] in Stage.model_fields:
                path = ("stage", number, *path)
            problems.append((path, message, hint))
    return problems


def of_algorithm(name: Any) -> type[Recipe]:
    """The model of a recipe whose `algorithm` is `name`; without one that of the default.

    A name that is not known is refused by its key alone: [train] is taken for the default's.
    """
    if name is None or (isinstance(name, str) and name in ALGORITHMS):
        return _of_algorithm("grpo" if name is None else name)
    return create_model("Recipe", __base__=Recipe, train=(GRPO.train, GRPO.train()))


def worded_for(data: Mapping[str, Any]) -> type[Recipe]:
    """The model of a recipe whose messages name a preset of these data, or a built-in model's."""
    model, presets = of_algorithm(data.get("algorithm")), data.get("preset")
    names = [name for name in presets if PRESET_NAME.fullmatch(name)] if _is_table(presets) else []
    if not names and _is_table(own := data.get("model")) and own.get("name") in BUILTIN_MODELS[:1]:
        names = ["cpu"]
    return _worded(model, names[0]) if names else model


@lru_cache(maxsize=64)
def _worded(model: type[Recipe], preset: str) -> type[Recipe]:
    words = {"named_sections": named_sections(preset), "section_examples": section_examples(preset)}
    return cast(type[Recipe], type("Recipe", (model,), words))


def _is_table(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


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
    root["required"].remove("rewards")  # some of the algorithms do without
    keys = json_schema.merged({name: row.train for name, row in ALGORITHMS.items()})
    for section in (root, root["properties"]["stage"]["items"]):
        section["properties"]["algorithm"] |= {"enum": list(ALGORITHMS)}
        section["properties"]["train"]["properties"] = keys
    return root

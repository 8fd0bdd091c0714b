"""The recipe as frozen pydantic models: every key, its type, its range and its meaning.

The JSON Schema for editors comes from here. Nothing is read, chosen or resolved here: `recipe`
reads files, `plan` decides. A key that no module reads is a defect, so there are none.

Keys carry the names that Unsloth, vLLM, PEFT and TRL users know; where a library is named in a
field's text, the key is passed on under that name.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from r1recipes import rewards
from r1recipes.algorithms.base import Preset
from r1recipes.config.section import (
    Batch,
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
from r1recipes.recipe.foreign_keys import (
    FOREIGN_KEYS,
    FOREIGN_VALUES,
    NAMED_SECTIONS,
    SECTION_EXAMPLES,
)
from r1recipes.recipe.targets import Export
from r1recipes.rewards.user_code import is_user_code

FORMAT = 1
BUILTIN_DATA = ("builtin:arithmetic", "builtin:countdown")
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

# TRL passes these to reward functions itself or builds them (trl 1.12 grpo_trainer.py,
# _calculate_rewards), so a column of that name would collide or be dropped.
RESERVED_COLUMNS = (
    "prompt",
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
    "environment",
    "image",
    "images",
)


def known_reward(name: str) -> str:
    """Refuse a reward that is neither in the table nor somebody's own function."""
    if not is_user_code(name) and name not in rewards.REWARDS:
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


Weight = Annotated[float, Field(ge=0, le=1000)]
RewardName = Annotated[str, AfterValidator(known_reward)]
PresetName = Annotated[
    str,
    StringConstraints(pattern=f"^({rules.PRESET_NAME.pattern})$"),
    BeforeValidator(rules.preset_name),
]


class Wandb(Section):
    """Weights & Biases; needs the extra `wandb`, and online an API key."""

    project: Word = "r1recipes"
    """Project that runs are listed under."""
    entity: Annotated[Word | None, Field(examples=["my-team"])] = None
    """User or team; without it the default of the key."""
    mode: Literal["online", "offline"] = "online"
    """"offline" sends nothing and writes into the run folder; `wandb sync` sends it later."""


class Trackio(Section):
    """trackio, kept on this machine and shown by `trackio show`; needs the extra `trackio`."""

    project: Word = "r1recipes"
    """Project that runs are listed under."""


class Track(Section):
    """Trackers beside the metrics that every run keeps; without this section nothing is sent."""

    wandb: Wandb | None = None
    """Weights & Biases, such as `wandb = { project = "r1" }`."""
    tensorboard: bool = False
    """Write TensorBoard's event files into the run folder; needs the extra `tensorboard`."""
    trackio: Trackio | None = None
    """trackio, such as `trackio = { project = "r1" }`."""

    def names(self) -> list[str]:
        """The trackers that are asked for."""
        return [name for name in type(self).model_fields if getattr(self, name)]


class Model(Section):
    """The model that is trained."""

    name: Annotated[Word, Field(examples=["unsloth/Qwen2.5-1.5B-Instruct"])]
    """Hub id, a local folder, or `builtin:tiny`, about 1M parameters built on the spot."""
    revision: Annotated[Word | None, Field(examples=["main"])] = None
    """Commit, tag or branch on the Hub; without it the newest commit, which is then recorded."""
    chat_template: Annotated[Text | None, Field(examples=["template.jinja"])] = None
    """A Jinja template, inline or the name of a file; needed for a base model that has none."""

    @field_validator("name")
    @classmethod
    def _known_builtin(cls, name: str) -> str:
        return known_builtin(name, BUILTIN_MODELS, "unknown built-in model")


Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Lora(Section):
    """The adapter, apart from its rank, which depends on the card. peft: LoraConfig."""

    lora_alpha: Annotated[int | None, Field(ge=1, le=4096, examples=[32])] = None
    """Scale of the adapter; without it equal to lora_rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of adapter inputs that are zeroed in training."""
    target_modules: Annotated[list[Projection], Field(min_length=1)] = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]
    """Layers that get an adapter. All linear layers learn best (arXiv 2106.09685 took fewer)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) in place of alpha / rank."""


class Problems(Section):
    """How hard the problems of a built-in data set are."""

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


class Data(Section):
    """Where questions and reference answers come from."""

    name: Annotated[Word, Field(examples=["openai/gsm8k"])]
    """Hub id, a local .jsonl, .csv or .parquet file, builtin:arithmetic or builtin:countdown."""
    config: Annotated[Word | None, Field(examples=["main"])] = None
    """Configuration of a Hub data set, such as "main"."""
    revision: Annotated[Word | None, Field(examples=["main"])] = None
    """Commit, tag or branch of a Hub data set."""
    split: Word = "train"
    """Split that is trained on."""
    size: Annotated[int | None, Field(ge=1, le=100_000_000, examples=[2000])] = None
    """At most so many training rows, a seeded choice; for built-in data the number made (2000)."""
    question: Text = "question"
    """Column with the question."""
    answer: Text = "answer"
    """Column with the reference answer."""
    answer_after: Annotated[Text | None, Field(examples=["####"])] = None
    """Text in the answer column after which the final answer stands, "####" in GSM8K."""
    eval_split: Annotated[Word | None, Field(examples=["test"])] = None
    """Held-out split; without it eval_size rows are held out of the training split."""
    eval_size: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Number of held-out problems that are evaluated before and after."""
    overlong: Literal["drop", "refuse"] = "drop"
    """What is done with prompts that do not fit beside max_completion_length."""
    problems: Problems | None = None
    """Difficulty of a built-in data set."""

    @field_validator("name")
    @classmethod
    def _known_builtin(cls, name: str) -> str:
        return known_builtin(name, BUILTIN_DATA, "unknown built-in data set")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(rules.of_data(self))
        return self


class Prompt(Section):
    """What the model sees beside the question."""

    system: str = SYSTEM_PROMPT
    """System message; an empty text leaves it out."""


class Train(Section):
    """The algorithm and the optimiser. trl: GRPOConfig, spelled as there."""

    max_steps: Steps = 300
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Peak learning rate; about ten times that of full fine-tuning."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "cosine"
    """Course of the learning rate after the warmup. "constant" has no warmup."""
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"] = (
        "adamw_torch"
    )
    """Optimiser; the 8-bit ones need an NVIDIA GPU."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pull of the adapter's weights towards 0, that is, towards the base model."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Gradients are scaled down to this norm."""
    loss_type: Literal["dapo", "dr_grpo", "grpo", "bnpo", "cispo"] = "dapo"
    """How token losses are averaged (arXiv 2402.03300, 2503.14476, 2503.20783)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Which standard deviation the advantages are divided by."""
    beta: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the KL divergence from the base model; 0 saves the reference pass."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Lower clip range of the probability ratio."""
    epsilon_high: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Upper clip range; DAPO takes 0.28."""
    mask_truncated_completions: bool = False
    """Leave completions that were cut out of the loss."""
    temperature: Annotated[float, Field(gt=0, lt=10)] = 1.0
    """Sampling temperature of the rollouts and of the sampled evaluation."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of the sampling; 1 turns it off."""
    top_k: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Only the k likeliest tokens are sampled; 0 turns it off."""
    min_p: Annotated[float | None, Field(ge=0, le=1, examples=[0.05])] = None
    """Tokens below this share of the likeliest one's probability are not sampled."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Above 1, tokens that occurred become less likely."""
    save_steps: Steps = 25
    """Steps between two checkpoints; the last two are kept."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(rules.of_train(self))
        return self


class ColdStart(Section):
    """A short supervised stage on all weights before GRPO: teaches the format (2501.12948)."""

    steps: Annotated[Steps, Field(examples=[300])]
    """Optimiser steps."""
    batch_size: Batch = 64
    """Demonstrations in a step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Peak learning rate; it rises over a tenth of the steps and falls to 0 as a cosine."""
    wrong: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Built-in data: share of demonstrations that make a mistake."""
    data: Annotated[Word | None, Field(examples=["demonstrations.jsonl"])] = None
    """Local .jsonl, .csv or .parquet file with columns question and completion."""


class Eval(Section):
    """The evaluation before and after training."""

    samples: Annotated[int, Field(ge=1, le=256)] = 4
    """Completions for each held-out problem, sampled at train.temperature."""
    reward: RewardName = "correctness"
    """The reward that decides: a completion is right when it pays 1."""
    batch_size: Batch = 64
    """Completions that are generated at once."""


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
    algorithm: Literal["grpo"] = "grpo"
    """Group relative policy optimisation (arXiv 2402.03300)."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 3407
    """Seed of the data, the adapter, the sampling and the trainer."""
    model: Model
    data: Data
    prompt: Prompt = Prompt()
    rewards: Annotated[
        dict[RewardName, Weight], Field(min_length=1, json_schema_extra=rewards_schema)
    ]
    """Reward = weight. The name is one of the table or `file.py:function`."""
    lora: Lora = Lora()
    train: Train = Train()
    cold_start: Annotated[ColdStart | None, Field(validate_default=True)] = None
    eval: Annotated[Eval, Field(validate_default=True)] = Eval()
    export: Export = Export()
    preset: Annotated[dict[PresetName, Preset], Field(min_length=1)]
    """Settings by memory of the card; the largest that the card can hold is used."""
    track: Track = Track()
    """Trackers beside the metrics that every run keeps; no part of the fingerprint."""

    @field_validator("rewards")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and not any(weights.values()):
            message = "every reward has weight 0: nothing to learn from"
            refuse([("", message, "give one a weight, such as `correctness = 2.0`")])
        return weights

    @field_validator("preset", mode="wrap")
    @classmethod
    def _fit_their_names(
        cls, given: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> dict[str, Preset]:
        found = rules.of_presets(given)
        try:
            presets = validate(given)
        except ValidationError as error:
            if found:  # report these beside the errors within a preset
                raise with_problems(error, found) from None
            raise
        refuse(found)
        return presets

    @field_validator("cold_start")
    @classmethod
    def _has_demonstrations(cls, start: ColdStart | None, info: ValidationInfo) -> ColdStart | None:
        refuse(rules.of_cold_start(start, info.data.get("model"), info.data.get("data")))
        return start

    @field_validator("eval")
    @classmethod
    def _judges_the_data(cls, evaluation: Eval, info: ValidationInfo) -> Eval:
        weights, data = info.data.get("rewards"), info.data.get("data")
        refuse(rules.of_rewards(evaluation, weights, data))
        return evaluation


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of a recipe, for editors."""
    from r1recipes.config import json_schema

    return json_schema.of(Recipe, "recipe")

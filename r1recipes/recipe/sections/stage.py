"""The section [[stage]]: a training before the one that `algorithm` and [train] describe.

A stage is trained as the recipe that `schema.of_stage` makes of it. Limits: model, data, prompt,
adapter, lengths and evaluation are those of the recipe; counts are numbers, never "auto".
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    create_model,
    model_validator,
)

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.base import Preset, Train
from r1recipes.algorithms.examples import Examples
from r1recipes.config.section import MAX_COUNT, Section
from r1recipes.recipe import rules

AlgorithmName = Annotated[str, AfterValidator(rules.known_algorithm)]
Weight = Annotated[float, Field(ge=0, le=1000)]
RewardName = Annotated[str, AfterValidator(rules.known_reward)]
Rewards = Annotated[dict[RewardName, Weight], Field(json_schema_extra=rules.rewards_schema)]
COUNTS = ("prompts_per_step", "num_generations", "per_device_train_batch_size")
"""Keys of a preset that a stage may have."""


class Stage(Section):
    """A stage before the training that `algorithm` and [train] describe, such as sft before grpo.
    It goes on with the adapter of the stage before, with a new optimiser."""

    algorithm: Annotated[AlgorithmName, Field(examples=["sft"])]
    """How this stage is trained; [stage.train] has the keys of this algorithm."""
    train: SerializeAsAny[Train] = Train()
    """The keys of the algorithm. The evaluations sample as [train] of the recipe says."""
    examples: Examples | None = None
    rewards: Annotated[Rewards | None, Field(min_length=1)] = None
    """Reward = weight, in this stage; without it [rewards] of the recipe."""
    prompts_per_step: Annotated[int | None, Field(ge=1, le=MAX_COUNT, examples=[32])] = None
    """In this stage, in place of that of the preset."""
    num_generations: Annotated[int | None, Field(ge=2, le=1024, examples=[8])] = None
    """In this stage, in place of that of the preset."""
    per_device_train_batch_size: Annotated[int | None, Field(ge=1, le=MAX_COUNT, examples=[32])] = (
        None
    )
    """In this stage, in place of that of the preset."""

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_algorithm(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """`Stage` itself stands for the stages of all algorithms: take the one that is named."""
        name = data.get("algorithm") if isinstance(data, Mapping) else None
        if cls is Stage and isinstance(name, str) and name in ALGORITHMS:
            return cast(Self, _of_algorithm(name).model_validate(data))
        return validate(data)

    def preset(self, preset: Preset) -> dict[str, Any]:
        """The keys of a preset, with those of the stage in their place."""
        own = {key: getattr(self, key) for key in COUNTS if getattr(self, key) is not None}
        return preset.model_dump() | own


@cache
def _of_algorithm(name: str) -> type[Stage]:
    train = ALGORITHMS[name].train
    fields: dict[str, Any] = {"algorithm": (Literal[name], ...), "train": (train, train())}
    return create_model("Stage", __base__=Stage, __doc__=Stage.__doc__, **fields)

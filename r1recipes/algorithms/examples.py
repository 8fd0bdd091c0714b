"""The section [examples], and what algorithms that learn from examples share.

An example is a question with the columns of the algorithm, such as a completion, or a chosen and a
rejected one. Limits: one question and its answers, no conversation of several turns; nothing is
read or sampled here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from r1recipes.algorithms.step import Step
from r1recipes.config.section import Section, Text, Word

TIMED = {"training_step": "step"}
"""Nothing is sampled in a step, so that all of it is passes of the model."""


class Examples(Section):
    """What sft and dpo learn from; without this section, samples of the model itself."""

    name: Annotated[Word, Field(examples=["pairs.jsonl"])]
    """Hub id or local file with a column of questions and the columns that the algorithm learns
    from: completion for sft, chosen and rejected for dpo."""
    config: Annotated[Word | None, Field(examples=["default"])] = None
    """Configuration of a Hub data set."""
    revision: Annotated[Word | None, Field(examples=["main"])] = None
    """Commit, tag or branch of a Hub data set."""
    split: Word = "train"
    """Split of a Hub data set."""
    question: Annotated[Text | None, Field(examples=["prompt"])] = None
    """Column with the question; without it `question` or else `prompt`."""


Fact = tuple[str, str, Literal["%", ""]]
"""(the trainer's name of a metric, what people call it, its unit)."""


@dataclass(frozen=True)
class Scored:
    """A sample of the model that ended by itself, and what the rewards of the recipe say of it."""

    text: str
    total: float
    """The weighted sum of [rewards]; 0 where the algorithm does not go by it."""
    is_right: bool
    """Whether `eval.reward` pays 1 or more."""


@dataclass(frozen=True)
class Learned:
    """What an algorithm learns from: the form of its examples, and how samples become some."""

    noun: str
    """What an example is called, such as "pair"."""
    columns: dict[str, Literal["text", "flag"]]
    """The columns of an example beside its question. Each text is a completion."""
    choose: Callable[[Sequence[Scored]], list[dict[str, str | bool]]]
    """The samples of one question -> its examples, by column; none where they teach nothing."""
    by_rewards: bool
    """Whether `choose` goes by [rewards], and not by `eval.reward` alone."""
    teaches: str
    """Which samples teach something, in words for people, such as "right samples"."""
    facts: tuple[Fact, ...]
    """Metrics of a step that tell how well its examples are fitted."""

    @property
    def sequences(self) -> int:
        """Completions of one example."""
        return sum(kind == "text" for kind in self.columns.values())

    def step(self, preset: Any) -> Step:
        """A step has `prompts_per_step` examples. A pass of more completions than these has all of
        them; without a size of the passes it is `num_generations`, or less where that divides."""
        each, examples = self.sequences, preset.prompts_per_step
        default = each * math.gcd(examples, max(1, preset.num_generations // each))
        batch = preset.per_device_train_batch_size or default
        return Step(each * examples, min(batch, each * examples), each)

    def example(self, count: int) -> str:
        """`1 pair`, `64 pairs`."""
        return f"{count:,} {self.noun}" + "s" * (count != 1)

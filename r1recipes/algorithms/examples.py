"""The section [examples], and what algorithms that learn from examples share.

An example is a question with the columns of the algorithm, such as a completion, or a chosen and a
rejected one. Limits: one question and its answers, no conversation of several turns; nothing is
read or sampled here.
"""

from typing import Annotated

from pydantic import Field

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

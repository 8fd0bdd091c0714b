"""Examples as the trainer takes them: as messages, without those that do not fit a sequence.

Limits: lengths are those of the chat template over prompt and completion, as TRL's trainers
tokenise them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r1recipes.algorithms.base import Preset
from r1recipes.algorithms.examples import Learned
from r1recipes.data.examples.reading import Row, learned
from r1recipes.data.splits import messages
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

BATCH = 1000
"""Examples that are tokenised at once; assumed."""


def fitting(
    rows: Sequence[Row],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    preset: Preset,
) -> tuple[datasets.Dataset, list[str]]:
    """The rows that fit into a sequence of the training, as the trainer takes them, and lines on
    those that do not.

    Raises: RecipeError where too few are left for a step, or the chat template does not continue a
    prompt by its completion, so that the trainer would learn from a part of it.
    """
    import datasets

    form, limit = learned(recipe), preset.max_seq_length
    made = [_messages(row, recipe, form) for row in rows]
    longest = [0] * len(made)
    for column, kind in form.columns.items():
        if kind == "text":
            lengths = _lengths(made, column, form, tokenizer)
            longest = [max(pair) for pair in zip(longest, lengths, strict=True)]
    fits = [row for row, length in zip(made, longest, strict=True) if length <= limit]
    num_too_long = len(made) - len(fits)
    fact = (
        f"{form.example(num_too_long)} of {len(made):,} have more than max_seq_length {limit} "
        f"tokens (the longest has {max(longest, default=0)})"
    )
    if len(fits) < preset.prompts_per_step:
        too_long = f"{fact}; " if num_too_long else ""
        raise RecipeError(
            f"{too_long}{form.example(len(fits))} do not fill a step of {preset.prompts_per_step} "
            "(`prompts_per_step`)",
            hint=f"set `max_seq_length = {max(longest)}` in the preset"
            if num_too_long
            else f"add {form.noun}s, or lower `prompts_per_step` in the preset",
        )
    return datasets.Dataset.from_list(fits), [f"{fact} and are left out"] * bool(num_too_long)


def _messages(row: Row, recipe: Recipe, form: Learned) -> Row:
    made: Row = {"prompt": messages(row["question"], recipe)}
    for name, kind in form.columns.items():
        is_text = kind == "text"
        made[name] = [{"role": "assistant", "content": row[name]}] if is_text else row[name]
    return made


def _lengths(
    rows: Sequence[Row], column: str, form: Learned, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Tokens of each prompt with its completion. Raises: RecipeError, see `fitting`."""
    lengths: list[int] = []
    broken = 0
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        prompts = _ids([row["prompt"] for row in batch], tokenizer, prompt=True)
        wholes = _ids([[*row["prompt"], *row[column]] for row in batch], tokenizer, prompt=False)
        lengths += map(len, wholes)
        pairs = zip(prompts, wholes, strict=True)
        broken += sum(whole[: len(prompt)] != prompt for prompt, whole in pairs)
    if broken:
        raise RecipeError(
            f"in {broken:,} of {len(rows):,} {form.noun}s the chat template writes `{column}` "
            "otherwise than as the continuation of the prompt",
            hint="let each completion begin with what the template writes after a prompt, such as "
            "`<think>`, or set `model.chat_template` to one without it",
        )
    return lengths


def _ids(
    conversations: list[Any], tokenizer: PreTrainedTokenizerBase, *, prompt: bool
) -> list[list[int]]:
    batch = tokenizer.apply_chat_template(
        conversation=conversations,
        add_generation_prompt=prompt,
        tokenize=True,
        return_dict=True,
    )
    assert isinstance(batch, Mapping)  # by return_dict
    ids: list[list[int]] = batch["input_ids"]
    return ids

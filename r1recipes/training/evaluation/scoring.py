"""Answers to the held-out problems, and which of them are right.

Accuracy is sampled pass@1: the mean over problems of the share of right completions at the
training temperature. `greedy` is the share of problems that the most likely completion solves.
Base and trained model answer the same prompts with the same seed. Limits: one question and one
final answer a problem; the statistics of the answers are in `runs.statistics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from r1recipes.rewards import is_right
from r1recipes.runs.reading import Row
from r1recipes.training.backends.base import Messages, Sample

Generate = Callable[[list[Messages], int, bool], list[list[Sample]]]
"""(prompts, completions for each prompt, greedy) -> the samples of each prompt."""
Score = Callable[..., list[float | None]]
"""A reward with TRL's signature."""


def evaluate(
    rows: Sequence[Row], num_samples: int, generate: Generate, score: Score
) -> list[dict[str, Any]]:
    """Answer every row and score the answers; a completion is right when `score` pays 1 or more.

    Returns one dict per problem: question, answer, samples (text, num_tokens, cut, right), greedy.
    """
    prompts = [row["prompt"] for row in rows]
    sampled = generate(prompts, num_samples, False)
    greedy = [group[0] for group in generate(prompts, 1, True)]
    groups = [[*group, first] for group, first in zip(sampled, greedy, strict=True)]
    right = iter(right_ones(rows, groups, score))
    items: list[dict[str, Any]] = []
    for row, group in zip(rows, groups, strict=True):
        answers = [asdict(sample) | {"right": next(right)} for sample in group]
        items.append(
            {
                "question": row["prompt"][-1]["content"],
                "answer": row["answer"],
                "samples": answers[:-1],
                "greedy": answers[-1],
            }
        )
    return items


def num_right(rows: Sequence[Row], groups: list[list[Sample]], score: Score) -> list[int]:
    """How many samples of each row are right; `groups` has the same number for each."""
    right, size = right_ones(rows, groups, score), len(groups[0])
    return [sum(right[start : start + size]) for start in range(0, len(right), size)]


def right_ones(rows: Sequence[Row], groups: list[list[Sample]], score: Score) -> list[bool]:
    """Whether each sample is right, in the order of the rows and of their samples."""
    arguments = reward_arguments(rows, [[sample.text for sample in group] for group in groups])
    return [is_right(value) for value in score(**arguments)]


def reward_arguments(rows: Sequence[Row], texts: list[list[str]]) -> dict[str, list[Any]]:
    """What TRL calls a reward with: each row repeated for each of its completions."""
    repeated = [row for row, group in zip(rows, texts, strict=True) for _ in group]
    columns = {key: [row[key] for row in repeated] for key in rows[0] if key != "prompt"}
    completions = [[{"role": "assistant", "content": text}] for group in texts for text in group]
    prompts = [row["prompt"] for row in repeated]
    return {"prompts": prompts, "completions": completions, **columns}

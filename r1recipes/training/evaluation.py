"""Answers to the held-out problems, and the probe: can the untrained model learn from its samples?

Accuracy is sampled pass@1: the mean over problems of the share of right completions at the
training temperature. `greedy` is the share of problems that the most likely completion solves.
Base and trained model answer the same prompts with the same seed. Limits: one question and one
final answer a problem; the statistics of the answers are in `runs.statistics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r1recipes.errors import RunError
from r1recipes.runs.reading import Row
from r1recipes.training.backends.base import Messages, Sample

MIN_CUT = 8
"""Completions before a run is refused for cuts; derived. More than 0.9 of 8 completions means all
8, and if half of all completions were cut, chance would cut all 8 once in 256."""
MIN_GROUPS = 16
"""Groups before a run is refused because no group has spread; derived. If a fifth of the groups had
spread, chance would show none in 16 groups once in 35."""
MIN_SINGLES = 20
"""The same where each problem has one completion, so that all of them are judged as one group;
derived. If one completion in seven earned something else, chance would show none in 20 once in 22.
"""

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
    right = iter(_right(rows, groups, score))
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


def _right(rows: Sequence[Row], groups: list[list[Sample]], score: Score) -> list[bool]:
    arguments = _reward_arguments(rows, [[sample.text for sample in group] for group in groups])
    return [value is not None and value >= 1.0 for value in score(**arguments)]


def _reward_arguments(rows: Sequence[Row], texts: list[list[str]]) -> dict[str, list[Any]]:
    """What TRL calls a reward with: each row repeated for each of its completions."""
    repeated = [row for row, group in zip(rows, texts, strict=True) for _ in group]
    columns = {key: [row[key] for row in repeated] for key in rows[0] if key != "prompt"}
    completions = [[{"role": "assistant", "content": text}] for group in texts for text in group]
    prompts = [row["prompt"] for row in repeated]
    return {"prompts": prompts, "completions": completions, **columns}


@dataclass(frozen=True)
class Probe:
    """What the samples of the untrained model say about whether anything can be learned."""

    share_cut: float
    share_rewarded: float
    share_spread: float
    """Share of groups whose completions do not all earn the same. With one completion for each
    problem, all completions are one group."""
    num_problems: int
    num_samples: int
    """Completions for each problem."""


def probe(
    items: list[dict[str, Any]], rows: Sequence[Row], rewards: Sequence[tuple[Score, float]]
) -> Probe:
    """Pay the samples of an evaluation as training would pay them. `rewards`: (reward, weight)."""
    texts = [[sample["text"] for sample in item["samples"]] for item in items]
    arguments = _reward_arguments(rows, texts)
    totals = [0.0] * len(arguments["prompts"])
    for reward, weight in rewards:
        paid = reward(**arguments)
        totals = [t + weight * (value or 0.0) for t, value in zip(totals, paid, strict=True)]
    size = len(texts[0])
    width = size if size > 1 else len(totals)
    groups = [totals[i : i + width] for i in range(0, len(totals), width)]
    cut = [sample["cut"] for item in items for sample in item["samples"]]
    return Probe(
        share_cut=sum(cut) / len(cut),
        share_rewarded=sum(total > 0 for total in totals) / len(totals),
        share_spread=sum(max(group) - min(group) > 1e-6 for group in groups) / len(groups),
        num_problems=len(texts),
        num_samples=size,
    )


def refuse_hopeless(result: Probe, max_completion_length: int, temperature: float) -> None:
    """Refuse to train when the probe shows that nothing can be learned. Raises: RunError (reward).

    A handful of completions proves nothing and is let through.
    """
    if result.share_cut > 0.9 and result.num_problems * result.num_samples >= MIN_CUT:
        raise RunError(
            f"{result.share_cut:.0%} of the completions are cut at max_completion_length = "
            f"{max_completion_length} before they end, so hardly any can be right",
            kind="reward",
            hint="raise `max_completion_length`, or train anyway with `--force`",
        )
    is_single = result.num_samples == 1
    if result.share_spread == 0 and result.num_problems >= (
        MIN_SINGLES if is_single else MIN_GROUPS
    ):
        if result.share_rewarded == 0:
            why, hint = "no completion earns any reward", "start from a model that knows the format"
        else:
            group = "all completions" if is_single else "all completions of each prompt"
            why = f"{group} earn the same"
            hint = f"raise `train.temperature` ({temperature}), or use harder problems"
        raise RunError(
            f"nothing can be learned: {why}, and GRPO learns from differences within a group",
            kind="reward",
            hint=f"{hint}, or train anyway with `--force`",
        )

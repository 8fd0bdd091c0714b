"""Accuracy on the held-out problems before and after, with intervals, and the probe.

Accuracy is sampled pass@1: the mean over problems of the share of right completions at the
training temperature; `greedy` is the share of problems that the likeliest completion solves.
Both models answer the same prompts with the same seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r1recipes.errors import RunError
from r1recipes.training.backends.base import Sample

MIN_CUT = 8
"""Completions before a run is refused for cuts: of 8, more than 0.9 means all, and if half of
all completions were cut, chance would cut all 8 once in 256."""
MIN_GROUPS = 16
"""Groups before a run is refused for want of spread: if a fifth of the groups had some, chance
would show none of 16 once in 35."""
MIN_SINGLES = 20
"""The same where each problem has one completion, which are then judged as one group; if one
completion in seven earned something else, chance would show none of 20 once in 22."""


# (prompts, completions per prompt, greedy) -> for each prompt its samples
Generate = Callable[[list[list[dict[str, str]]], int, bool], list[list[Sample]]]
Score = Callable[..., list[float | None]]


def evaluate(rows: Sequence[dict[str, Any]], num_samples: int, generate: Generate, score: Score):
    """Answer every row and score it.

    `score` is a reward with TRL's signature; a completion is right when it pays 1 or more.
    Returns one dict per problem: question, answer, samples (text, num_tokens, cut, right), greedy.
    """
    prompts = [row["prompt"] for row in rows]
    sampled = generate(prompts, num_samples, False)
    greedy = [group[0] for group in generate(prompts, 1, True)]
    groups = [[*group, first] for group, first in zip(sampled, greedy, strict=True)]
    right = iter(_right(rows, groups, score))
    items = []
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


def _right(rows: Sequence[dict], groups: list[list[Sample]], score: Score) -> list[bool]:
    repeated = [row for row, group in zip(rows, groups, strict=True) for _ in group]
    completions = [
        [{"role": "assistant", "content": sample.text}] for group in groups for sample in group
    ]
    columns = {key: [row[key] for row in repeated] for key in rows[0] if key != "prompt"}
    paid = score(prompts=[row["prompt"] for row in repeated], completions=completions, **columns)
    return [value is not None and value >= 1.0 for value in paid]


@dataclass(frozen=True)
class Probe:
    """What the untrained model's samples say about whether anything can be learned."""

    share_cut: float
    share_rewarded: float
    share_spread: float
    """Share of groups whose completions are not all paid the same. With one completion for each
    problem all of them are one group."""
    num_problems: int
    num_samples: int
    """Completions for each problem."""


def probe(items: list[dict[str, Any]], rows: Sequence[dict], rewards: dict[Score, float]) -> Probe:
    """Pay the samples of an evaluation as training would. `rewards` maps reward -> weight."""
    texts = [[sample["text"] for sample in item["samples"]] for item in items]
    repeated = [row for row, group in zip(rows, texts, strict=True) for _ in group]
    completions = [[{"role": "assistant", "content": t}] for group in texts for t in group]
    columns = {key: [row[key] for row in repeated] for key in rows[0] if key != "prompt"}
    prompts = [row["prompt"] for row in repeated]
    totals = [0.0] * len(repeated)
    for reward, weight in rewards.items():
        paid = reward(prompts=prompts, completions=completions, **columns)
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


def refuse_hopeless(found: Probe, max_completion_length: int, temperature: float) -> None:
    """Raises: RunError (reward) when training on what the probe saw cannot teach anything.

    A handful of completions proves nothing and is let through.
    """
    if found.share_cut > 0.9 and found.num_problems * found.num_samples >= MIN_CUT:
        raise RunError(
            f"{found.share_cut:.0%} of the completions are cut at max_completion_length = "
            f"{max_completion_length} before they end, so hardly any can be right",
            kind="reward",
            hint="raise `max_completion_length`, or train all the same with `--force`",
        )
    enough = MIN_GROUPS if found.num_samples > 1 else MIN_SINGLES
    if found.share_spread == 0 and found.num_problems >= enough:
        if found.share_rewarded == 0:
            why, hint = "no completion earns any reward", "start from a model that knows the format"
        else:
            whose = "all completions of each prompt" if found.num_samples > 1 else "all completions"
            why = f"{whose} earn the same"
            hint = f"raise `train.temperature` ({temperature}), or take harder problems"
        raise RunError(
            f"nothing can be learned: {why}, and GRPO learns from differences within a group",
            kind="reward",
            hint=f"{hint}, or train all the same with `--force`",
        )

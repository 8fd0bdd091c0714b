"""Accuracy on the held-out problems before and after, with intervals, and the probe.

Accuracy is sampled pass@1: the mean over problems of the share of right completions at the
training temperature; `greedy` is the share of problems that the likeliest completion solves.
Both models answer the same prompts with the same seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from r1recipes.errors import RunError

Z_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Sample:
    """One completion. `cut` means that it reached the length limit before its end."""

    text: str
    num_tokens: int
    cut: bool


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


def summary(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its 95 % Wilson interval, greedy accuracy, length and share cut.

    The samples of one problem are not independent, so the interval uses the effective number of
    trials p(1-p) / Var(mean over problems), between the number of problems and of samples
    (Kish's design effect).
    """
    shares = [_share(item) for item in items]
    samples = [sample for item in items for sample in item["samples"]]
    accuracy = sum(shares) / len(shares)
    effective = _effective_trials(shares, len(samples))
    greedy = sum(item["greedy"]["right"] for item in items) / len(items)
    return {
        "accuracy": accuracy,
        "interval": wilson(accuracy, effective),
        "greedy": greedy,
        "greedy_interval": wilson(greedy, len(items)),
        "num_problems": len(items),
        "num_samples": len(samples) // len(items),
        "mean_length": sum(sample["num_tokens"] for sample in samples) / len(samples),
        "share_cut": sum(sample["cut"] for sample in samples) / len(samples),
    }


def _share(item: dict[str, Any]) -> float:
    return sum(sample["right"] for sample in item["samples"]) / len(item["samples"])


def _effective_trials(shares: list[float], num_samples: int) -> float:
    n, mean = len(shares), sum(shares) / len(shares)
    spread = sum((share - mean) ** 2 for share in shares) / max(1, n - 1)
    if spread == 0 or mean in (0.0, 1.0):
        return float(n)
    return min(max(mean * (1 - mean) / (spread / n), n), num_samples)


def wilson(share: float, trials: float) -> tuple[float, float]:
    """95 % Wilson score interval of a share out of `trials` (Wilson 1927)."""
    z2 = Z_95**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    inside = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = Z_95 * math.sqrt(max(0.0, inside)) / (1 + z2 / trials)
    low, high = max(0.0, center - half), min(1.0, center + half)
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Paired difference of accuracy, after - before, with its 95 % interval over the problems."""
    gains = [_share(b) - _share(a) for a, b in zip(before, after, strict=True)]
    n, mean = len(gains), sum(gains) / len(gains)
    variance = sum((gain - mean) ** 2 for gain in gains) / max(1, n - 1)
    half = Z_95 * math.sqrt(variance / n)
    return {"mean": mean, "interval": (mean - half, mean + half)}


@dataclass(frozen=True)
class Probe:
    """What the untrained model's samples say about whether anything can be learned."""

    share_cut: float
    share_rewarded: float
    share_spread: float
    """Share of groups whose completions are not all paid the same."""


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
    groups = [totals[i : i + size] for i in range(0, len(totals), size)]
    cut = [sample["cut"] for item in items for sample in item["samples"]]
    return Probe(
        share_cut=sum(cut) / len(cut),
        share_rewarded=sum(total > 0 for total in totals) / len(totals),
        share_spread=sum(max(group) - min(group) > 1e-6 for group in groups) / len(groups),
    )


def refuse_hopeless(found: Probe, max_completion_length: int, temperature: float) -> None:
    """Raises: RunError (reward) when training on what the probe saw cannot teach anything."""
    if found.share_cut > 0.9:
        raise RunError(
            f"{found.share_cut:.0%} of the completions are cut at max_completion_length = "
            f"{max_completion_length} before they end, so hardly any can be right",
            kind="reward",
            hint="raise `max_completion_length`, or train all the same with `--force`",
        )
    if found.share_spread == 0:
        if found.share_rewarded == 0:
            why, hint = "no completion earns any reward", "start from a model that knows the format"
        else:
            why = "all completions of each prompt earn the same"
            hint = f"raise `train.temperature` ({temperature}), or take harder problems"
        raise RunError(
            f"nothing can be learned: {why}, and GRPO learns from differences within a group",
            kind="reward",
            hint=f"{hint}, or train all the same with `--force`",
        )

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
MIN_CUT = 8
"""Completions before a run is refused for cuts: of 8, more than 0.9 means all, and if half of
all completions were cut, chance would cut all 8 once in 256."""
MIN_GROUPS = 16
"""Groups before a run is refused for want of spread: if a fifth of the groups had some, chance
would show none of 16 once in 35."""
MIN_SINGLES = 20
"""The same where each problem has one completion, which are then judged as one group; if one
completion in seven earned something else, chance would show none of 20 once in 22."""


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


def wilson(share: float, trials: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a share out of `trials`, 95 % unless told otherwise (Wilson 1927).

    `z` is the number of standard errors on each side.
    """
    z2 = z**2
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    inside = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = z * math.sqrt(max(0.0, inside)) / (1 + z2 / trials)
    low, high = max(0.0, center - half), min(1.0, center + half)
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)


def difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Paired difference of accuracy, after - before, with its 95 % interval over the problems.

    Where every problem gained the same (or there is only one), the spread of the gains says
    nothing; the interval is then Newcombe's for unpaired samples, which is conservative here.
    """
    gains = [_share(b) - _share(a) for a, b in zip(before, after, strict=True)]
    n, mean = len(gains), sum(gains) / len(gains)
    if max(gains) - min(gains) < 1e-9:
        first, second = summary(before), summary(after)
        interval = newcombe(
            first["accuracy"], first["interval"], second["accuracy"], second["interval"]
        )
        return {"mean": mean, "interval": interval}
    half = Z_95 * math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (n - 1) / n)
    return {"mean": mean, "interval": (max(-1.0, mean - half), min(1.0, mean + half))}


def newcombe(
    before: float, first: tuple[float, float], after: float, second: tuple[float, float]
) -> tuple[float, float]:
    """95 % interval of after - before from the Wilson interval of each (Newcombe 1998, method 10).

    For unpaired samples; conservative where the same problems are answered twice.
    """
    low = after - before - math.hypot(after - second[0], first[1] - before)
    high = after - before + math.hypot(second[1] - after, before - first[0])
    return max(-1.0, low), min(1.0, high)


def pass_at_k(items: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Share of problems that k samples solve at least once, for k = 1, 2, 4 ... n, with interval.

    Unbiased from n samples of which c are right: 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374). The
    interval is Wilson's with the effective number of trials, as in `summary`.
    """
    n = len(items[0]["samples"])
    right = [sum(sample["right"] for sample in item["samples"]) for item in items]
    found = {}
    for k in sorted({2**power for power in range(n.bit_length())} | {n}):
        shares = [1 - math.comb(n - c, k) / math.comb(n, k) for c in right]
        mean = sum(shares) / len(shares)
        trials = _effective_trials(shares, n * len(items))
        found[k] = {"mean": mean, "interval": wilson(mean, trials)}
    return found


def majority(items: list[dict[str, Any]], label: Callable[[str], str | None]) -> dict[str, Any]:
    """Share of problems whose most frequent answer is right (arXiv 2203.11171), with interval.

    `label` names the answer in a completion, or None where there is none: no vote. Of answers
    with the same number of votes each counts its share, as if one were drawn.
    """
    shares = []
    for item in items:
        votes: dict[str, list[bool]] = {}
        for sample in item["samples"]:
            name = label(sample["text"])
            if name is not None:
                votes.setdefault(name, []).append(sample["right"])
        most = max(map(len, votes.values()), default=0)
        first = [sum(rights) / most for rights in votes.values() if len(rights) == most]
        shares.append(sum(first) / len(first) if first else 0.0)
    mean = sum(shares) / len(shares)
    return {"mean": mean, "interval": wilson(mean, len(shares))}


def mcnemar(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Problems that the greedy answer gained and lost, and McNemar's exact two-sided p.

    p is the chance of a split at least as uneven if gains and losses were equally likely.
    """
    pairs = [
        (b["greedy"]["right"], a["greedy"]["right"]) for b, a in zip(before, after, strict=True)
    ]
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    # Whole numbers divided by one another: 2.0**-n alone would be 0 from some thousand on.
    return {"gained": gained, "lost": lost, "p": min(1.0, 2 * tail / 2**n)}


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

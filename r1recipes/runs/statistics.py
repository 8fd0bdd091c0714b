"""Statistics of evaluations: accuracy and its interval, differences, pass@k, McNemar, Student's t.

Limits: arithmetic on the rows of an evaluation only; nothing is sampled, read or written here.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

Z_95 = NormalDist().inv_cdf(0.975)


def summary(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its 95 % Wilson interval, greedy accuracy, length and share cut.

    The samples of one problem are not independent, so the interval uses the effective number of
    trials p(1-p) / Var(mean over problems), between the number of problems and of samples
    (Kish's design effect).
    """
    samples = [sample for item in items for sample in item["samples"]]
    accuracy, interval = pass_at_1([[s["right"] for s in item["samples"]] for item in items])
    greedy = sum(item["greedy"]["right"] for item in items) / len(items)
    return {
        "accuracy": accuracy,
        "interval": interval,
        "greedy": greedy,
        "greedy_interval": wilson(greedy, len(items)),
        "num_problems": len(items),
        "num_samples": len(samples) // len(items),
        "mean_length": sum(sample["num_tokens"] for sample in samples) / len(samples),
        "share_cut": sum(sample["cut"] for sample in samples) / len(samples),
    }


def pass_at_1(groups: Sequence[Sequence[bool]]) -> tuple[float, tuple[float, float]]:
    """Accuracy and its 95 % interval, as in `summary`, from whether each sample is right.

    A group has the samples of one problem.
    """
    shares = [sum(group) / len(group) for group in groups]
    accuracy = sum(shares) / len(shares)
    trials = _effective_trials(shares, sum(len(group) for group in groups))
    return accuracy, wilson(accuracy, trials)


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

    Where every problem gained the same, or there is only one problem, the gains have no spread to
    estimate an interval from; it is then Newcombe's for unpaired samples, which is conservative.
    """
    gains = [_share(b) - _share(a) for a, b in zip(before, after, strict=True)]
    n, mean = len(gains), sum(gains) / len(gains)
    if max(gains) - min(gains) < 1e-9:
        first, second = summary(before), summary(after)
        low, high = newcombe(
            first["accuracy"], first["interval"], second["accuracy"], second["interval"]
        )
        return {"mean": mean, "interval": (max(-1.0, low), min(1.0, high))}
    half = Z_95 * math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (n - 1) / n)
    return {"mean": mean, "interval": (max(-1.0, mean - half), min(1.0, mean + half))}


def newcombe(
    before: float, first: tuple[float, float], after: float, second: tuple[float, float]
) -> tuple[float, float]:
    """Interval of after - before from the interval of each (Newcombe 1998, method 10).

    It is as many standard errors wide as those two, which are Wilson's for shares. For unpaired
    samples; conservative where the same problems are answered twice.
    """
    low = after - before - math.hypot(after - second[0], first[1] - before)
    high = after - before + math.hypot(second[1] - after, before - first[0])
    return low, high


def pass_at_k(items: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Share of problems that k samples solve at least once, for k = 1, 2, 4 ... n, with interval.

    The estimate from n samples of which c are right is unbiased: 1 - C(n-c, k) / C(n, k)
    (arXiv 2107.03374). The interval is Wilson's with the effective number of trials, as in
    `summary`.
    """
    n = len(items[0]["samples"])
    right = [sum(sample["right"] for sample in item["samples"]) for item in items]
    estimates = {}
    for k in sorted({2**power for power in range(n.bit_length())} | {n}):
        shares = [1 - math.comb(n - c, k) / math.comb(n, k) for c in right]
        mean = sum(shares) / len(shares)
        trials = _effective_trials(shares, n * len(items))
        estimates[k] = {"mean": mean, "interval": wilson(mean, trials)}
    return estimates


def majority(items: list[dict[str, Any]], label: Callable[[str], str | None]) -> dict[str, Any]:
    """Share of problems whose most frequent answer is right (arXiv 2203.11171), with interval.

    `label` returns the answer in a completion, or None where there is none, and so no vote. Where
    answers tie, each counts its share, as if one of them were drawn.
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
    # Division of integers: the float 2.0**-n would be 0 for n above a thousand.
    return {"gained": gained, "lost": lost, "p": min(1.0, 2 * tail / 2**n)}


T_QUANTILES = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1 to 10 degrees of freedom; published (NIST/SEMATECH
1.3.6.7.2)."""


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of independent values, by Student's t; None for fewer than two."""
    freedom = len(values) - 1
    if freedom < 1:
        return None
    is_in_table = freedom <= len(T_QUANTILES)
    # Beyond the table: the expansion of Abramowitz and Stegun 26.7.5, exact to a thousandth.
    expansion = 1.96 + 2.372 / freedom + 2.82 / freedom**2
    quantile = T_QUANTILES[freedom - 1] if is_in_table else expansion
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half

"""Runs with a known truth and the noise of real ones, to count how often a verdict is wrong.

The probabilities of a right answer and of the format follow a curve. Each prompt has its own
difficulty (a beta distribution), so that completions of a group are alike, and the reward of every
completion is drawn. Limits: a model of curves and noise, not of training. Six sorts of runs:

    rising       accuracy rises by 8 to 60 points: straight, as an S, with a plateau, or late
    flat         nothing changes
    collapsing   accuracy loses 40 to 100 % of its level within 1 to 15 steps, the format with it
    format only  the format is learned, accuracy stays
    hacked       accuracy loses 50 to 100 %, another reward makes up for more than that
    noisy        32 completions a step, prompts of very unequal difficulty, nothing changes
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from r1recipes.runs.health.verdicts import GOOD, UNDECIDED, Kind, Row, Terms, Verdict

SORTS = ("rising", "flat", "collapsing", "format only", "hacked", "noisy")
SHIPPED = {
    "correctness": 2.0,
    "integer": 0.5,
    "strict_format": 0.5,
    "soft_format": 0.5,
    "xml_tags": 0.5,
}
MOSTLY_RIGHT = {"correctness": 1.0, "soft_format": 0.1}
STEPS = (30, 300)
RESOLVED = 6.0
"""A true change of this many standard errors must be seen, at the true noise and between the best
two windows: a test in every step needs 4 to 5, and 1 or 2 more allow for chance (assumed)."""
WORTH_SEEING = 0.06
"""Gain of accuracy that a run must be able to rule out before "format only" is the one right
verdict (assumed)."""
STILL: tuple[Kind, ...] = ("not moving", "noisy", "all wrong", "all same")
"""Verdicts that are right where nothing changes."""
UNCLEAR: dict[str, tuple[Kind, ...]] = {
    "rising": ("noisy", "not moving"),
    "flat": (),
    "collapsing": ("noisy", "not moving"),
    "format only": ("noisy",),
    "hacked": ("noisy", "not moving", "side reward", "shorter"),
    "noisy": (),
}
"""Verdicts that are not wrong if the change is lost in the noise, by sort."""


def is_alarm(verdict: Verdict) -> bool:
    """Whether a verdict says that something is wrong."""
    return verdict.kind not in GOOD | UNDECIDED


@dataclass(frozen=True)
class Simulated:
    """A run, the verdicts that are right at its end, and the step at which it goes wrong."""

    sort: str
    rows: list[Row]
    terms: Terms
    right: frozenset[Kind]
    unclear: frozenset[Kind]
    """Verdicts that are not wrong either, since the change is lost in the noise."""
    accuracy: np.ndarray
    """The true probability of a right answer in each step."""
    fall: int | None
    """The step at which the answers begin to fall."""

    def judged(self, kind: Kind) -> Literal["right", "unclear", "wrong"]:
        """Whether a verdict at the end is right."""
        return "right" if kind in self.right else "unclear" if kind in self.unclear else "wrong"

    def gained(self, num: int) -> float:
        """True gain of accuracy after `num` steps, the last third over the first."""
        third = max(1, num // 3)
        return float(self.accuracy[num - third : num].mean() - self.accuracy[:third].mean())


@dataclass
class Curves:
    """The truth in each step: arrays of shape (steps,)."""

    accuracy: np.ndarray
    form: np.ndarray
    """Share of the completions that have the format."""
    other: np.ndarray | None = None
    """Mean of a further reward, `brevity`."""
    length: np.ndarray | None = None
    cut: np.ndarray | None = None


@dataclass
class Noise:
    """What makes the metrics of a step uncertain."""

    completions: int
    group_size: int
    correlation: float
    """Correlation of right answers to the same prompt, 0 to 1."""


def runs(per_sort: int, seed: int) -> Iterator[Simulated]:
    """`per_sort` runs of each sort."""
    for i, sort in enumerate(SORTS):
        for j in range(per_sort):
            yield simulate(sort, np.random.default_rng([seed, i, j]))


def simulate(sort: str, rng: np.random.Generator) -> Simulated:
    """One run of a sort, with length, group size and noise drawn at random."""
    num = int(np.exp(rng.uniform(*np.log(STEPS))))
    group_size = int(rng.choice([4, 8, 16]))
    noise = Noise(
        completions=max(2 * group_size, int(rng.choice([32, 64, 128, 256]))),
        group_size=group_size,
        correlation=rng.uniform(0.1, 0.6),
    )
    if sort == "noisy":
        noise.completions = 2 * group_size if group_size > 8 else 32
        noise.correlation = rng.uniform(0.6, 0.9)
    weights = dict(SHIPPED if rng.random() < 0.6 or sort == "format only" else MOSTLY_RIGHT)
    curves, right, ends = CURVES[sort](num, rng)
    if curves.other is not None:
        weights["brevity"] = 1.5 * weights["correctness"]
    terms = Terms(weights, "correctness", 512, noise.completions, group_size, num)
    size = _standard_errors(curves.accuracy, ends, noise) if ends else math.inf
    if sort == "format only":
        size = RESOLVED * WORTH_SEEING / _hidden(curves.accuracy, noise)
    unclear: set[Kind] = set(UNCLEAR[sort]) if size < RESOLVED else set()
    rows = _rows(curves, noise, weights, rng)
    fall = ends[0].stop if ends and sort in ("collapsing", "hacked") else None
    return Simulated(sort, rows, terms, frozenset(right), frozenset(unclear), curves.accuracy, fall)


Ends = tuple[slice, slice] | None
"""Two windows of steps between which the truth changes most."""
Made = tuple[Curves, set[Kind], Ends]


def _rising(num: int, rng: np.random.Generator) -> Made:
    start = rng.uniform(0.02, 0.5)
    gain = min(rng.uniform(0.08, 0.6), 0.97 - start)
    t = np.linspace(0, 1, num)
    shape = rng.choice(["straight", "s", "plateau", "late"])
    course = {
        "straight": t,
        "s": 1 / (1 + np.exp(-10 * (t - 0.5))),
        "plateau": 1 - np.exp(-t * rng.uniform(2, 12)),
        "late": np.clip((t - 0.4) / 0.6, 0, 1),
    }[str(shape)]
    accuracy = start + gain * course
    form = _learned_form(num, rng) if rng.random() < 0.5 else np.full(num, 0.95)
    right: set[Kind] = {"learning"}
    half, third = num // 2, max(1, num // 3)
    rest = accuracy[-1] - accuracy[half]
    if rest < 0.35 * (accuracy[-1] - accuracy[0]):
        right.add("learned")
    if accuracy[-1] > 0.87:
        right.add("nearly all paid")
    length = np.linspace(200, 200 * rng.uniform(0.4, 1.4), num)
    return Curves(accuracy, form, length=length), right, (slice(0, third), slice(-third, None))


def _flat(num: int, rng: np.random.Generator) -> Made:
    level = rng.uniform(0.01, 0.97)
    right: set[Kind] = {*STILL}
    if level > 0.85:
        right.add("nearly all paid")
    length = np.linspace(200, 200 * rng.uniform(0.85, 1.15), num)
    curves = Curves(np.full(num, level), np.full(num, rng.uniform(0.2, 0.99)), length=length)
    return curves, right, None


def _noisy(num: int, rng: np.random.Generator) -> Made:
    level = rng.uniform(0.1, 0.8)
    return Curves(np.full(num, level), np.full(num, 0.9)), set(STILL), None


def _falling(num: int, rng: np.random.Generator, lost: float) -> tuple[np.ndarray, int, np.ndarray]:
    """Accuracy that is flat or rises and then falls; the step of the fall; its progress, 0 to 1."""
    start = rng.uniform(0.1, 0.7)
    peak = start + rng.choice([0.0, 1.0]) * rng.uniform(0.05, 0.25)
    fall = int(num * rng.uniform(0.25, 0.8))
    width = int(rng.integers(1, 16))
    t = np.arange(num)
    far = np.clip((t - fall + 1) / width, 0, 1)
    before = start + (peak - start) * np.minimum(1, t / fall)
    return before * (1 - lost * far), fall, far


def _ends(num: int, fall: int) -> Ends:
    after = min(num - 1, fall + 8)
    return slice(max(0, fall - 32), fall), slice(after, None)


def _collapsing(num: int, rng: np.random.Generator) -> Made:
    is_cut = rng.random() < 0.5
    lost = 1 - 0.05 * rng.uniform(0, 0.5) if is_cut else rng.uniform(0.4, 1)
    accuracy, fall, far = _falling(num, rng, lost)
    form = 0.95 * (1 - rng.uniform(0.5, 1) * far)
    return Curves(accuracy, form, cut=0.95 * is_cut * far), {"collapsing"}, _ends(num, fall)


def _format_only(num: int, rng: np.random.Generator) -> Made:
    accuracy = np.full(num, rng.uniform(0.01, 0.4))
    form = _learned_form(num, rng)
    length = 240 * (1 - rng.choice([0.0, 0.6]) * (form - form[0]))
    return Curves(accuracy, form, length=length), {"format only"}, None


def _hacked(num: int, rng: np.random.Generator) -> Made:
    accuracy, fall, far = _falling(num, rng, rng.uniform(0.5, 1))
    other = 0.1 + 0.8 * far
    length = 200 * (1 - 0.7 * far)
    return Curves(accuracy, np.full(num, 0.95), other, length), {"hacked"}, _ends(num, fall)


CURVES: dict[str, Callable[[int, np.random.Generator], Made]] = {
    "rising": _rising,
    "flat": _flat,
    "collapsing": _collapsing,
    "format only": _format_only,
    "hacked": _hacked,
    "noisy": _noisy,
}


def _learned_form(num: int, rng: np.random.Generator) -> np.ndarray:
    """A share that rises from 2 to 30 % to 90 to 99 % in the first tenth to two thirds of a run."""
    low, high = rng.uniform(0.02, 0.3), rng.uniform(0.9, 0.99)
    middle = rng.uniform(0.1, 0.5)
    t = np.linspace(0, 1, num)
    return low + (high - low) / (1 + np.exp(-12 * (t - middle) / middle))


def _standard_errors(accuracy: np.ndarray, ends: tuple[slice, slice], noise: Noise) -> float:
    """True change between two windows, in standard errors of the true noise."""
    design = 1 + (noise.group_size - 1) * noise.correlation
    means = [float(accuracy[window].mean()) for window in ends]
    variances = [
        p * (1 - p) * design / noise.completions / len(accuracy[window])
        for p, window in zip(means, ends, strict=True)
    ]
    return abs(means[1] - means[0]) / math.sqrt(sum(variances) + 1e-12)


def _hidden(accuracy: np.ndarray, noise: Noise) -> float:
    """Half of the 95 % interval of last third - first third, at the true noise."""
    design = 1 + (noise.group_size - 1) * noise.correlation
    p, third = float(accuracy[0]), len(accuracy) // 3
    return 1.96 * math.sqrt(2 * p * (1 - p) * design / noise.completions / third)


def _rows(
    curves: Curves, noise: Noise, weights: dict[str, float], rng: np.random.Generator
) -> list[Row]:
    paid = _paid(curves, noise, weights, rng)
    total = np.sum([weights[name] * values for name, values in paid.items()], axis=0)
    spent = total.max(axis=2) - total.min(axis=2) < 1e-6
    num = len(curves.accuracy)
    base = curves.length if curves.length is not None else np.full(num, 200.0)
    columns = {
        "step": np.arange(1, num + 1),
        "reward": total.mean(axis=(1, 2)),
        "reward_std": total.std(axis=(1, 2), ddof=1),
        "frac_reward_zero_std": spent.mean(axis=1),
        "accuracy": paid["correctness"].mean(axis=(1, 2)),
        "completions/mean_length": base
        * np.exp(rng.normal(0, 0.8 / math.sqrt(noise.completions), num)),
        "completions/clipped_ratio": rng.binomial(
            noise.completions, curves.cut if curves.cut is not None else 0.01, num
        )
        / noise.completions,
        "grad_norm": 0.1 * np.exp(rng.normal(0, 0.2, num)) * ~spent.all(axis=1),
    }
    for name, values in paid.items():
        columns[f"rewards/{name}/mean"] = values.mean(axis=(1, 2))
        columns[f"rewards/{name}/std"] = values.std(axis=(1, 2), ddof=1)
    lists = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _paid(
    curves: Curves, noise: Noise, weights: dict[str, float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Values of each reward: arrays of shape (steps, groups, completions of a group)."""
    groups = noise.completions // noise.group_size
    shape = (len(curves.accuracy), groups, noise.group_size)

    def drawn(level: np.ndarray, correlation: float) -> np.ndarray:
        """True with the probability `level`, correlated within a group."""
        p = np.clip(level, 1e-4, 1 - 1e-4)[:, None]
        k = 1 / correlation - 1
        share = rng.beta(p * k, (1 - p) * k, size=shape[:2])
        return rng.random(shape) < share[:, :, None]

    form = drawn(curves.form, 0.2)
    partial = rng.choice([0.25, 0.5, 0.75], size=shape)
    paid = {
        "correctness": drawn(curves.accuracy, noise.correlation).astype(float),
        "integer": (form | (rng.random(shape) < 0.3)).astype(float),
        "strict_format": (form & (rng.random(shape) < 0.97)).astype(float),
        "soft_format": form.astype(float),
        "xml_tags": np.where(form, 1.0, partial),
    }
    if curves.other is not None:
        spread = 0.15 * rng.standard_normal(shape)
        paid["brevity"] = np.clip(curves.other[:, None, None] + spread, 0, 1)
    return {name: values for name, values in paid.items() if name in weights}

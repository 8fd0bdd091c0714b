"""What the rows of metrics.jsonl show, as the facts that a verdict is made of.

Rows carry TRL's names and the `accuracy` of `training.backends.trainer`; a held-out evaluation may
stand in the row of its step (`HeldOut.of_row`). Everything is computed from the rows that are
there, once, when it is asked for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from r1recipes.runs.health import trends
from r1recipes.runs.health.trends import Change, Series
from r1recipes.runs.health.verdicts import (
    HeldOut,
    Row,
    Terms,
    held_out_change,
    is_number,
    percent,
)

WINDOW = 20
"""Steps that are averaged for what is shown and for what needs no test; assumed, long enough for
the noise of groups of 8."""
NOISE_OF_LENGTH = 0.06
"""Standard deviation of a step's mean length, as a share of it; measured 0.05 to 0.07 at 256
completions of Qwen2.5-Coder-0.5B, 0.006 for the tiny model."""
SPENT = 0.8
"""Share of groups without spread above which hardly anything is left to learn from; assumed."""


@dataclass(frozen=True)
class Part:
    """One reward: how much of the weighted sum's change it brought."""

    name: str
    old: float
    new: float
    gain: float
    """Change of the mean times the weight."""


class Signs:
    """The facts. `rows`: one per step, in order; `held_out`: evaluations that stand in no row."""

    def __init__(self, rows: Sequence[Row], terms: Terms, held_out: Sequence[HeldOut] = ()):
        self.all = rows
        self.terms = terms
        self.key, self.name = _decisive(rows, terms)
        keys = (self.key, "reward")
        self.rows = [row for row in rows if all(is_number(row.get(key)) for key in keys)]
        self._others = held_out

    @property
    def num(self) -> int:
        return len(self.rows)

    @property
    def has_answers(self) -> bool:
        """Whether the decisive reward is known, and not only the weighted sum."""
        return self.key != "reward"

    def step(self, row: int) -> int:
        return int(self.rows[row]["step"])

    @cached_property
    def recent(self) -> Sequence[Row]:
        return self.all[-WINDOW:]

    @cached_property
    def answers(self) -> Series:
        """The decisive metric: accuracy, or what stands in for it."""
        return self.series(self.key) if self.has_answers else self.reward

    @cached_property
    def reward(self) -> Series:
        """The weighted sum."""
        return self.series("reward")

    @cached_property
    def length(self) -> Series | None:
        """Mean length of the completions; None where a row lacks it."""
        key = "completions/mean_length"
        if not all(is_number(row.get(key)) for row in self.rows):
            return None
        values = [row[key] for row in self.rows]
        variances = [value**2 for value in values]
        return Series(values, variances, NOISE_OF_LENGTH**2, groups=self.terms.num_prompts)

    @cached_property
    def finished(self) -> Series | None:
        """Share of the completions that are not cut; None where a row lacks it."""
        key = "completions/clipped_ratio"
        if not all(is_number(row.get(key)) for row in self.rows):
            return None
        finished = [1 - row[key] for row in self.rows]
        return trends.share(finished, self.terms.completions_per_step, self.terms.num_generations)

    def series(self, key: str) -> Series:
        """A reward, or the accuracy; what lies between 0 and 1 throughout is taken for a share."""
        values = [float(row.get(key, math.nan)) for row in self.rows]
        terms, num = self.terms, self.terms.completions_per_step
        if key != "reward" and all(0 <= value <= 1 for value in values):
            return trends.share(values, num, terms.num_generations)
        spread = "reward_std" if key == "reward" else key.replace("/mean", "/std")
        deviations = [row.get(spread, math.nan) for row in self.rows]
        if not all(map(is_number, deviations)):
            return Series(values, [1.0] * len(values), None, groups=terms.num_prompts)
        variances = [deviation**2 / num for deviation in deviations]
        design = trends.design_before(terms.num_generations)
        return Series(values, variances, design, groups=terms.num_prompts)

    @property
    def ends(self) -> tuple[trends.Window, trends.Window]:
        """The first and the last steps, a third of the run each but no more than `WINDOW`."""
        width = max(1, min(WINDOW, self.num // 3))
        return (0, width), (self.num - width, self.num)

    @property
    def is_share(self) -> bool:
        """Whether the decisive metric is a share of the completions."""
        return self.answers.trials is not None

    @property
    def ceiling(self) -> float:
        """Highest value of the decisive metric."""
        return 1.0 if self.has_answers else self.terms.max_reward

    @cached_property
    def recent_answers(self) -> float:
        return mean(self.recent, self.key)

    @property
    def recent_text(self) -> str:
        """`accuracy 97%`."""
        return f"{self.name} {_number(self.recent_answers, self.is_share)}"

    @property
    def is_spent(self) -> bool:
        """Whether hardly a group had spread lately."""
        return mean(self.recent, "frac_reward_zero_std") > SPENT

    @cached_property
    def rise(self) -> Change | None:
        """The answers now against those at the start, where they are better for sure."""
        return trends.risen(self.answers)

    @cached_property
    def climb(self) -> Change | None:
        """The answers now against those halfway, where they are better for sure."""
        return trends.rising(self.answers)

    @cached_property
    def partial_rise(self) -> Change | None:
        """The mean of the decisive reward, where it pays less than 1 too, and rises for sure."""
        key = f"rewards/{self.terms.decisive}/mean"
        if self.key != "accuracy" or not all(is_number(row.get(key)) for row in self.rows):
            return None
        if all(abs(row[key] - row["accuracy"]) < 1e-6 for row in self.rows):
            return None
        return trends.risen(self.series(key))

    def only(self, answers: Change) -> str:
        """`accuracy 3.1% -> 4.2%`."""
        old, new = (_number(value, self.is_share) for value in (answers.old, answers.new))
        note = "" if self.key == "accuracy" else " (no accuracy in these rows)"
        return f"{self.name} {old} -> {new}{note}"

    def both(self, answers: Change, reward: Change) -> str:
        """`accuracy 3.1% -> 4.2%, reward 0.41 -> 2.03`."""
        if not self.has_answers:
            return self.only(answers)
        return f"{self.only(answers)}, reward {reward.old:.2f} -> {reward.new:.2f}"

    @cached_property
    def thirds(self) -> Change:
        """The answers of the last third against those of the first, with a 95 % interval."""
        width = max(1, self.num // 3)
        return self.answers.change((0, width), (self.num - width, self.num))

    def parts(self, old: trends.Window, new: trends.Window) -> list[Part]:
        """What each reward brought between two windows, the largest gain first."""
        parts = []
        for name, weight in self.terms.weights.items():
            key = f"rewards/{name}/mean"
            first, last = mean(self.rows[slice(*old)], key), mean(self.rows[slice(*new)], key)
            if not math.isnan(first + last):
                parts.append(Part(name, first, last, weight * (last - first)))
        return sorted(parts, key=lambda part: -part.gain)

    @cached_property
    def spread_shares(self) -> dict[str, float]:
        """Share of each reward in the variance of the weighted sum, lately, as if independent."""
        variances = {
            name: (weight * mean(self.recent, f"rewards/{name}/std")) ** 2
            for name, weight in self.terms.weights.items()
        }
        finite = {name: value for name, value in variances.items() if not math.isnan(value)}
        total = sum(finite.values())
        return {name: value / total for name, value in finite.items()} if total else {}

    @cached_property
    def held_out(self) -> list[HeldOut]:
        """All evaluations, in the order of the steps."""
        in_rows = [one for row in self.all if (one := HeldOut.of_row(row))]
        evaluations = [*self._others, *in_rows]
        return sorted(evaluations, key=lambda one: one.step)

    @property
    def held_out_fall(self) -> tuple[int, str] | None:
        """The step of the best evaluation and a sentence on the fall since then, where the last one
        is lower for sure."""
        if len(self.held_out) < 2:
            return None
        *before, last = self.held_out
        best = max(before, key=lambda one: one.accuracy)
        _, high = held_out_change(best, last, trends.bar(trends.FALL, len(before)))
        if high >= 0:
            return None
        shown = f"{percent(best.accuracy)} -> {percent(last.accuracy)}"
        return best.step, f"Held-out accuracy falls since step {best.step}: {shown}"


def _decisive(rows: Sequence[Row], terms: Terms) -> tuple[str, str]:
    """Key and name of the metric that decides, the best that the rows have."""
    if any(is_number(row.get("accuracy")) for row in rows):
        return "accuracy", "accuracy"
    key = f"rewards/{terms.decisive}/mean"
    if any(is_number(row.get(key)) for row in rows):
        return key, terms.decisive
    return "reward", "reward"


def _number(value: float, is_share: bool) -> str:
    return percent(value) if is_share else f"{value:.2f}"


def mean(rows: Sequence[Row], key: str) -> float:
    """Mean of a key over the rows in which it is a finite number; NaN when it is in none."""
    values = [row[key] for row in rows if is_number(row.get(key))]
    return sum(values) / len(values) if values else math.nan

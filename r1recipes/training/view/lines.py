"""What a run shows, as text: a step as a line, its facts, a sparkline.

Limits: numbers that are missing are left out or shown as `nan`; nothing here knows the terminal but
for its width.
"""

import math
import statistics
from collections.abc import Sequence

from rich.cells import cell_len

from r1recipes.algorithms import GRPO, Algorithm
from r1recipes.machine.units import duration, percent
from r1recipes.runs import health
from r1recipes.runs.reading import Row

BLOCKS = "▁▂▃▄▅▆▇█"
GAP = "  "
"""Between two facts on a line."""


def number(row: Row, key: str) -> float:
    """A value of a row, NaN where it is missing."""
    value = row.get(key)
    return math.nan if value is None else float(value)


def reward_parts(row: Row) -> list[str]:
    """The mean of each reward, without its weight: `correctness 0.62`."""
    means = [key for key in row if key.startswith("rewards/") and key.endswith("/mean")]
    return [f"{key[8:-5]} {number(row, key):.2f}" for key in means]


def fact_parts(row: Row, algorithm: Algorithm = GRPO, *, with_interval: bool = False) -> list[str]:
    """Accuracy, spread, length and share of cut completions of a step; of an algorithm that samples
    none, how well it fits its examples."""
    if algorithm.learned:
        facts = [fact for fact in algorithm.learned.facts if row.get(fact[0]) is not None]
        values = [(name, number(row, key), unit) for key, name, unit in facts]
        return [f"{name} {percent(v) if unit else f'{v:.2f}'}" for name, v, unit in values]
    parts = [f"spread {number(row, 'reward_std'):.2f}"]
    if row.get("accuracy") is not None:
        keys = ("accuracy_low", "accuracy_high") if with_interval else ()
        parts.insert(0, f"accuracy {percent(number(row, 'accuracy'))}{interval_text(row, *keys)}")
    if row.get("frac_reward_zero_std") is not None:
        parts.append(f"groups without spread {percent(number(row, 'frac_reward_zero_std'))}")
    parts.append(f"length {number(row, 'completions/mean_length'):.0f}")
    parts.append(f"cut {percent(number(row, 'completions/clipped_ratio'))}")
    if calls := row.get("judge/calls"):
        tokens, seconds = row["judge/tokens"], row["judge/seconds"]
        parts.append(f"judge {calls} calls, {tokens:,} tokens, {seconds:.1f} s")
    failures = sum(row.get("reward_failures", {}).values())
    return parts + ([f"reward failures {failures}"] if failures else [])


def interval_text(row: Row, low: str = "", high: str = "") -> str:
    """` (38% to 50%)`; empty where the row has no such interval."""
    if row.get(low) is None or row.get(high) is None:
        return ""
    return f" ({percent(number(row, low))} to {percent(number(row, high))})"


def held_out_text(rows: Sequence[Row]) -> str:
    """The last evaluation of `eval.every`; empty where the rows have none."""
    row = next((row for row in reversed(rows) if row.get(health.ACCURACY) is not None), None)
    if row is None:
        return ""
    accuracy = percent(number(row, health.ACCURACY)) + interval_text(row, health.LOW, health.HIGH)
    return (
        f"held out, step {row['step']}: accuracy {accuracy}, "
        f"{row[health.NUM_PROBLEMS]} problems x 1 sample"
    )


def small_parts(row: Row, loss_note: str) -> list[str]:
    """Values for experts, and what is to be known of the loss."""
    parts = [f"grad norm {number(row, 'grad_norm'):.2f}", f"lr {number(row, 'learning_rate'):.1e}"]
    if row.get("kl") is not None:
        parts.append(f"KL {row['kl']:.4f}")
    loss = f"loss {number(row, 'loss'):.4f}"
    return [*parts, f"{loss} ({loss_note})" if loss_note else loss]


def plain_line(row: Row, total: int, times: Sequence[str], algorithm: Algorithm) -> str:
    """One step as a line of a log file; `times` are those of `pace_parts`."""
    paid = f"reward {number(row, 'reward'):.2f}"
    first = paid if algorithm.samples else f"loss {number(row, 'loss'):.3f}"
    return GAP.join([f"step {row['step']}/{total}", first, *fact_parts(row, algorithm), *times])


def pace_parts(step_s: float | None, seconds_left: float | None) -> list[str]:
    """`4.1 s a step` and `4 min 35 s left`, each where it is known and there is something left."""
    parts = [] if step_s is None else [step_text(step_s)]
    return parts + ([f"{duration(seconds_left)} left"] if seconds_left else [])


def step_text(seconds: float) -> str:
    """`0.12 s a step`, `4.1 s a step`, or `1 min 05 s a step`."""
    if seconds >= 60:
        return f"{duration(seconds)} a step"
    return f"{seconds:.2f} s a step" if seconds < 1 else f"{seconds:.1f} s a step"


def flow(parts: Sequence[str], width: int) -> str:
    """The parts on lines of at most `width` columns, broken between two of them; one that is
    longer has a line of its own."""
    rows: list[str] = []
    for part in parts:
        if rows and cell_len(rows[-1]) + len(GAP) + cell_len(part) <= width:
            rows[-1] += GAP + part
        else:
            rows.append(part)
    return "\n".join(rows)


def accuracy_line(evaluation: Row) -> str:
    """`accuracy 42.1% (38.0% to 46.3%), greedy 61.0%, ... length 31, cut 0%`."""
    low, high = evaluation["interval"]
    return (
        f"accuracy {evaluation['accuracy']:.1%} ({low:.1%} to {high:.1%}), "
        f"greedy {evaluation['greedy']:.1%}, "
        f"{evaluation['num_problems']} problems x {evaluation['num_samples']} samples, "
        f"length {evaluation['mean_length']:.0f}, cut {evaluation['share_cut']:.0%}"
    )


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """The values as at most `width` block characters, each the mean of some; NaN is left out."""
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return ""
    size = max(1, math.ceil(len(finite) / width))
    means = [statistics.fmean(finite[i : i + size]) for i in range(0, len(finite), size)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in means)

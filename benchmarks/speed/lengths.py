"""The lengths of real completions, from the metrics of a run: `planning.speed.lengths.REAL`.

    python -m benchmarks.speed.lengths           print its numbers
    python -m benchmarks.speed.lengths --check   exit code 1 if the package has others

The metrics of a step have the mean of its lengths, the greatest one, and the share that was cut.
Each step is taken as a log-normal distribution with that mean and that tail, cut at the limit, and
the quantiles are averaged over the steps: mean and longest are then those of a step on average.
Prompts are those of another run, whose recipe adds one solved problem and not three turns. Limits:
a run each of one model; within a step, only the mean, the tail and the cut share are measured.
"""

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from r1recipes.machine.files import read_lines
from r1recipes.planning.speed import lengths
from r1recipes.planning.speed.lengths import Lengths
from r1recipes.runs.reading import Row
from r1recipes.training.rehearsal.drawn import of_prompts

RESULTS = Path(__file__).parents[1] / "learning" / "results"
METRICS = RESULTS / "qwen2.5-coder-0.5b-gsm_symbolic" / "metrics.jsonl"
PROMPT_METRICS = RESULTS / "stopped" / "qwen2.5-coder-0.5b-gsm_symbolic.metrics.jsonl"
LIMIT, COMPLETIONS, PROMPTS = 384, 512, 32
"""max_completion_length of the first, and the completions and prompts of the steps of both."""
GREATEST = (COMPLETIONS - 0.375) / (COMPLETIONS + 0.25)
"""Level at which the greatest of so many is expected (Blom, 1958)."""
LEVELS = (0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
"""Shares of the completions that are no longer than the quantile; closer together in the tail,
which decides how long a call of generation takes."""
NORMAL = NormalDist()


@dataclass(frozen=True)
class LogNormal:
    """Lengths of one step, cut at `LIMIT`."""

    mu: float
    sigma: float

    def quantile(self, level: float) -> float:
        """The length that this share of the completions does not exceed, within those of a step."""
        z = NORMAL.inv_cdf(min(GREATEST, max(1 - GREATEST, level)))
        return min(float(LIMIT), math.exp(self.mu + self.sigma * z))

    def mean(self) -> float:
        """Mean with the lengths above the limit counted as the limit."""
        z = (math.log(LIMIT) - self.mu) / self.sigma
        below = math.exp(self.mu + self.sigma**2 / 2) * NORMAL.cdf(z - self.sigma)
        return below + LIMIT * (1 - NORMAL.cdf(z))


def of_step(row: Row) -> LogNormal:
    """The distribution with the mean of a step, and with its share of cut completions or, without
    these, with its greatest length at the level `GREATEST`."""
    cut = row["completions/clipped_ratio"]
    z = NORMAL.inv_cdf(1 - cut if cut else GREATEST)
    longest = math.log(LIMIT if cut else row["completions/max_length"])
    low, high = 0.01, 3.0  # at a fixed tail, the mean falls as sigma grows up to z
    high = min(high, z)
    for _ in range(60):
        sigma = (low + high) / 2
        fitted = LogNormal(longest - z * sigma, sigma)
        low, high = (
            (sigma, high) if fitted.mean() > row["completions/mean_length"] else (low, sigma)
        )
    return LogNormal(longest - z * sigma, sigma)


def measured() -> Lengths:
    """The distribution of the run, rounded as it is in the package."""
    steps = [of_step(row) for row in read_lines(METRICS)]
    mean, deviation = of_prompts(read_lines(PROMPT_METRICS), PROMPTS, COMPLETIONS)
    shares = tuple(
        (level, round(statistics.fmean(step.quantile(level) for step in steps) / LIMIT, 3))
        for level in LEVELS
    )
    return Lengths("real", shares, round(mean), round(deviation), is_share=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="print nothing")
    args = parser.parse_args()
    made = measured()
    if not args.check:
        print(made)
    return int(made != lengths.REAL)


if __name__ == "__main__":
    sys.exit(main())

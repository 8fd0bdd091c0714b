"""The arithmetic of one optimiser step: completions, and the passes that they are divided into."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """The arithmetic of one optimiser step."""

    completions: int
    batch: int
    """Completions in one forward and backward pass."""
    unit: int = 1
    """Completions that stay together in a pass, such as the two of a pair."""

    @property
    def passes(self) -> int:
        return self.completions // self.batch

    @property
    def is_whole(self) -> bool:
        """Whether its passes have all of its completions, and none a part of a unit."""
        return self.completions % self.batch == 0 and self.batch % self.unit == 0

    def batches(self) -> list[int]:
        """The sizes that its passes may have, ascending."""
        return sorted(self.unit * n for n in divisors(self.completions // self.unit))


def divisors(number: int) -> list[int]:
    """All whole numbers that divide `number`; found in pairs, so that 10**8 takes 10**4 steps."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return low + [number // n for n in low]


@dataclass(frozen=True)
class PassRules:
    """How the rows of a step may be cut into passes so that the gradient of the step stays the same
    up to the order of sums."""

    drops: bool
    """Rows with an advantage of 0 may be left out: they have no gradient."""
    sorts: bool
    """Rows may be put into another order, and so into other passes."""
    resizes: bool
    """Passes may have different numbers of rows."""
    weighs: bool
    """The loss of a pass is a mean over its rows, so one with fewer rows has to count less; then it
    must be linear in the advantages."""

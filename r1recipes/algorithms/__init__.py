"""The training algorithms: one module each, and one row in this table.

What a recipe says in `algorithm` is a name of it. Variants of a loss are keys of one algorithm.
"""

from r1recipes.algorithms.base import Algorithm
from r1recipes.algorithms.grpo import GRPO
from r1recipes.algorithms.rloo import RLOO

ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in (GRPO, RLOO)}

__all__ = ["ALGORITHMS", "GRPO", "RLOO", "Algorithm"]

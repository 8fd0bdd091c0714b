"""The training algorithms: one module each, and one row in a table.

The key `algorithm` of a recipe is a name in the table. A variant of a loss is a key of an
algorithm, not another algorithm.
"""

from r1recipes.algorithms.base import Algorithm
from r1recipes.algorithms.grpo import GRPO
from r1recipes.algorithms.rloo import RLOO

ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in (GRPO, RLOO)}

__all__ = ["ALGORITHMS", "GRPO", "RLOO", "Algorithm"]

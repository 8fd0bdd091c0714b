"""The training algorithms: one module each, and one row in a table.

The key `algorithm` of a recipe is a name in the table. A variant of a loss is a key of an
algorithm, not another algorithm.
"""

from r1recipes.algorithms.base import Algorithm
from r1recipes.algorithms.dpo import DPO
from r1recipes.algorithms.grpo import GRPO
from r1recipes.algorithms.online_dpo import ONLINE_DPO
from r1recipes.algorithms.ppo import PPO
from r1recipes.algorithms.rloo import RLOO
from r1recipes.algorithms.sft import SFT

ALGORITHMS: dict[str, Algorithm] = {
    row.name: row for row in (GRPO, RLOO, ONLINE_DPO, PPO, SFT, DPO)
}

__all__ = ["ALGORITHMS", "DPO", "GRPO", "ONLINE_DPO", "PPO", "RLOO", "SFT", "Algorithm"]

"""Problems made by reasoning-gym (`data.name = "gym:chain_sum"`), in child processes."""

from r1recipes.data.gym.problems import check, make

__all__ = ["check", "make"]

"""What the judge of a run costs, for its record and its metrics; nothing in a run without one."""

from typing import Any

from r1recipes.errors import R1RecipesError
from r1recipes.rewards.judge.cost import Cost
from r1recipes.rewards.judge.judge import JudgeFails
from r1recipes.training.prepared import Prepared


class Judging:
    """Reads the counters of a run's judge."""

    def __init__(self, prepared: Prepared, recorded: dict[str, Any] | None):
        """`recorded`: what earlier attempts have written into the record."""
        parts = [prepared, *prepared.earlier]
        rewards = [*(r for part in parts for r in part.rewards.values()), prepared.decisive]
        self._judge = next((reward.judge for reward in rewards if reward.judge), None)
        self._earlier = recorded
        self._last_step = Cost()

    def record(self) -> dict[str, Any]:
        """What record.json gets: the cost of all attempts, and what the trial measured."""
        if self._judge is None:
            return {}
        return {"judge": self._judge.cost.plus(self._earlier) | {"trial": self._judge.trial}}

    def of_step(self) -> dict[str, Any]:
        """What metrics.jsonl gets: the cost since the step before."""
        if self._judge is None:
            return {}
        cost = self._judge.cost.since(self._last_step)
        self._last_step = self._judge.cost.copy()
        return cost.row()


def with_stage(error: R1RecipesError, stage: str | None) -> R1RecipesError:
    """The error, with the stage in which a judge failed."""
    return JudgeFails(error.message, stage=stage) if isinstance(error, JudgeFails) else error

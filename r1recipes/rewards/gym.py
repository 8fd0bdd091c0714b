"""The reward `gym`: what the own scorer of a data set of reasoning-gym pays for an answer.

Scorers run in child processes that are killed when an answer takes too long; see `gym_child`.
Limits: how a scorer judges is reasoning-gym's matter. Some pay 0.01 for any answer, some a part
for an answer that is near.
"""

import importlib.util
from typing import Any

from r1recipes.errors import RecipeError
from r1recipes.machine.processes import Children
from r1recipes.rewards import gym_child
from r1recipes.rewards.user_code import Failed, Paid, completion_text, refuse_missing_columns

COLUMN = "gym"
"""The column of a data set with what a scorer needs beside question and answer."""
NUM_CHILDREN = 2
MEMORY_BYTES = 2**30
"""What a scorer may take beyond its start; assumed, 9^9^9^9 would take all there is."""
BATCH_LIMIT_S = 60.0
"""Seconds for all answers of a batch; assumed, as for math-verify."""
MAX_ANSWER_CHARS = 20_000
"""Assumed: the longest reference of 100 problems of each data set has 6,000 (0.1.25)."""

Call = tuple[str, str, str, str]
"""answer, question, reference, pack"""


def refuse_missing() -> None:
    """Raises: RecipeError where reasoning-gym is not installed."""
    if importlib.util.find_spec("reasoning_gym") is None:
        from r1recipes.machine import packages  # takes longer than a check of a recipe

        hint = f"`{packages.extra('gym')}`"
        raise RecipeError("gym: data need the package reasoning-gym", hint=hint)


def gym(
    prompts: list[Any],
    completions: list[Any],
    question: list[str],
    answer: list[str],
    gym: list[str],
    **columns: Any,
) -> list[float]:
    """What reasoning-gym's own scorer of this data set pays for the answer, 0 to 1.

    The answer is what the last <answer> pair holds; without one nothing is paid.
    """
    scorer = GymScorer()
    try:
        own = {"question": question, "answer": answer, COLUMN: gym}
        paid = scorer.pay(prompts, completions, own)
        return [value if isinstance(value, float) else 0.0 for value in paid]
    finally:
        scorer.close()


class GymScorer:
    """The reward `gym` with children that are kept between calls, until it is closed."""

    def __init__(self, *, time_limit_s: float = 10.0):
        self._time_limit_s = time_limit_s
        imports = ("r1recipes.rewards.gym_child", "reasoning_gym")
        self._children = Children(
            NUM_CHILDREN, imports=imports, memory_bytes=MEMORY_BYTES, quiet_stdout=True
        )

    def pay(
        self,
        /,
        prompts: list[Any],
        completions: list[Any],
        columns: dict[str, Any],
        time_limit_s: float | None = None,
    ) -> Paid:
        """One call. An entry is Failed for an answer that took too long or killed its child.

        Raises: RecipeError without reasoning-gym, Failed for data that are not reasoning-gym's.
        """
        refuse_missing()
        refuse_missing_columns(gym, ["prompts", "completions", *columns])
        calls = [
            self._call(completion, *row)
            for completion, *row in zip(
                completions, columns["question"], columns["answer"], columns[COLUMN], strict=True
            )
        ]
        distinct = list(dict.fromkeys(call for call in calls if call))
        limit_s = min(time_limit_s or self._time_limit_s, self._time_limit_s)
        outcomes = self._children.run(
            gym_child.score_restricted, distinct, limit_s=limit_s, total_s=BATCH_LIMIT_S
        )
        paid = {
            call: self._entry(outcome, limit_s)
            for call, outcome in zip(distinct, outcomes, strict=True)
        }
        return [paid[call] if call else 0.0 for call in calls]

    def close(self) -> None:
        """Kill the children. A later `pay` starts new ones."""
        self._children.close()

    @staticmethod
    def _call(completion: Any, question: str, reference: str, pack: str) -> Call | None:
        from r1recipes.rewards.answers import extract_answer

        answer = extract_answer(completion_text(completion))
        if not answer or len(answer) > MAX_ANSWER_CHARS:
            return None
        return answer, question, reference, pack

    @staticmethod
    def _entry(outcome: Any, limit_s: float) -> float | Failed:
        if isinstance(outcome, TimeoutError):
            return Failed("timeout", f"did not return within {limit_s:g} s (one answer)")
        if isinstance(outcome, BaseException):
            return Failed("raised", f"ended its process ({type(outcome).__name__}: {outcome})")
        return float(outcome)

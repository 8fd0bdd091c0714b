"""Warns when a reward of a run fails, and ends a run in which it fails for everything.

Limits: a judge has limits of its own (`judge.judge`); what fails is counted by `Reward`.
"""

from collections.abc import Callable

from r1recipes.errors import RunError
from r1recipes.rewards.user_code import Failed, Paid

MIN_ALL = 8
"""Completions that end a run when a reward fails for all of them, in one call or in calls one after
the other: a smaller step may have one bad row of the data. Assumed."""


class RewardFails(RunError):
    """A reward failed for all completions, so that the run would learn nothing from it."""

    def __init__(self, message: str, hint: str):
        super().__init__(message, kind="reward", hint=hint)


class Alarm:
    """Hears of each call of one reward."""

    def __init__(self, name: str, file: str | None, note: Callable[[str], None]):
        """`file`: that of user code; None for a reward of the table. `note` prints a line."""
        self._name, self._file, self._note = name, file, note
        self._has_warned = False
        self._num_in_a_row = 0

    def hear(self, paid: Paid) -> None:
        """Take note of a call. Raises: RewardFails when it and those before it brought nothing."""
        failed = [value for value in paid if isinstance(value, Failed)]
        if not failed:
            self._num_in_a_row = 0
            return
        if not self._has_warned:
            message = failed[0].message
            self._note(f"warning: reward `{self._name}` {message}; that completion is paid 0")
            self._has_warned = True
        self._num_in_a_row = self._num_in_a_row + len(failed) if len(failed) == len(paid) else 0
        if self._num_in_a_row >= MIN_ALL:
            raise RewardFails(
                f"reward `{self._name}` failed for each of the last {self._num_in_a_row} "
                f"completions: it {failed[-1].message}",
                self._hint(failed[-1]),
            )

    def _hint(self, failed: Failed) -> str:
        """A change that works. A run that has begun is not resumed with other code."""
        if self._file is None:
            return "remove it from [rewards], and start a new run"
        hint = f"correct {self._file} and start a new run"
        slow = "make it faster, or set R1RECIPES_REWARD_LIMIT_S to more seconds"
        return f"{slow}; or {hint}" if failed.kind == "timeout" else hint

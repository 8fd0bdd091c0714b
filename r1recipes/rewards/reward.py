"""Rewards that are safe to train with: loaded by name, called in training, checked before it.

`load` turns a recipe's names into rewards, user code only if it is allowed. A `Reward` never hangs
a run: rows without a result are paid 0 and counted, and where all are, a watched one ends the run.
`check` is the strict call before a run; it finds what would be counted in training.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.config.suggest import nearest
from r1recipes.errors import R1RecipesError, RecipeError
from r1recipes.rewards import functions
from r1recipes.rewards.alarm import Alarm
from r1recipes.rewards.functions import REWARDS
from r1recipes.rewards.gym import GymScorer, gym
from r1recipes.rewards.user_code import (
    Failed,
    Paid,
    UserCode,
    describe,
    is_user_code,
    look_up,
    numbers,
    refuse_missing_columns,
)

if TYPE_CHECKING:
    from r1recipes.rewards.answers import Verifier
    from r1recipes.rewards.judge.judge import ModelJudge

RESERVED_COLUMNS = (
    "prompt",
    "prompts",
    "completion",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
    "environment",
    "image",
    "images",
)
"""What TRL passes to reward functions itself or builds (trl 1.12 grpo_trainer.py,
_calculate_rewards): a column of that name would collide or be dropped."""
ROW_SHARE = 5
"""A call for a single row gets one fifth of a batch's time limit; assumed."""
RETRY_LIMITS = 3
"""All calls for single rows get three time limits together; assumed."""
CHECK_ROWS = 4
"""Rows that a check uses; more rows find little more, and each costs five completions. Assumed."""
RewardFunction = Callable[..., Any]
"""A function with TRL's signature for rewards."""

log = logging.getLogger(__name__)


class Reward:
    """A reward for training, with TRL's signature: one number per completion, or None.

    None is no opinion, as in TRL. A row that a failure leaves without a number is paid 0, or None
    by a judge, and counted in `failures` by kind: timeout, raised, wrong_count, not_a_number, and
    the kinds of a judge. When the call for a batch fails, each row is tried alone, so that one bad
    completion does not cost the others.
    `last_failure` is the message of the newest failure. `code_sha256` is the hash of the user code
    that runs, even if its file has changed since; None for a reward of the table.
    """

    def __init__(
        self,
        name: str,
        function: RewardFunction | UserCode | GymScorer | ModelJudge,
        *,
        time_limit_s: float = 10.0,
    ):
        self.__name__ = name  # TRL logs under it
        self.name = name
        self.failures: Counter[str] = Counter()
        self.last_failure: str | None = None
        self.code_sha256: str | None = None
        self.is_user_code = isinstance(function, UserCode)
        self.judge: ModelJudge | None = None
        """The model that judges; None for other rewards."""
        if not callable(function) and not isinstance(function, UserCode | GymScorer):
            self.judge = function
        if isinstance(function, UserCode):
            self.code_sha256 = function.code.sha256
        self._function = function
        self._time_limit_s = time_limit_s
        self._alarm: Alarm | None = None

    def watch(self, note: Callable[[str], None]) -> None:
        """From here on tell `note` of the first failure, and end a run in which all calls fail."""
        if self.judge is None:
            file = self._function.code.path if isinstance(self._function, UserCode) else None
            self._alarm = Alarm(self.name, file, note)

    def __call__(
        self, /, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float | None]:
        """Pay a batch. Raises nothing but R1RecipesError: when no child process can start, when
        a judge fails too often, or when a reward that is watched fails for all."""
        paid = self.pay(prompts, completions, columns)
        if self.judge:
            self.judge.refuse_failing(paid)
        counted = [self._count(value) if isinstance(value, Failed) else value for value in paid]
        if self._alarm:
            self._alarm.hear(paid)
        return counted

    def pay(self, /, prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> Paid:
        """Pay a batch and count nothing: rows that brought no number are Failed.

        Raises nothing but R1RecipesError, when no child process can start.
        """
        try:
            return self.call_strictly(prompts, completions, columns)
        except Failed as failed:
            if len(completions) <= 1:
                return [failed]
            return self._row_by_row(prompts, completions, columns)

    def call_strictly(
        self,
        /,
        prompts: list[Any],
        completions: list[Any],
        columns: dict[str, Any],
        time_limit_s: float | None = None,
    ) -> Paid:
        """One call without a second try; rows may be Failed. Raises: Failed when the call fails."""
        if not callable(self._function):
            return self._function.pay(prompts, completions, columns, time_limit_s)
        refuse_missing_columns(self._function, ["prompts", "completions", *columns])
        try:
            values = self._function(prompts=prompts, completions=completions, **columns)
        except R1RecipesError:
            raise  # the machine is to blame, not a completion
        except Exception as error:
            raise describe(error) from error
        return numbers(values, len(completions))

    def close(self) -> None:
        """End the child processes and connections, if there are any."""
        if not callable(self._function):
            self._function.close()

    def in_training(self, paid: list[float | None], prompts: Sequence[Any]) -> list[float | None]:
        """What a trainer gets for what was paid: of a judge the mean of its prompt for each
        completion that it did not judge."""
        if self.judge is None:
            return paid
        from r1recipes.rewards.judge.judge import neutral

        return neutral(paid, prompts)

    def _row_by_row(
        self, prompts: list[Any], completions: list[Any], columns: dict[str, Any]
    ) -> Paid:
        """A call for each row alone, as long as there is time."""
        deadline = time.monotonic() + RETRY_LIMITS * self._time_limit_s
        paid: Paid = []
        for index in range(len(completions)):
            if time.monotonic() > deadline:
                paid.append(Failed("timeout", "was not tried again: its time was used up"))
                continue
            row = {
                key: value[index : index + 1] if _is_column(value, completions) else value
                for key, value in columns.items()
            }
            one, limit_s = slice(index, index + 1), self._time_limit_s / ROW_SHARE
            try:
                paid += self.call_strictly(prompts[one], completions[one], row, limit_s)
            except Failed as failed:
                paid.append(failed)
        return paid

    def _count(self, failed: Failed) -> float | None:
        if not self.failures[failed.kind]:  # the first of its kind; the others are counted
            paid = "nothing" if failed.paid is None else f"{failed.paid:g}"
            message = "reward `%s` %s; that completion is paid %s"
            log.warning(message, self.name, failed.message, paid)
        self.failures[failed.kind] += 1
        self.last_failure = failed.message
        return failed.paid


def is_right(value: float | None) -> bool:
    """Whether a completion is right, by what the decisive reward pays for it: 1 or more."""
    return value is not None and value >= 1.0


def _is_column(value: Any, completions: list[Any]) -> bool:
    return isinstance(value, list) and len(value) == len(completions)


def load(
    names: Sequence[str],
    *,
    base_dir: Path,
    allow_code: bool = False,
    verifier: Verifier | None = None,
    judge: ModelJudge | None = None,
    time_limit_s: float = 10.0,
) -> list[Reward]:
    """The rewards of these names, in their order. User code is looked up but not yet run.

    `base_dir` is the recipe's folder, `judge` the model of [judge], and `time_limit_s` the limit
    for a call of user code, and for an answer that `gym` judges. Close each reward when done.
    Raises: RecipeError for an unknown name, a missing file or function, and user code that was not
    allowed.
    """
    rewards = []
    for name in names:
        function: RewardFunction | UserCode | GymScorer | ModelJudge
        if is_user_code(name):
            function = _user_code(name, base_dir, allow_code, time_limit_s)
        elif name not in REWARDS:
            raise _unknown(name)
        elif REWARDS[name] is functions.correctness:
            function = _with_verifier(verifier)
        elif REWARDS[name] is gym:
            function = GymScorer(time_limit_s=time_limit_s)
        elif name == "judge" and judge:
            function = judge
        else:
            function = REWARDS[name]
        rewards.append(Reward(name, function, time_limit_s=time_limit_s))
    return rewards


def _with_verifier(verifier: Verifier | None) -> RewardFunction:
    # Not functools.partial: a column that is called "verifier" would take its place.
    def correctness(
        prompts: list[Any], completions: list[Any], answer: list[Any], **columns: Any
    ) -> list[float]:
        return functions.correctness(
            prompts, completions, answer, **(columns | {"verifier": verifier})
        )

    return correctness


def _user_code(name: str, base_dir: Path, allow_code: bool, time_limit_s: float) -> UserCode:
    code = look_up(name, base_dir)
    if not allow_code:
        raise RecipeError(
            f"reward `{name}` is user code, which runs only with --allow-code "
            f"({code.path}, sha256 {code.sha256})",
            hint="it runs with all your rights: read the file, then allow it",
        )
    return UserCode(code, time_limit_s=time_limit_s)


def _unknown(name: str) -> RecipeError:
    meant = nearest(name, REWARDS, 0.6)
    question = f"; did you mean `{meant}`?" if meant else ""
    hint = f"the rewards are {', '.join(REWARDS)}; your own are named `file.py:function`"
    return RecipeError(f"there is no reward `{name}`{question}", hint=hint)


@dataclass(frozen=True)
class RewardProblem:
    """A problem that a check found. A warning is about the pay; the others would fail in training.

    `kind` is one of timeout, raised, wrong_count, not_a_number; of the warnings, constant (it pays
    the same for everything) or gameable (it pays more for junk than for the right answer).
    """

    kind: str
    message: str
    is_warning: bool = False

    def __str__(self) -> str:
        return self.message


def check(reward: Reward, rows: Sequence[dict[str, Any]]) -> list[RewardProblem]:
    """The problems of a reward on real rows, each with five made-up completions; empty if none.

    `rows` are rows of the data set, with "prompt" and the columns; the first `CHECK_ROWS` are used.
    Counters stay as they were. A hang takes the time limit. A judge is tried by `judge.trial`.
    """
    if reward.judge:
        return []
    rows = list(rows[:CHECK_ROWS])
    cases = [(kind, text, row) for row in rows for kind, text in made_up(row).items()]
    is_chat = any(isinstance(row.get("prompt"), list) for row in rows)
    completions: list[Any] = [text for _, text, _ in cases]
    if is_chat:
        completions = [[{"role": "assistant", "content": text}] for text in completions]
    columns = {key: [row.get(key) for *_, row in cases] for key in rows[0] if key != "prompt"}
    columns["completion_ids"] = [[0] * (len(text) // 4) for _, text, _ in cases]
    prompts = [row.get("prompt") for *_, row in cases]
    try:
        paid = reward.call_strictly(prompts, completions, columns)
    except Failed as failed:
        return [RewardProblem(failed.kind, f"reward `{reward.name}` {failed.message}")]
    problems: dict[str, RewardProblem] = {}  # the first of each kind: a user mends one at a time
    pay: list[tuple[str, float | None]] = []
    for value, (kind, _, _) in zip(paid, cases, strict=True):
        if not isinstance(value, Failed):
            pay.append((kind, value))
        elif value.kind not in problems:
            message = f"reward `{reward.name}` {value.message} [completion: {kind}]"
            problems[value.kind] = RewardProblem(value.kind, message)
    return list(problems.values()) or _doubts(reward.name, pay)


def made_up(row: dict[str, Any]) -> dict[str, str]:
    """Completions for a row, by kind: a right one, and four that a reward must survive."""
    answer = row.get("answer", 42)
    right = str(answer[0] if isinstance(answer, list) and answer else answer)
    shape = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>"
    return {
        "right answer": shape.format("Step by step.", right),
        "wrong answer": shape.format("Step by step.", "-987654321"),
        "empty": "",
        "junk": "<answer>((( \x00 \U0001f600 9^9^9^9 </reasoning> {}[]\\frac{",
        "long": "and so on " * 2000,
    }


def _doubts(name: str, pay: list[tuple[str, float | None]]) -> list[RewardProblem]:
    """Warnings on the pay for each kind of completion."""
    if len({value for _, value in pay}) == 1:
        message = (
            f"reward `{name}` pays {pay[0][1]} for everything: the right answer, a wrong one, "
            "nothing, junk and a long text"
        )
        return [RewardProblem("constant", message, is_warning=True)]
    total: defaultdict[str, float] = defaultdict(float)
    for kind, value in pay:
        total[kind] += value or 0.0
    best = max(("empty", "junk", "long"), key=total.__getitem__)
    if total[best] > total["right answer"]:
        message = f"reward `{name}` pays more for a completion that is {best} than for a right one"
        return [RewardProblem("gameable", message, is_warning=True)]
    return []

"""Pays given completions as training would, and says which are right and why others are not.

A completion is right when the reward that decides pays 1 or more, as in the evaluation. Why it is
not is known for `correctness`; of other rewards only what they paid. Limits: nothing is counted or
written; rewards are loaded and closed by the caller.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from r1recipes.rewards import doubts
from r1recipes.rewards.answers import Judgement, Verifier, extract_answer, final_answer
from r1recipes.rewards.reward import Reward, is_right
from r1recipes.rewards.user_code import Failed

NO_ANSWER, NOT_INSIDE = "no <answer>...</answer>", "not in <answer>...</answer>"


@dataclass(frozen=True)
class Completion:
    """A completion, and the row of the data that it answers."""

    text: str
    prompt: list[dict[str, str]]
    columns: dict[str, Any]
    """The columns of the row: `question`, `answer`, and the others."""
    where: str
    """Its place: the number of a line or problem, and after a colon that of a sample."""
    cut: bool = False
    """Whether it is known to have reached the length limit before its end."""


@dataclass(frozen=True)
class Grade:
    """What one completion is paid."""

    paid: dict[str, float | None]
    """What each reward pays, without its weight; None is no opinion."""
    failures: dict[str, str]
    """Why a reward brought no number, by its name; training pays 0 for it, and nothing for what a
    judge did not judge."""
    total: float
    """The weighted sum."""
    right: bool
    answer: str | None
    """What stands in the last <answer> pair."""
    why: str
    judged: str = ""
    """Score and reason of the reward `judge`; empty without one."""


@dataclass(frozen=True)
class Summary:
    """What one reward paid for all completions."""

    name: str
    weight: float | None
    """None for a reward that only decides."""
    mean: float | None
    share_full: float
    """Share of the completions that are paid 1 or more."""
    share_nothing: float
    """Share of the completions that are paid 0 or less."""
    num_failed: int
    length_correlation: float | None
    """Rank correlation of the payment with the length of the completion."""

    @property
    def verdict(self) -> str:
        """`always` or `never` paid in full, or ""."""
        return "always" if self.share_full == 1 else "never" if self.share_nothing == 1 else ""


def grade_all(
    rewards: Mapping[str, Reward],
    weights: Mapping[str, float],
    decisive: str,
    completions: Sequence[Completion],
    verifier: Verifier,
) -> list[Grade]:
    """A grade for each completion. `rewards` has those of `weights` and the one that decides."""
    arguments = _arguments(completions)
    paid = {name: reward.pay(**arguments) for name, reward in rewards.items()}
    verdicts = _verdicts(completions, verifier) if decisive == "correctness" else None
    grades = []
    judge = rewards["judge"].judge if "judge" in rewards else None
    for index, completion in enumerate(completions):
        values = {name: values[index] for name, values in paid.items()}
        failures = {n: v.message for n, v in values.items() if isinstance(v, Failed)}
        numbers = {n: v.paid if isinstance(v, Failed) else v for n, v in values.items()}
        value = numbers[decisive]
        right = is_right(value)
        why = verdicts[index].why if verdicts else _in_numbers(decisive, value, right)
        why = failures.get(decisive) or why
        grades.append(
            Grade(
                paid=numbers,
                failures=failures,
                total=sum(weight * (numbers[n] or 0.0) for n, weight in weights.items()),
                right=right,
                answer=extract_answer(completion.text),
                why=f"cut off; {why}" if completion.cut and not right else why,
                judged=judge.reasons[index] if judge else "",
            )
        )
    return grades


def _arguments(completions: Sequence[Completion]) -> dict[str, Any]:
    """What a reward is called with. A column that some rows lack is None there."""
    names = dict.fromkeys(name for completion in completions for name in completion.columns)
    return {
        "prompts": [completion.prompt for completion in completions],
        "completions": [[{"role": "assistant", "content": c.text}] for c in completions],
        "columns": {name: [c.columns.get(name) for c in completions] for name in names},
    }


def _verdicts(completions: Sequence[Completion], verifier: Verifier) -> list[Judgement]:
    """Why `correctness` pays or does not; where the tags are missing, whether they alone do."""
    pairs = [(extract_answer(c.text), c.columns["answer"]) for c in completions]
    outside = [(final_answer(c.text), c.columns["answer"]) for c in completions]
    verdicts = verifier.judge(pairs)
    untagged = [i for i, (answer, _) in enumerate(pairs) if answer is None]
    judged = verifier.judge([outside[i] for i in untagged])
    for index, verdict in zip(untagged, judged, strict=True):
        why = f"right, but {NOT_INSIDE}" if verdict.right else NO_ANSWER
        verdicts[index] = Judgement(False, why)
    return verdicts


def _in_numbers(name: str, value: float | None, right: bool) -> str:
    if value is None:
        return f"{name} has no opinion"
    return f"{name} pays {value:g}" + ("" if right else ", and 1 is right")


def summaries(
    grades: Sequence[Grade], weights: Mapping[str, float], completions: Sequence[Completion]
) -> list[Summary]:
    """One for each reward, in the order of the recipe."""
    lengths = [len(completion.text) for completion in completions]
    made = []
    for name in grades[0].paid:
        paid = [grade.paid[name] for grade in grades]
        pairs = [(value, n) for value, n in zip(paid, lengths, strict=True) if value is not None]
        values = [value for value, _ in pairs]
        made.append(
            Summary(
                name=name,
                weight=weights.get(name),
                mean=fmean(values) if values else None,
                share_full=_share(map(is_right, values)),
                share_nothing=_share(value <= 0.0 for value in values),
                num_failed=sum(name in grade.failures for grade in grades),
                length_correlation=doubts.rank_correlation(values, [n for _, n in pairs]),
            )
        )
    return made


def _share(holds: Iterable[bool]) -> float:
    flags = list(holds)
    return sum(flags) / len(flags) if flags else 0.0


def warnings(
    rewards: Mapping[str, Reward],
    grades: Sequence[Grade],
    completions: Sequence[Completion],
    decisive: str,
) -> list[str]:
    """What these completions show about the rewards."""
    lengths = [len(completion.text) for completion in completions]
    messages = []
    for name, reward in rewards.items():
        paid = [grade.paid[name] for grade in grades]
        if len(paid) > 1 and len(set(paid)) == 1:
            value = "no opinion" if paid[0] is None else f"{paid[0]:g}"
            messages.append(f"reward `{name}` pays {value} for each of the {len(paid)} completions")
        if reward.is_user_code:
            messages += doubts.of_paid(name, paid, lengths)
        failed = [grade.failures[name] for grade in grades if name in grade.failures]
        if failed:
            messages.append(f"reward `{name}` failed on {len(failed)} completions: {failed[0]}")
    if not any(grade.right for grade in grades):
        messages.append(f"no completion is right: `eval.reward` {decisive} pays none of them 1")
    return messages


def reasons(grades: Sequence[Grade]) -> list[tuple[str, int]]:
    """Why completions are not right, the most frequent first, with N for every number."""
    counted = Counter(re.sub(r"\S*\d\S*", "N", g.why) for g in grades if not g.right)
    return counted.most_common()

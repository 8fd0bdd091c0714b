"""Finds rewards that can be earned without solving anything, or that cannot be earned at all.

`of_names` looks at names alone. `of_reward` pays made-up completions for real rows and compares:
nothing, the question itself, an answer left empty, the same answer with filler before it, a
completion whose first tag the chat template has written. `of_paid` looks at what given completions
were paid. Limits: a doubt is no proof, so all of them are warnings.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from r1recipes.rewards.functions import MOST
from r1recipes.rewards.reward import Reward
from r1recipes.rewards.user_code import Failed

FORMAT = "<reasoning>\n{}\n</reasoning>\n<answer>\n{}\n</answer>"
WORK, FILLER = "Step by step.", "And so it goes on and on. " * 40
WRONG = "-987654321"
SAME = 1e-9
"""Payments that differ by less are the same."""
LITTLE = 0.1
"""Share of a payment by which a right answer must earn more than a wrong one before a reward is
taken for one that judges answers; assumed."""
MIN_COMPLETIONS = 10
"""Completions from which on lengths are compared; assumed."""
MAX_CORRELATION = 0.7
"""Rank correlation from which a reward is doubted; derived: ten random pairs have it once in 80."""

Row = dict[str, Any]
"""A row of the data: "prompt" and the columns."""


def of_names(weighted: Sequence[str], decisive: str) -> list[str]:
    """Doubts about a recipe's choice of rewards. `weighted` are those of [rewards], `decisive` is
    `eval.reward`."""
    doubts = []
    if decisive not in weighted:
        doubts.append(
            f"`eval.reward` {decisive} is not among [rewards]: training is not paid for what "
            "decides whether an answer is right"
        )
    if decisive in MOST:
        doubts.append(
            f"`eval.reward` {decisive} pays at most {MOST[decisive]:g}, and a completion is right "
            "from 1 on: none ever is"
        )
    return doubts


def of_reward(
    reward: Reward, rows: Sequence[Row], *, decides: bool = False, opened: str | None = None
) -> list[str]:
    """Doubts about a reward, from what it pays for made-up completions of rows of the data.

    `decides`: it is `eval.reward`. `opened` is the tag that the chat template has written when a
    completion begins, such as "think". A judge is doubted by `judge.trial`.
    """
    if reward.judge:
        return []
    paid = _paid_for(reward, rows, opened)
    if not paid or max(paid.values()) - min(paid.values()) < SAME:
        return []  # that it pays the same for everything is said by `rewards.check`
    right = paid["right"]
    doubts = list(_gained(reward.name, paid, right))
    best = max(paid.values())
    if decides and SAME < best < 1 - SAME and reward.name not in MOST:
        doubts.append(
            f"`eval.reward` {reward.name} pays at most {best:.3g} for made-up completions, right "
            "ones among them, and a completion is right from 1 on"
        )
    if paid.get("opened", right) < right - SAME:
        doubts.append(
            f"reward `{reward.name}` pays {paid['opened']:.3g} for a completion in the right "
            f"format where {right:.3g} is due: the chat template has written <{opened}> before it "
            "begins; end `model.chat_template` without it"
        )
    return doubts


def _gained(name: str, paid: dict[str, float], right: float) -> list[str]:
    """What is paid without an answer: beside nothing, only by rewards that tell right from wrong
    for an answer in the format; a reward of the format alone pays whatever stands in it."""
    doubts = []
    if SAME < paid["nothing"] <= right:  # more than for a right one is said by `rewards.check`
        doubts.append(f"reward `{name}` pays {paid['nothing']:.3g} for an empty completion")
    if paid.get("question", 0.0) > SAME:
        doubts.append(f"reward `{name}` pays {paid['question']:.3g} for the question itself")
    judges = right - paid["wrong"] > LITTLE * abs(right)
    if judges and paid["empty answer"] >= right - SAME:
        doubts.append(f"reward `{name}` pays an empty <answer> like a right one")
    if judges and paid.get("question as answer", -math.inf) >= right - SAME:
        doubts.append(f"reward `{name}` pays the question in <answer> like a right answer")
    if paid["filler"] > right + SAME:
        doubts.append(
            f"reward `{name}` pays more for the longer text: {paid['filler']:.3g} in place of "
            f"{right:.3g} for the same answer after {len(FILLER)} characters of filler"
        )
    return doubts


def _paid_for(reward: Reward, rows: Sequence[Row], opened: str | None) -> dict[str, float]:
    """Kind of completion -> what it is paid on average, over the rows that it applies to."""
    tried = [(kind, text, row) for row in rows for kind, text in _made_up(row, opened).items()]
    columns = {key: [row[key] for *_, row in tried] for key in rows[0] if key != "prompt"}
    completions = [[{"role": "assistant", "content": text}] for _, text, _ in tried]
    values = reward.pay([row["prompt"] for *_, row in tried], completions, columns)
    paid: dict[str, list[float]] = {}
    for (kind, *_), value in zip(tried, values, strict=True):
        if value is not None and not isinstance(value, Failed):
            paid.setdefault(kind, []).append(value)
    means = {kind: fmean(numbers) for kind, numbers in paid.items()}
    needed = {"right", "wrong", "nothing", "empty answer", "filler"}
    return means if needed <= means.keys() else {}


def _made_up(row: Row, opened: str | None) -> dict[str, str]:
    """Completions for a row, by kind."""
    answer = row["answer"]
    right = str(answer[0] if isinstance(answer, list) and answer else answer)
    made = {
        "right": FORMAT.format(WORK, right),
        "wrong": FORMAT.format(WORK, WRONG),
        "nothing": "",
        "empty answer": FORMAT.format(WORK, ""),
        "filler": FORMAT.format(f"{WORK} {FILLER}", right),
    }
    question = str(row.get("question") or "").strip()
    if question and question != right.strip():
        made["question"] = question
        made["question as answer"] = FORMAT.format(WORK, question)
    if opened == "reasoning":
        made["opened"] = made["right"].removeprefix("<reasoning>")
    elif opened:
        made["opened"] = f"\nLet me see.\n</{opened}>\n\n{made['right']}"
    return made


def of_paid(name: str, paid: Sequence[float | None], lengths: Sequence[int]) -> list[str]:
    """Doubts about a user's reward from what it paid for given completions of these lengths, in
    characters. One of the table cannot be earned by length."""
    pairs = [(value, n) for value, n in zip(paid, lengths, strict=True) if value is not None]
    if len(pairs) < MIN_COMPLETIONS:
        return []
    correlation = rank_correlation([value for value, _ in pairs], [n for _, n in pairs])
    if correlation is None or correlation < MAX_CORRELATION:
        return []
    return [
        f"reward `{name}` pays more for longer completions: rank correlation {correlation:.2f} "
        f"over {len(pairs)} of them"
    ]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's, with mean ranks for ties; None where one of the two has no spread."""
    a, b = _ranks(first), _ranks(second)
    mean = (len(a) - 1) / 2
    spread = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    if spread == 0:
        return None
    return sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True)) / spread


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each value in their order; equal ones share the mean of their places."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [fmean(places[value]) for value in values]

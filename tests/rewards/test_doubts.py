"""Doubts about rewards: what can be earned without an answer, by length, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1recipes import rewards
from r1recipes.rewards import REWARDS, doubts
from r1recipes.rewards.reward import Reward

ROWS = [
    {"prompt": [], "question": "What is 40 + 2?", "answer": "42"},
    {"prompt": [], "question": "What is 3 * 5?", "answer": ["15", "fifteen"]},
]
COUNTDOWN = [
    {"prompt": [], "question": "Use 1, 2 and 3.", "answer": "1 + 2 * 3"}
    | {"numbers": [1, 2, 3], "target": 7}
]


def texts(function: Callable[[str, Any], float | None]) -> Reward:
    """A reward from a function of the text and the reference."""

    def pay(prompts: list, completions: list, answer: list, **columns: Any) -> list[float | None]:
        return [function(c[-1]["content"], a) for c, a in zip(completions, answer, strict=True)]

    return Reward("mine", pay)


def first(answer: Any) -> str:
    return answer[0] if isinstance(answer, list) else answer


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"countdown", "judge"}))
@pytest.mark.parametrize("decides", [True, False])
def test_the_rewards_of_the_table_give_no_cause_for_doubt(name, decides):
    (reward,) = rewards.load([name], base_dir=Path("."))
    assert doubts.of_reward(reward, ROWS, decides=decides and name == "correctness") == []


def test_countdown_gives_no_cause_for_doubt():
    (reward,) = rewards.load(["countdown"], base_dir=Path("."))
    assert doubts.of_reward(reward, COUNTDOWN, decides=True) == []


@pytest.mark.parametrize(
    ("function", "doubt"),
    [
        (
            lambda text, answer: 1.0 if first(answer) in text or not text else 0.0,
            "reward `mine` pays 1 for an empty completion",
        ),
        (
            lambda text, answer: 0.5 * any(c.isdigit() for c in text),
            "reward `mine` pays 0.5 for the question itself",
        ),
        (
            lambda text, answer: float("<answer>" in text and "987" not in text),
            "reward `mine` pays an empty <answer> like a right one",
        ),
        (
            lambda text, answer: float("<answer>" in text and "987" not in text),
            "reward `mine` pays the question in <answer> like a right answer",
        ),
        (
            lambda text, answer: min(1.0, len(text) / 2000) + (first(answer) in text),
            "reward `mine` pays more for the longer text: 1.5",
        ),
    ],
    ids=["nothing", "question", "empty answer", "question as answer", "length"],
)
def test_what_is_paid_without_solving_anything(function, doubt):
    found = doubts.of_reward(texts(function), ROWS)
    assert any(doubt in text for text in found), found


def test_a_reward_that_decides_must_be_able_to_pay_1():
    half = texts(lambda text, answer: 0.5 * (f"\n{first(answer)}\n" in text))
    (doubt,) = doubts.of_reward(half, ROWS, decides=True)
    assert "`eval.reward` mine pays at most 0.5 for made-up completions" in doubt
    assert doubts.of_reward(half, ROWS) == []


@pytest.mark.parametrize(
    ("name", "opened", "doubt"),
    [
        ("strict_format", "think", "pays 0 for a completion in the right format where 1 is due"),
        ("soft_format", "think", "the chat template has written <think> before it begins"),
        ("strict_format", "reasoning", "has written <reasoning> before it begins"),
        ("xml_tags", "reasoning", "pays 0.75 for a completion in the right format"),
        ("xml_tags", "think", None),
        ("correctness", "think", None),
        ("correctness", "reasoning", None),
        ("strict_format", None, None),
    ],
)
def test_a_tag_that_the_template_opens(name, opened, doubt):
    (reward,) = rewards.load([name], base_dir=Path("."))
    found = doubts.of_reward(reward, ROWS, opened=opened)
    assert (doubt in found[0]) if doubt else (found == [])


def test_rewards_that_fail_or_have_no_opinion_are_left_to_the_check():
    def fails(prompts: list, completions: list, **columns: Any) -> list[float]:
        raise KeyError("level")

    assert doubts.of_reward(Reward("mine", fails), ROWS) == []
    assert doubts.of_reward(texts(lambda text, answer: None), ROWS) == []
    assert doubts.of_reward(texts(lambda text, answer: 0.5), ROWS) == []


def test_a_payment_that_follows_the_length_is_doubted():
    lengths = [10, 40, 20, 90, 70, 30, 60, 80, 50, 100]
    (doubt,) = doubts.of_paid("mine", [n / 100 for n in lengths], lengths)
    assert "pays more for longer completions: rank correlation 1.00 over 10" in doubt
    assert doubts.of_paid("mine", [1 / n for n in lengths], lengths) == []
    assert doubts.of_paid("mine", [1.0] * 10, lengths) == []
    assert doubts.of_paid("mine", [0.1, 0.2, None], [1, 2, 3]) == []


@pytest.mark.parametrize(
    ("first_values", "second_values", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),
        ([1, 1, 2, 2], [1, 2, 3, 4], 0.894427191),
        ([1, 1, 1], [1, 2, 3], None),
        ([], [], None),
    ],
)
def test_rank_correlation(first_values, second_values, expected):
    """Without ties 1 - 6 sum(d^2) / (n^3 - n); with ties Pearson's of the mean ranks."""
    found = doubts.rank_correlation(first_values, second_values)
    assert found == (expected if expected is None else pytest.approx(expected))

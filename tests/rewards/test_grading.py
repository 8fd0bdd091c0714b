"""Grades of given completions: what is paid, what is right, and why not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1recipes import rewards
from r1recipes.rewards import grading
from r1recipes.rewards.answers import AnswerColumn, Verifier
from r1recipes.rewards.grading import Completion
from r1recipes.rewards.reward import Reward

TAGS = "<reasoning>\nwork\n</reasoning>\n<answer>\n{}\n</answer>"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(column=AnswerColumn.from_references(["42", "7", "12"])) as made:
        yield made


def completion(text: str, answer: Any = "42", cut: bool = False) -> Completion:
    return Completion(text, [], {"question": "?", "answer": answer}, "1", cut)


def load(*names: str, verifier: Verifier) -> dict[str, Reward]:
    loaded = rewards.load(names, base_dir=Path("."), verifier=verifier)
    return {reward.name: reward for reward in loaded}


@pytest.mark.parametrize(
    ("text", "right", "why"),
    [
        (TAGS.format("42"), True, "the same text"),
        (TAGS.format("42.0"), True, "the same number"),
        (TAGS.format("41"), False, "42 expected, 41 given"),
        (TAGS.format("6 * 7"), False, "an expression, not worked out"),
        (TAGS.format(""), False, "no answer"),
        ("", False, "no <answer>...</answer>"),
        ("The answer is 42.", False, "right, but not in <answer>...</answer>"),
        ("The answer is 41.", False, "no <answer>...</answer>"),
    ],
)
def test_why_an_answer_is_right_or_not(text, right, why, verifier):
    names = load("correctness", verifier=verifier)
    (grade,) = grading.grade_all(
        names, {"correctness": 2.0}, "correctness", [completion(text)], verifier
    )
    assert (grade.right, grade.why, grade.total) == (right, why, 2.0 * right)


def test_each_reward_pays_and_the_weighted_sum_is_the_total(verifier):
    names = load("correctness", "integer", "xml_tags", "soft_format", verifier=verifier)
    weights = {"correctness": 2.0, "integer": 0.5, "xml_tags": 1.0}
    given = [completion(TAGS.format("41")), completion("<answer>42</answer>", cut=True)]
    first, second = grading.grade_all(names, weights, "soft_format", given, verifier)
    assert first.paid == {"correctness": 0, "integer": 1, "xml_tags": 1, "soft_format": 1}
    assert (first.total, first.right, first.why) == (1.5, True, "soft_format pays 1")
    assert second.paid == {"correctness": 1, "integer": 1, "xml_tags": 0.5, "soft_format": 0}
    assert second.total == 3.0 and not second.right
    assert second.why == "cut off; soft_format pays 0, and 1 is right"


def test_a_reward_that_fails_pays_0_and_says_why(verifier):
    def pay(prompts: list, completions: list, answer: list, **columns: Any) -> list[float | None]:
        pairs = zip(completions, answer, strict=True)
        return [1 / len(c[-1]["content"]) if a else None for c, a in pairs]

    given = [completion("a"), completion(""), completion("bb", answer="")]
    grades = grading.grade_all(
        {"mine": Reward("mine", pay)}, {"mine": 1.0}, "mine", given, verifier
    )
    assert [grade.paid["mine"] for grade in grades] == [1.0, 0.0, None]
    assert grades[1].failures["mine"].startswith("raised ZeroDivisionError")
    assert grades[1].why.startswith("raised ZeroDivisionError")
    assert grades[2].why == "mine has no opinion"
    (summary,) = grading.summaries(grades, {"mine": 1.0}, given)
    assert (summary.mean, summary.share_full, summary.num_failed) == (0.5, 0.5, 1)
    reward = Reward("mine", pay)
    (warning,) = grading.warnings({"mine": reward}, grades, given, "mine")
    assert "reward `mine` failed on 1 completions: raised ZeroDivisionError" in warning
    assert reward.failures == {}


def test_summaries_and_reasons(verifier):
    names = load("correctness", "integer", "strict_format", verifier=verifier)
    given = [completion(TAGS.format(n)) for n in ("42", "41", "40", "no")]
    grades = grading.grade_all(names, {"correctness": 2.0}, "correctness", given, verifier)
    by_name = {s.name: s for s in grading.summaries(grades, {"correctness": 2.0}, given)}
    correct = by_name["correctness"]
    assert (correct.weight, correct.mean, correct.share_full) == (2.0, 0.25, 0.25)
    assert (correct.share_nothing, correct.verdict) == (0.75, "")
    assert by_name["integer"].weight is None and by_name["integer"].mean == 0.75
    assert by_name["strict_format"].verdict == "always"
    assert grading.reasons(grades)[0] == ("N expected, N given", 2)


def test_rewards_that_teach_nothing_are_named(verifier):
    names = load("correctness", "strict_format", verifier=verifier)
    given = [completion(TAGS.format(n)) for n in ("41", "40")]
    grades = grading.grade_all(names, {"correctness": 2.0}, "correctness", given, verifier)
    assert grading.warnings(names, grades, given, "correctness") == [
        "reward `correctness` pays 0 for each of the 2 completions",
        "reward `strict_format` pays 1 for each of the 2 completions",
        "no completion is right: `eval.reward` correctness pays none of them 1",
    ]


def test_a_column_that_some_rows_lack_is_none_there(verifier):
    seen = {}

    def pay(prompts: list, completions: list, level: list, **columns: Any) -> list[float]:
        seen["level"] = level
        return [1.0] * len(completions)

    given = [Completion("x", [], {"answer": "1", "level": 3}, "1"), completion("y")]
    grading.grade_all({"mine": Reward("mine", pay)}, {"mine": 1.0}, "mine", given, verifier)
    assert seen["level"] == [3, None]

"""Rewards and references before a run."""

import textwrap
from pathlib import Path
from typing import Any

import datasets
import pytest

from r1recipes import rewards
from r1recipes.data import preflight
from r1recipes.data.splits import Splits
from r1recipes.errors import RecipeError
from r1recipes.rewards.answers import Verifier
from tests.data.preflight.words import rows, splits


def test_rewards_that_work_give_no_warning():
    loaded = rewards.load(["strict_format", "integer"], base_dir=Path("."))
    assert preflight.check_rewards(loaded, splits("hello", "what is 1")) == []


def with_answers(*answers: Any) -> datasets.Dataset:
    made = rows(*(f"what is {index}" for index in range(len(answers))))
    return made.remove_columns("answer").add_column("answer", list(answers))


def test_the_references_of_both_splits_are_one_column():
    made = Splits(with_answers("5/1/2024", "6/1/2024"), with_answers("25/12/2023"))
    column = preflight.answer_column(made)
    assert column.summary == "3 references: dates"
    verifier = Verifier(column=column)
    (reward,) = rewards.load(["correctness"], base_dir=Path("."), verifier=verifier)
    completions = [f"<answer>{text}</answer>" for text in ("5 January 2024", "May 1, 2024")]
    assert reward(prompts=["?"] * 2, completions=completions, answer=["5/1/2024"] * 2) == [1.0, 0.0]
    assert preflight.answer_column(made, kind="text").summary == "3 references: texts"


def test_lists_of_accepted_answers_are_checked_and_paid():
    made = Splits(with_answers(["Paris", "Lutetia"], ["Rome"]), with_answers(["Oslo"]))
    verifier = Verifier(column=preflight.answer_column(made))
    names = ["correctness", "notebook_correctness"]
    loaded = rewards.load(names, base_dir=Path("."), verifier=verifier)
    assert preflight.check_rewards(loaded, made) == []
    completions = [f"<answer>{text}</answer>" for text in ("Lutetia", "Rome")]
    for reward, most in zip(loaded, (1.0, 2.0), strict=True):
        paid = reward(prompts=["?"] * 2, completions=completions, answer=[["Paris", "Lutetia"]] * 2)
        assert paid == [most, 0.0]


@pytest.mark.slow
def test_problems_of_all_rewards_are_told_at_once(tmp_path):
    code = """\
        def broken(completions, **kwargs):
            raise KeyError("level")

        def one(completions, **kwargs):
            return [1.0]

        def flat(completions, **kwargs):
            return [0.5] * len(completions)
        """
    (tmp_path / "mine.py").write_text(textwrap.dedent(code))
    names = [f"mine.py:{name}" for name in ("broken", "one", "flat")]
    loaded = rewards.load(names, base_dir=tmp_path, allow_code=True)
    made = splits("hello", "what is 1")
    try:
        with pytest.raises(RecipeError) as caught:
            preflight.check_rewards(loaded, made)
        warnings = preflight.check_rewards(loaded[2:], made)
    finally:
        for reward in loaded:
            reward.close()
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 2 and "KeyError" in messages[0] and "mine.py:one" in messages[1]
    assert len(warnings) == 1 and "pays 0.5 for everything" in warnings[0]

"""User code by its syntax, and the choice of rewards."""

import pytest

from r1recipes.data import local
from tests.data.local.recipes import faults, load

CODE = """
from elsewhere import imported

def dose(completion, row): ...
def trl(prompts, completions, level, id=None, *, question, **columns): ...
def odd(text): ...
def many(completion, row, other): ...
def few(completion): ...
async def late(completion, row): ...
class Judge:
    def __call__(self, completion, row): ...
judge = Judge()
@imported
def wrapped(text): ...
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("dose", None),
        ("few", None),
        ("judge", None),
        ("imported", None),
        ("wrapped", None),
        ("odd", "reward `mine.py:odd` takes (text)"),
        ("many", "needs 3 arguments: completion, row, other"),
        ("late", "`late` is `async`"),
        ("Judge", "`Judge` is a class, not a function"),
        ("trl", "needs the columns level, which the data does not have"),
        ("dosis", "did you mean `dose`?"),
    ],
)
def test_functions_are_judged_by_their_syntax(function, message, folder):
    (folder / "mine.py").write_text(CODE)
    loaded = load(folder, rewards={f"mine.py:{function}": 1.0, "correctness": 1.0})
    text = faults(loaded)
    assert (message in text) if message else (text == "")


def test_columns_that_are_not_known_are_not_missed(folder):
    (folder / "mine.py").write_text(CODE)
    rewards = {"mine.py:trl": 1.0, "correctness": 1.0}
    assert faults(load(folder, data={"name": "me/rows"}, rewards=rewards)) == ""


def test_code_is_imported_where_it_is_allowed(folder):
    (folder / "mine.py").write_text("1 / 0\ndef f(completion, row): ...\n")
    loaded = load(folder, rewards={"mine.py:f": 1.0, "correctness": 1.0})
    assert faults(loaded) == ""
    assert "reward `mine.py:f` raised ZeroDivisionError" in faults(loaded, allow_code=True)
    (folder / "mine.py").write_text("def f(completion, row): ...\n")
    assert "f(completion, row), imported" in local.look(loaded, allow_code=True).lines[-1]


def test_a_file_of_rewards_that_is_not_there(folder):
    loaded = load(folder, rewards={"mime.py:f": 1.0, "correctness": 1.0})
    assert "mime.py` cannot be read" in faults(loaded) and "did you mean `mine.py`?" in faults(
        loaded
    )


@pytest.mark.parametrize(
    ("rewards", "judge", "warning"),
    [
        ({"correctness": 1.0}, "correctness", None),
        ({"integer": 1.0}, "correctness", "`eval.reward` correctness is not among [rewards]"),
        ({"notebook_int": 1.0}, "notebook_int", "pays at most 0.5, and a completion is right"),
    ],
)
def test_the_choice_of_rewards_is_doubted(rewards, judge, warning, folder):
    found = local.look(load(folder, rewards=rewards, eval={"reward": judge})).warnings
    assert (warning in found[0]) if warning else (found == [])


def test_rewards_that_choose_pairs_are_not_called_unused(folder):
    assert not any("nothing" in w for w in local.look(load(folder, algorithm="dpo")).warnings)
    warnings = local.look(load(folder, algorithm="sft")).warnings
    assert "[rewards] pay for nothing: SFT goes by `eval.reward` alone" in warnings

"""Rewards of a user's file before training: their names, what is refused, what the check says."""

import hashlib
import pickle
from pathlib import Path

import pytest

from r1recipes import rewards
from r1recipes.errors import RecipeError
from r1recipes.rewards.reward import Reward
from r1recipes.rewards.user_code import (
    Failed,
    code_sha256,
    file_hash,
    is_user_code,
    user_code_path,
)
from tests.user_code import loader, train

DOSE = Path(__file__).parents[2] / "docs" / "examples" / "dose_reward.py"
ROWS = [
    {"prompt": [{"role": "user", "content": "6 * 7?"}], "answer": "42"},
    {"prompt": [{"role": "user", "content": "1 + 1?"}], "answer": "2"},
]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    with loader(tmp_path_factory.mktemp("user")) as load:
        yield load


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("raises", "raised", ["`mine.py:raises` raised ValueError", "mine.py line 22: `return ["]),
        ("hangs_on_empty", "timeout", ["did not return within 0.5 s"]),
        ("one_for_all", "wrong_count", ["1 value for 10 completions: it must return one number"]),
        ("scalar", "wrong_count", ["returned 1 value for 10 completions"]),
        ("text", "not_a_number", ["returned 'good' (str): it must return a finite number"]),
        ("nan_for_empty", "not_a_number", ["returned nan (float)", "[completion: empty]"]),
        ("leaves", "raised", ["ended its process"]),
        ("leaves_with_0", "raised", ["ended its process"]),
        ("exits", "raised", ["raised SystemExit: bye"]),
        ("needs", "raised", ["needs the columns `solution`, which the data does not have"]),
        ("odd", "raised", ["takes (text): it must take (completion, row)"]),
        ("constant", "constant", ["pays 0.25 for everything"]),
        ("likes_nothing", "gameable", ["pays more for a completion that is empty"]),
    ],
)
def test_check_says_what_is_wrong(name, kind, parts, mine):
    reward = mine(name, time_limit_s=0.5 if kind == "timeout" else 10.0)
    (problem,) = rewards.check(reward, ROWS)
    assert problem.kind == kind
    assert problem.is_warning == (kind in ("constant", "gameable"))
    for part in parts:
        assert part in str(problem)
    assert not reward.failures, "a check is not training"


def test_any_function_can_be_made_safe():
    assert Reward("mine", len).code_sha256 is None

    def half_broken(prompts, completions, **columns):
        return [1 / len(text) for text in completions]

    reward = Reward("mine", half_broken)
    assert reward(["?"] * 3, ["a", "", "bb"]) == [1.0, 0.0, 0.5]
    assert reward.failures == {"raised": 1}
    assert str(reward.last_failure).startswith("raised ZeroDivisionError")


# Names


@pytest.mark.parametrize(
    ("name", "is_code"),
    [
        ("mine.py:f", True),
        ("../a folder/mine.py:_f2", True),
        ("correctness", False),
        ("mine.py", False),
        ("mine.py:", False),
        ("mine.py:2f", False),
        ("mine:f", False),
        ("", False),
    ],
)
def test_user_code_is_known_by_its_name(name, is_code):
    assert is_user_code(name) is is_code


def test_code_is_found_from_the_recipes_folder_and_hashed(mine):
    path, function = user_code_path("mine.py:short", mine.folder)
    assert (path, function) == (mine.folder / "mine.py", "short")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file_hash(path) == code_sha256("mine.py:short", mine.folder) == expected


@pytest.mark.parametrize(
    ("name", "allow", "parts"),
    [
        ("corectness", True, ["no reward `corectness`", "did you mean `correctness`?"]),
        ("zzz", True, ["no reward `zzz`"]),
        ("mine.py:short", False, ["--allow-code", "sha256", "mine.py"]),
        ("gone.py:short", True, ["gone.py", "cannot be read"]),
        ("mine.py:shorty", True, ["no function `shorty`"]),
        ("broken.py:f", True, ["not valid Python", "line 1"]),
    ],
)
def test_load_refuses_with_a_reason(name, allow, parts, mine):
    (mine.folder / "broken.py").write_text("def f(:\n")
    with pytest.raises(RecipeError) as caught:
        rewards.load([name], base_dir=mine.folder, allow_code=allow)
    assert isinstance(caught.value, ValueError)
    for part in parts:
        assert part in str(caught.value)
    hint = caught.value.problems[0].hint
    expected = {"zzz": "xml_tags", "mine.py:shorty": "did you mean `short`?"}.get(name)
    assert expected is None or expected in str(hint)


def test_a_failure_crosses_processes():
    failed = pickle.loads(pickle.dumps(Failed("raised", "raised ValueError: x")))
    assert (failed.kind, failed.message) == ("raised", "raised ValueError: x")


def test_a_file_is_imported_with_its_neighbours_and_under_a_name_of_its_own(tmp_path):
    (tmp_path / "neighbour.py").write_text("WORTH = 0.75\n")
    (tmp_path / "json.py").write_text(
        "from neighbour import WORTH\n\ndef f(completion, row):\n    return WORTH\n"
    )
    (reward,) = rewards.load(["json.py:f"], base_dir=tmp_path, allow_code=True)
    try:
        assert train(reward, "a") == [0.75] and not reward.failures
    finally:
        reward.close()


# The example of the documentation


@pytest.fixture(scope="module")
def dose():
    (reward,) = rewards.load([f"{DOSE.name}:dose"], base_dir=DOSE.parent, allow_code=True)
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ("500 mg", 1),
        ("0.5 g", 1),
        ("500,000 mcg", 1),
        ("500000\u00b5g", 1),
        ("0.0005 kg.", 1),
        ("500 mcg", 0.2),
        ("5 g", 0.2),
        ("500 ml", 0),
        ("500", 0),
        ("500 mg or 5 g", 0),
        ("-500 mg", 0),
        ("mg", 0),
        ("((((", 0),
        ("", 0),
    ],
)
def test_dose_example(answer, paid, dose):
    completions = [f"<reasoning>\nx\n</reasoning>\n<answer>\n{answer}\n</answer>"] * 2
    columns = {"prompts": ["?"] * 2, "completions": completions}
    assert dose(**columns, answer=["500 mg", "yes"]) == [paid, None]
    assert not dose.failures


def test_dose_example_passes_its_check(dose):
    assert rewards.check(dose, [{"prompt": "How much?", "answer": "500 mg"}]) == []

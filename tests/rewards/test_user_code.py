"""Rewards of a user's file in training: a bad row is paid 0, a hang ends, an edit does not pay."""

import hashlib
import os
import time

import pytest

from r1recipes import rewards
from r1recipes.rewards.user_code import code_sha256
from tests.helpers import is_running
from tests.user_code import loader, train


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    with loader(tmp_path_factory.mktemp("user")) as load:
        yield load


@pytest.mark.parametrize(
    ("name", "texts", "paid", "failures"),
    [
        ("short", ["abc", "abcdef"], [1, 0], {}),
        ("trl_form", ["42 42", "7"], [2, 0], {}),
        ("without_kwargs", ["a", "b"], [0.5, 0.5], {}),
        ("no_opinion", ["a", ""], [1, None], {}),
        ("raises", ["1", "x", "3"], [1, 0, 3], {"raised": 1}),
        ("skips", ["a", "", "c"], [1, 0, 1], {"wrong_count": 1}),
        ("text", ["a", "b"], [0, 0], {"not_a_number": 2}),
        ("nan_for_empty", ["a", ""], [1, 0], {"not_a_number": 1}),
        ("leaves", ["a", "", "c"], [1, 0, 1], {"raised": 1}),
        ("leaves_with_0", ["a", "", "c"], [1, 0, 1], {"raised": 1}),
        ("waits_for_a_fork", ["a"], [1], {}),
        ("exits", ["a"], [0], {"raised": 1}),
        ("needs", ["a", "b"], [0, 0], {"raised": 2}),
    ],
)
def test_in_training_a_bad_row_is_paid_0_and_counted(name, texts, paid, failures, mine):
    reward = mine(name)
    assert train(reward, *texts, most=5) == paid
    assert reward.failures == failures


def test_a_hang_costs_its_row_and_a_bounded_time(mine):
    reward = mine("hangs", time_limit_s=2.0)
    assert train(reward, "good") == [1.0]  # the child is up
    start = time.perf_counter()
    assert train(reward, "good", "hang", "good") == [1.0, 0.0, 1.0]
    assert time.perf_counter() - start < 8
    assert reward.failures == {"timeout": 1}
    assert "within 0.4 s" in reward.last_failure


def test_when_all_rows_hang_the_time_is_bounded_too(mine):
    reward = mine("hangs", time_limit_s=0.3)
    train(reward, "good")
    start = time.perf_counter()
    assert train(reward, *["hang"] * 100) == [0.0] * 100
    assert time.perf_counter() - start < 8
    assert reward.failures == {"timeout": 100}


def test_the_child_is_kept_between_calls(mine):
    reward = mine("calls")
    assert [train(reward, "a") for _ in range(3)] == [[1], [2], [3]]
    start = time.perf_counter()
    train(reward, *["a"] * 128)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("text", ["hang", "leave", "good"])
def test_what_a_reward_started_ends_with_it(text, mine, tmp_path):
    reward = mine("starts_others", time_limit_s=1.0)
    train(reward, text, pids=str(tmp_path / "pids"))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    if text == "good":
        assert all(is_running(pid) for pid in pids)
        reward.close()
    deadline = time.monotonic() + 3
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_is_not_in_the_terminals_group(mine):
    """Ctrl-C goes to the whole group; the parent alone answers it."""
    reward = mine("group")
    (group,) = train(reward, "a")
    assert group != os.getpgrp()


EDITED = """
from neighbour import WORTH

def f(completion, row):
    while completion == "hang":
        pass
    assert completion != "old", __file__
    return WORTH
"""


@pytest.mark.parametrize("after", ["hang", "close", "before the first call"])
def test_an_edited_file_does_not_pay_in_a_run(after, tmp_path):
    path = tmp_path / "edited.py"
    path.write_text(EDITED)
    (tmp_path / "neighbour.py").write_text("WORTH = 0.75\n")
    (reward,) = rewards.load(["edited.py:f"], base_dir=tmp_path, allow_code=True, time_limit_s=1.0)
    try:
        if after != "before the first call":
            assert train(reward, "a") == [0.75]
        path.write_text("# edited\n\ndef f(completion, row):\n    return 100.0\n")
        if after == "hang":
            assert train(reward, "hang") == [0.0]
        elif after == "close":
            reward.close()
        assert train(reward, "a") == [0.75]
        assert reward.code_sha256 == hashlib.sha256(EDITED.encode()).hexdigest()
        assert code_sha256("edited.py:f", tmp_path) != reward.code_sha256
        assert train(reward, "old") == [0.0]
        assert reward.last_failure == (
            f"raised AssertionError: {path} "
            '(edited.py line 7: `assert completion != "old", __file__`)'
        )
    finally:
        reward.close()


def test_a_column_may_be_called_self(mine):
    assert train(mine("own_column"), "a", self=0.5) == [0.5]

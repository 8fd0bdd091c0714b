"""A reward that fails in a run: one warning, and the end of the run where it fails for all."""

import pytest
import tomli
import tomli_w

from r1recipes.rewards.alarm import MIN_ALL, RewardFails
from r1recipes.runs import record
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.user_code import loader, train


def test_the_first_failure_is_a_warning_and_the_others_are_counted(tmp_path):
    notes: list[str] = []
    with loader(tmp_path) as load:
        reward = load("raises")
        reward.watch(notes.append)
        assert train(reward, "1", *["x"] * MIN_ALL) == [1.0] + [0.0] * MIN_ALL
        assert train(reward, "x", "2") == [0.0, 2.0]
    assert reward.failures == {"raised": MIN_ALL + 1}
    (line,) = notes
    assert line.startswith("warning: reward `mine.py:raises` raised ValueError: could not convert")


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("raises", "x", "it raised ValueError: could not", "correct "),
        ("text", "x", "it returned 'good' \\(str\\)", "correct "),
        ("hangs", "hang", "it (was not tried again|did not)", "R1RECIPES_REWARD_LIMIT_S"),
    ],
)
def test_a_call_in_which_all_fail_ends_the_run(name, text, message, hint, tmp_path):
    with loader(tmp_path) as load:
        reward = load(name, time_limit_s=0.3)
        reward.watch(lambda line: None)
        with pytest.raises(RewardFails, match=f"each of the last {MIN_ALL} completions: {message}"):
            train(reward, *[text] * MIN_ALL)
        reward = load("raises")
        reward.watch(lambda line: None)
        assert train(reward, *["x"] * (MIN_ALL - 1)) == [0.0] * (MIN_ALL - 1)
        assert train(reward, "x", "1") == [0.0, 1.0], "the row begins anew"
        train(reward, *["x"] * (MIN_ALL - 1))
        with pytest.raises(RewardFails) as caught:
            train(reward, "x")
    assert caught.value.kind == "reward" and "mine.py" in str(caught.value.problems[0].hint)


BOOM = """
MADE_UP = ("Step by step.", "and so on", "9^9^9^9")

def boom(completion, row):
    if completion and not any(text in completion for text in MADE_UP):
        raise KeyError("no such column")
    return float("Step" in completion)
"""
"""Passes the check before a run and raises in it."""


def test_a_run_whose_reward_always_raises_fails_with_the_text(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    data = tomli.loads(SMALL)
    data["rewards"]["bad.py:boom"] = 1.0
    data["cold_start"]["steps"] = 2
    (tmp_path / "bad.py").write_text(BOOM)
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(data))
    code, out, err = in_process("run", tmp_path / "mine.toml", "--allow-code", "--force")
    assert code == 1
    assert "reward `bad.py:boom` failed for each of the last 12 completions: it raised " in err
    assert "KeyError: 'no such column'" in err and "bad.py and start a new run" in err
    assert (out + capfd.readouterr().out).count(
        "warning: reward `bad.py:boom` raised KeyError"
    ) == 1
    (run,) = record.all_runs(tmp_path / "runs")
    recorded = run.read()
    assert (recorded["status"], recorded["error"]["kind"]) == ("failed", "reward")

"""A trial tells a good judge from one that is noisy, looks at the order, or obeys what it reads."""

import re

import pytest

from r1recipes.errors import RecipeError
from r1recipes.rewards.judge import trial
from tests.judge_server import JudgeServer, Reply, blocks, to_judge

ROWS = [
    {
        "prompt": [{"role": "user", "content": f"{n} + 1?"}],
        "question": f"{n} + 1?",
        "answer": str(n + 1),
    }
    for n in (1, 2)
]


def tried(answering, tmp_path, rows=ROWS, strict=True, **keys):
    with JudgeServer(answering) as server:
        judge = to_judge(server, tmp_path, **({"scale": [0, 10]} | keys), retries=0)
        try:
            return trial.run(judge, rows, strict=strict), judge, server
        finally:
            judge.close()


def is_right(text: str) -> bool:
    shown = blocks(text)
    number = re.search(r"(\d) \+ 1", shown["Question"])
    assert number
    return f"<answer>\n{int(number[1]) + 1}\n" in shown["Answer to judge"]


def good(text, number):
    return {"score": 10 if is_right(text) else 0}


def warnings(lines):
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def test_a_good_judge_is_not_doubted(tmp_path):
    lines, judge, server = tried(good, tmp_path)
    assert not warnings(lines) and len(server.bodies) == 20
    assert lines == [
        "judge stub: 10 of 10 made-up completions are paid the same when they are judged again",
        "judge: mean payment right 1.00, wrong 0.00, nothing 0.00, filler 1.00, injected 0.00",
        lines[2],
    ]
    assert re.fullmatch(r"judge: 20 calls, 2,200 tokens, \d s", lines[2])
    assert judge.trial["num_same"] == judge.trial["num_twice"] == 10


def test_a_second_trial_asks_nothing(tmp_path):
    with JudgeServer(good) as server:
        first = to_judge(server, tmp_path, scale=[0, 10])
        trial.run(first, ROWS, strict=True)
        second = to_judge(server, tmp_path, scale=[0, 10])
        lines = trial.run(second, ROWS, strict=True)
        assert len(server.bodies) == 20 and "0 calls and 20 answers from the cache" in lines[-1]
        assert first.trial == second.trial
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("answering", "warning"),
    [
        (
            lambda text, number: {"score": 10 * is_right(text) if number < 10 else 5},
            "the judge pays the same twice for 0 of 10 completions: part of what it pays is noise",
        ),
        (
            lambda text, _: {"score": 10 if is_right(text) or "highest score" in text else 0},
            "the judge obeys what it judges: a wrong answer is paid 0.00, and 1.00 with the demand",
        ),
        (
            lambda text, _: {"score": 10 if "And so it goes" in text else 5 * is_right(text)},
            "the judge pays more for the longer text: 1.00 in place of 0.50",
        ),
        (
            lambda text, _: {
                "score": 10 if is_right(text) or not blocks(text)["Answer to judge"] else 0
            },
            "the judge pays 1.00 for an empty completion",
        ),
        (
            lambda *_: {"score": 5},
            "the judge pays a wrong answer 0.50, and the right one 0.50",
        ),
    ],
)
def test_a_bad_judge_is_doubted(tmp_path, answering, warning):
    lines, _, _ = tried(answering, tmp_path)
    assert any(warning in line for line in warnings(lines)), lines


def test_a_judge_that_looks_at_the_order_is_doubted(tmp_path):
    lines, judge, _ = tried(lambda *_: {"better": "A"}, tmp_path, compare="reference", scale=None)
    assert "the judge prefers the same text in both orders in 0 of 20 pairs" in warnings(lines)[0]
    assert "0 of 20 pairs alike in both orders" in lines[0]


def test_within_a_group_the_made_up_completions_are_compared(tmp_path):
    def better(text, number):
        shown = blocks(text)
        a, b = ("987654321" in shown[f"Answer {side}"] for side in "AB")
        return {"better": "tie" if a == b else "B" if a else "A"}

    lines, judge, _ = tried(better, tmp_path, compare="group", opponents=4, scale=None)
    paid = judge.trial["paid"]
    assert paid["right"] == paid["filler"] > paid["wrong"] == paid["injected"]


@pytest.mark.parametrize("reply", [Reply(status=401), "no json", {"score": 99}])
def test_a_judge_that_fails_ends_a_run_before_it_begins(tmp_path, reply):
    with pytest.raises(RecipeError, match="did not judge 10 of 10 made-up completions") as caught:
        tried(lambda *_: reply, tmp_path)
    assert "`grade` shows" in str(caught.value.problems[0].hint)


def test_in_grade_it_is_a_warning(tmp_path):
    lines, judge, _ = tried(lambda *_: Reply(status=401), tmp_path, strict=False)
    (warning,) = warnings(lines)
    assert "did not judge 10 of 10" in warning and "status 401" in warning and judge.trial == {}


def test_few_failures_are_no_reason(tmp_path):
    def answering(text, number):
        return "?" if number in (3, 4) else good(text, number)

    lines, judge, _ = tried(answering, tmp_path, concurrency=1)
    assert judge.trial["num_twice"] == 9 and "1 of 20 completions not judged" in lines[2]

"""What completions are paid by a score, by comparisons, and where there is no judgement."""

import json
import re
from collections import Counter

import pytest

from r1recipes import rewards
from r1recipes.errors import RecipeError
from r1recipes.rewards.judge.judge import JudgeFails, neutral
from r1recipes.rewards.reward import Reward
from tests.judge_server import JudgeServer, Reply, ask, blocks, to_judge

SCALE = {"scale": [0, 10]}


def number_in(text: str) -> float:
    """The number that a completion of these tests consists of."""
    match = re.search(r"-?\d+(\.\d+)?", text)
    return float(match[0]) if match else 0.0


def by_number(text: str, number: int):
    """A judge that takes the number in a completion for its score, and the larger for the better;
    `junk` is not judged."""
    shown = blocks(text)
    if any("junk" in inner for inner in shown.values()):
        return "?"
    if "Answer A" not in shown:
        return {"reason": "its number", "score": number_in(shown["Answer to judge"])}
    a, b = number_in(shown["Answer A"]), number_in(shown["Answer B"])
    return {"reason": f"{a:g} against {b:g}", "better": "A" if a > b else "B" if b > a else "tie"}


@pytest.fixture
def server():
    with JudgeServer(by_number) as server:
        yield server


@pytest.fixture
def asked(server, tmp_path):
    """Makes judges that ask the server, and closes them."""
    judges = []

    def make(**keys):
        judges.append(to_judge(server, tmp_path, **keys))
        return judges[-1]

    yield make
    for judge in judges:
        judge.close()


@pytest.mark.parametrize(
    ("keys", "paid"),
    [
        ({"scale": [0, 10]}, [0.0, 0.5, 0.8, 1.0]),
        ({"scale": [0, 10], "right_from": 8}, [0.0, 0.625, 1.0, 1.0]),
        ({"scale": [-10, 10]}, [0.5, 0.75, 0.9, 1.0]),
    ],
)
def test_a_score_is_mapped_to_0_to_1(asked, keys, paid):
    judge = asked(**keys)
    assert ask(judge, "0", "5", "8", "10") == pytest.approx(paid)
    assert judge.reasons[1] == "score 5: its number"
    assert (judge.cost.num_judged, judge.cost.num_not_judged) == (4, 0)


def test_the_same_is_asked_once(asked, server):
    judge = asked(**SCALE)
    assert ask(judge, "5", "5", "7", "5") == [0.5, 0.5, 0.7, 0.5] and len(server.bodies) == 2
    assert ask(judge, "7", "5") == [0.7, 0.5] and len(server.bodies) == 2
    assert (judge.cost.calls, judge.cost.cached) == (2, 2)


def test_a_completion_that_is_not_judged_is_paid_none_and_counted(asked):
    reward = Reward("judge", asked(**SCALE))
    columns = {"question": ["q"] * 3, "answer": ["a"] * 3}
    paid = reward(prompts=["q"] * 3, completions=["4", "junk", "6"], **columns)
    assert paid == [0.4, None, 0.6] and reward.failures == {"not_json": 1}
    assert "did not answer with one JSON object" in str(reward.last_failure)
    assert reward.in_training(paid, ["q"] * 3) == [0.4, 0.5, 0.6]


def test_the_rubric_decides_whether_the_reference_is_shown(asked, server):
    ask(asked(**SCALE), "5", answer="REFERENCE")
    ask(asked(**SCALE, rubric="Like {answer}?"), "5", answer=["REFERENCE", "OTHER"])
    assert "REFERENCE" not in server.texts[0]
    assert blocks(server.texts[1])["Reference answer"] == "REFERENCE or OTHER"


def test_messages_and_rows_without_a_column(asked, server):
    judge = asked(**SCALE)
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "How many?"}]
    assert judge.pay([prompt], [[{"role": "assistant", "content": "3"}]], {}) == [0.3]
    assert blocks(server.texts[0]) == {"Question": "How many?", "Answer to judge": "3"}


# Comparisons


def test_a_comparison_with_the_reference_is_made_in_both_orders(asked, server):
    judge = asked(compare="reference")
    assert ask(judge, "1", "2", "3") == [0.0, 0.5, 1.0]
    shown = Counter((blocks(t)["Answer A"], blocks(t)["Answer B"]) for t in server.texts)
    assert shown == Counter([("1", "2"), ("2", "1"), ("2", "2"), ("3", "2"), ("2", "3")])
    assert judge.cost.num_pairs == judge.cost.num_pairs_agreed == 3
    assert judge.reasons[2].startswith("1 of 1 comparisons: 3 against 2")


@pytest.mark.parametrize(
    ("texts", "opponents", "paid", "num_calls"),
    [
        (["1", "2"], 1, [0.0, 1.0], 2),
        (["1", "2", "3", "4"], 3, [0, 1 / 3, 2 / 3, 1], 12),
        (["1", "2", "3", "4"], 1, [0, 0.5, 0.5, 1], 8),
        (["1", "2", "3", "4"], 64, [0, 1 / 3, 2 / 3, 1], 12),
        (["1", "1", "2", "2"], 3, [0.0, 0.0, 1.0, 1.0], 2),
        (["7", "7", "7"], 2, [0.5, 0.5, 0.5], 0),
    ],
)
def test_completions_of_a_group_are_compared(asked, server, texts, opponents, paid, num_calls):
    judge = asked(compare="group", opponents=opponents)
    assert ask(judge, *texts) == pytest.approx(paid)
    assert len(server.bodies) == num_calls


def test_groups_are_told_apart_by_their_prompts(asked):
    judge = asked(compare="group")
    columns = {"question": ["a", "b", "a", "b"], "answer": ["?"] * 4}
    paid = judge.pay(["a", "b", "a", "b"], ["1", "9", "2", "8"], columns)
    assert paid == [0.0, 1.0, 1.0, 0.0]


def test_one_alone_is_compared_with_nothing(asked, server):
    judge = asked(compare="group")
    assert ask(judge, "5") == [None] and not server.bodies
    assert judge.reasons == ["nothing to compare it with"]


def test_comparisons_that_fail_are_left_out(asked):
    judge = asked(compare="group", opponents=2)
    assert ask(judge, "1", "2", "junk") == [0.0, 1.0, "not_json"]
    assert judge.cost.num_not_judged == 1


def test_a_judge_that_prefers_the_first_is_seen(tmp_path):
    with JudgeServer(lambda *_: {"better": "A"}) as server:
        judge = to_judge(server, tmp_path, compare="group")
        assert ask(judge, "1", "2", "3") == [0.5, 0.5, 0.5]
        assert (judge.cost.num_pairs, judge.cost.num_pairs_agreed) == (3, 0)
        judge.close()


# Too many failures


def paid_by(answering, tmp_path, sizes, **keys):
    """Pay batches until the judge ends it; the number of batches that were paid."""
    with JudgeServer(answering) as server:
        judge = to_judge(server, tmp_path, retries=0, **keys)
        reward, done = Reward("judge", judge), 0
        try:
            for size in sizes:
                texts = [f"{done} {n}" for n in range(size)]
                columns = {"question": ["q"] * size, "answer": ["a"] * size}
                reward(prompts=["q"] * size, completions=texts, **columns)
                done += 1
        finally:
            judge.close()
    return done


def test_a_run_whose_judge_never_answers_stops_at_once(tmp_path):
    with pytest.raises(JudgeFails, match="failed for 4 of the last 4 completions") as caught:
        paid_by(lambda *_: Reply(status=500, body=b"no memory"), tmp_path, [4])
    assert "status 500: no memory" in str(caught.value) and caught.value.kind == "reward"


def test_a_run_whose_judge_fails_too_often_stops(tmp_path):
    def every_fifth(_, number):
        return "?" if number % 5 == 0 or number % 5 == 1 else {"score": 5}

    with pytest.raises(JudgeFails, match=r"of the last 5\d completions \(`judge.max_failed` 0.1\)"):
        paid_by(every_fifth, tmp_path, [10] * 20, concurrency=1)


def test_a_few_failures_stop_nothing(tmp_path):
    def now_and_then(_, number):
        return "?" if number % 20 < 2 else {"score": 5}  # the second try fails as well

    assert paid_by(now_and_then, tmp_path, [10] * 12, concurrency=1) == 12


def test_more_may_fail_where_the_recipe_says_so(tmp_path):
    def every_third(_, number):
        return "?" if number % 4 < 2 else {"score": 5}  # two answers of four, for one completion

    assert paid_by(every_third, tmp_path, [10] * 8, concurrency=1, max_failed=0.6) == 8


def test_what_is_not_judged_neither_gains_nor_loses():
    prompts = [[{"role": "user", "content": q}] for q in "aaabb"]
    assert neutral([0.2, None, 0.4, None, None], prompts) == pytest.approx(
        [0.2, 0.3, 0.4, None, None]
    )
    assert neutral([0.0, 1.0, None, 0.5, 0.5], prompts) == [0.0, 1.0, 0.5, 0.5, 0.5]


def test_other_rewards_keep_their_none():
    reward = Reward("mine", lambda prompts, completions: [None, 1.0])
    paid = reward(["q", "q"], ["a", "b"])
    assert reward.in_training(paid, ["q", "q"]) == [None, 1.0]


def test_without_a_recipe_there_is_no_judge(tmp_path):
    (reward,) = rewards.load(["judge"], base_dir=tmp_path)
    with pytest.raises(RecipeError, match="needs the section"):
        reward(prompts=["q"], completions=["a"])


def test_the_names_of_all_counts_are_json(asked):
    judge = asked(**SCALE)
    ask(judge, "1", "junk")
    first = judge.cost.plus(None)
    both = judge.cost.plus(json.loads(json.dumps(first)))
    assert both["calls"] == 2 * first["calls"] and both["failures"] == {"not_json": 2}
    assert both["num_not_judged"] == 2

"""A judge that is slow, broken, unreachable, or answers something else than asked for."""

import json
import os
import re
import signal
import threading
import time
from email.utils import formatdate

import pytest

from r1recipes.errors import RecipeError
from r1recipes.rewards.judge import client
from tests.judge_server import JudgeServer, Reply, answered, ask, to_judge

GOOD = {"reason": "it is", "score": 10}
SECRET = "key-0123456789abcdef"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.01)


def served(tmp_path, answering, *texts, **keys):
    """Paid values, server and judge for completions of one question."""
    with JudgeServer(answering) as server:
        judge = to_judge(server, tmp_path, **keys)
        try:
            return ask(judge, *(texts or ("a",))), server, judge
        finally:
            judge.close()


def test_the_request_is_that_of_the_chat_completions_api(tmp_path):
    paid, server, judge = served(tmp_path, lambda *_: GOOD, temperature=0.3, max_tokens=99)
    assert paid == [1.0] and server.paths == ["/v1/chat/completions"]
    (body,) = server.bodies
    assert body["model"] == "stub" and body["temperature"] == 0.3 and body["max_tokens"] == 99
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["response_format"] == {"type": "json_object"}
    assert "authorization" not in server.headers[0]
    assert (judge.cost.calls, judge.cost.prompt_tokens, judge.cost.completion_tokens) == (
        1,
        100,
        10,
    )
    assert judge.cost.seconds > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", None),
        ("json_schema", "json_schema"),
        ("json_object_schema", "json_object"),
    ],
)
def test_the_endpoint_is_told_the_form_of_an_answer(tmp_path, name, expected):
    _, server, _ = served(tmp_path, lambda *_: GOOD, response_format=name, scale=[0, 5])
    form = server.bodies[0].get("response_format", {"type": None})
    assert form["type"] == expected
    if expected:
        schema = form.get("schema") or form["json_schema"]["schema"]
        assert schema["properties"]["score"] == {"type": "number", "minimum": 0, "maximum": 5}
        assert schema["required"] == ["reason", "score"]


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        ("no idea", "not_json", "did not answer with one JSON object: `no idea`"),
        ({"score": 11}, "out_of_range", "gave the score 11, not 1 to 10"),
        ({"score": -1e300}, "out_of_range", "gave the score -1e+300"),
        ({"verdict": "good"}, "no_score", "without a number as `score`"),
        ([], "not_json", "did not answer with one JSON object"),
        (Reply(body=b"<html>nginx</html>"), "not_json", "did not speak the chat completions API"),
        (Reply(body=b'{"choices": []}'), "not_json", "did not speak the chat completions API"),
        (Reply(body=b"[" * 100_000), "not_json", "did not speak the chat completions API"),
        (
            Reply(body=b'{"choices": [{"message": {"content": null}}]}'),
            "not_json",
            "without a text",
        ),
        (Reply(body=b""), "not_json", "did not speak the chat completions API"),
        (Reply(body=b" " * (2**20 + 1)), "too_long", "more than 1,048,576 bytes"),
        (answered(GOOD, finish_reason="length"), "cut_off", "cut off at `max_tokens` 512"),
        (answered("x" * 200_000), "too_long", "answered with 200,000 characters"),
    ],
)
def test_an_answer_in_another_form_is_asked_for_twice_and_is_no_judgement(
    tmp_path, reply, kind, message
):
    paid, server, judge = served(tmp_path, lambda *_: reply)
    assert paid == [kind] and len(server.bodies) == 2
    assert message in judge.reasons[0] and judge.cost.failures == {kind: 1}
    first, second = server.texts
    assert first != second, "the delimiter is another one"


def test_a_second_answer_may_be_in_the_right_form(tmp_path):
    paid, server, _ = served(tmp_path, lambda _, number: GOOD if number else "hm")
    assert paid == [1.0] and len(server.bodies) == 2


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(tmp_path, status):
    def answering(_, number):
        return Reply(status=status) if number < 3 else GOOD

    paid, server, judge = served(tmp_path, answering)
    assert paid == [1.0] and len(server.bodies) == judge.cost.calls == 4


@pytest.mark.parametrize(("retries", "num_calls"), [(0, 1), (2, 3), (4, 5)])
def test_it_is_tried_as_often_as_the_recipe_says(tmp_path, retries, num_calls):
    reply = Reply(status=500, body=b"out of cheese")
    paid, server, judge = served(tmp_path, lambda *_: reply, retries=retries)
    assert paid == ["http_error"] and len(server.bodies) == num_calls
    assert "answered with status 500: out of cheese" in judge.reasons[0]


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, ""),
        (401, "is the key"),
        (403, "is the key"),
        (404, "end in /v1"),
        (302, ""),
        (422, ""),
    ],
)
def test_what_does_not_pass_is_not_tried_again(tmp_path, status, hint):
    reply = Reply(status=status, headers={"Location": "/v1/elsewhere"})
    paid, server, judge = served(tmp_path, lambda *_: reply)
    assert paid == ["http_error"] and server.paths == ["/v1/chat/completions"]
    assert f"status {status}" in judge.reasons[0] and hint in judge.reasons[0]


def test_a_pause_that_the_server_asks_for_is_made_by_all(tmp_path):
    times = []

    def answering(_, number):
        times.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": "1"}) if number == 0 else GOOD

    paid, _, _ = served(tmp_path, answering, "a", "b", "c", "d", concurrency=1)
    assert paid == [1.0] * 4
    assert 0.95 < times[1] - times[0] < 3


@pytest.mark.parametrize("is_date", [False, True])
def test_a_pause_beyond_the_time_limit_is_not_waited_for(tmp_path, is_date):
    header = formatdate(time.time() + 3600, usegmt=True) if is_date else "3600"
    reply = Reply(status=429, headers={"Retry-After": header})
    began = time.monotonic()
    paid, server, judge = served(tmp_path, lambda *_: reply, *"abcdef", time_limit_s=20.0)
    assert paid == ["rate_limit"] * 6 and time.monotonic() - began < 5
    assert re.search("status 429, and asks to wait 3[56].. s", judge.reasons[0])


@pytest.mark.parametrize("header", ["soon", "-5", "", "Thu, 99 Foo", "9" * 400])
def test_a_pause_that_makes_no_sense_ends_nothing(tmp_path, header):
    def answering(_, number):
        return Reply(status=503, headers={"Retry-After": header}) if number == 0 else GOOD

    assert served(tmp_path, answering)[0] == [1.0]


@pytest.mark.parametrize("reply", [Reply(before_s=3), Reply(dripping=True)])
def test_a_slow_judge_is_given_up_at_the_time_limit(tmp_path, reply):
    began = time.monotonic()
    paid, _, judge = served(tmp_path, lambda *_: reply, time_limit_s=0.5)
    assert paid == ["timeout"] and time.monotonic() - began < 2
    assert "did not answer within 0.5 s" in judge.reasons[0]


def test_nobody_at_the_address(tmp_path):
    with JudgeServer(lambda *_: GOOD) as server:
        url = server.url
    judge = to_judge(url, tmp_path, retries=1)
    assert ask(judge, "a") == ["unreachable"] and judge.cost.calls == 2
    assert f"cannot be reached at {url}" in judge.reasons[0]
    judge.close()


def test_the_others_are_not_asked_where_all_before_failed(tmp_path):
    texts = [str(number) for number in range(100)]
    paid, server, judge = served(
        tmp_path, lambda *_: Reply(status=500), *texts, retries=0, concurrency=4
    )
    assert len(server.bodies) < 16 + 4
    assert set(paid[:16]) == {"http_error"} and paid[-1] == "not_asked"
    assert "was not asked: the 1" in judge.reasons[-1]


def test_so_many_at_a_time_and_no_more(tmp_path):
    def answering(*_):
        time.sleep(0.05)
        return GOOD

    texts = [str(number) for number in range(24)]
    paid, server, judge = served(tmp_path, answering, *texts, concurrency=6)
    assert paid == [1.0] * 24 and 3 <= server.most_open <= 6
    assert judge.cost.seconds < 24 * 0.05


def test_the_key_is_sent_and_stands_in_no_message(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_JUDGE", SECRET)
    reply = Reply(status=401, body=f"wrong key: {SECRET}".encode())
    paid, server, judge = served(tmp_path, lambda *_: reply, api_key_env="MY_JUDGE")
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert "wrong key: ***" in judge.reasons[0] and SECRET not in judge.reasons[0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(SECRET.encode() not in path.read_bytes() for path in files)


def test_a_proxy_is_not_told_what_is_judged_on_this_machine(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert served(tmp_path, lambda *_: GOOD)[0] == [1.0]


@pytest.mark.parametrize("usage", [None, {}, [], {"prompt_tokens": "9"}, {"prompt_tokens": -1}])
def test_tokens_are_counted_where_the_server_says_how_many(tmp_path, usage):
    paid, _, judge = served(tmp_path, lambda *_: answered(GOOD, usage=usage))
    assert paid == [1.0] and judge.cost.tokens == 0


@pytest.fixture
def heeds_ctrl_c():
    """A shell that starts a process in the background lets it ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c(after_s: float) -> None:
    """The signal of Ctrl-C to this process, later."""
    threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_ctrl_c_ends_a_wait_at_once(tmp_path, heeds_ctrl_c):
    with JudgeServer(lambda *_: Reply(before_s=3)) as server:
        judge = to_judge(server, tmp_path, concurrency=1)
        ctrl_c(0.5)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(judge, *"abcdefgh")
        assert time.monotonic() - began < 2
        time.sleep(0.5)
        assert len(server.bodies) == 1, "nothing more is asked"
        judge.close()


def test_answers_before_ctrl_c_are_in_the_cache(tmp_path, heeds_ctrl_c):
    def answering(text, number):
        return GOOD if number < 3 else Reply(before_s=3)

    with JudgeServer(answering) as server:
        judge = to_judge(server, tmp_path, concurrency=1)
        ctrl_c(1.5)
        with pytest.raises(KeyboardInterrupt):
            ask(judge, *"abcdefgh")
    with JudgeServer(lambda *_: GOOD) as other:
        again = to_judge(server.url, tmp_path, retries=0)
        assert ask(again, "a", "b", "c") == [1.0] * 3 and not other.bodies
    judge.close()
    again.close()


def test_a_cache_that_cannot_be_used_ends_the_run(tmp_path):
    (tmp_path / "cache" / "judge").mkdir(parents=True)
    (tmp_path / "cache" / "judge" / "judge.sqlite").write_bytes(json.dumps("no database").encode())
    with pytest.raises(RecipeError) as caught:
        served(tmp_path, lambda *_: GOOD)
    (problem,) = caught.value.problems
    assert problem.where and problem.where.endswith("judge.sqlite")
    assert "cannot be read as a database" in problem.message

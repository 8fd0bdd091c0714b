"""The cache of answers: its key has all that an answer depends on, and processes share it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1recipes.rewards.judge import cache, prompts
from r1recipes.rewards.judge.cache import Cache
from r1recipes.rewards.judge.prompts import Question, Verdict
from r1recipes.rewards.judge.section import Judge

BASE = {"url": "http://127.0.0.1/v1", "model": "m", "rubric": "Right?"}
QUESTION = Question((("question", "q"), ("completion", "c")))
PAIR = Question((("question", "q"), ("A", "a"), ("B", "b")))


def key(question: Question = QUESTION, weights: str | None = None, **keys) -> str:
    return cache.key(Judge.model_validate(BASE | keys), weights, question)


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://127.0.0.2/v1"},
        {"model": "n"},
        {"rubric": "Wrong?"},
        {"scale": [1, 5]},
        {"temperature": 0.5},
        {"max_tokens": 100},
        {"response_format": "text"},
        {"weights": "abc"},
        {"question": Question((("question", "q2"), ("completion", "c")))},
        {"question": Question((("question", "q"), ("completion", "c2")))},
        {"question": Question(QUESTION.texts, repeat=1)},
        {"question": PAIR, "compare": "group"},
    ],
)
def test_another_question_has_another_key(changed):
    assert key(**changed) != key()


def test_the_two_orders_of_a_pair_have_keys_of_their_own():
    swapped = Question((("question", "q"), ("A", "b"), ("B", "a")))
    assert key(PAIR, compare="group") != key(swapped, compare="group")


def test_what_no_answer_depends_on_is_not_in_the_key(monkeypatch):
    same: dict[str, Any] = {"api_key_env": "K", "concurrency": 1, "retries": 0, "max_failed": 0.5}
    assert key(**same) == key() == key(right_from=8)
    other = f"{cache.key(Judge.model_validate(BASE), None, QUESTION)}"
    monkeypatch.setattr(prompts, "VERSION", 2)
    assert key() != other


def test_an_answer_is_read_again_by_another_process(tmp_path):
    first = Cache(tmp_path)
    assert first.get("k") is None
    first.put("k", Verdict(0.5, "a \u2028 reason"))
    first.put("k", Verdict(0.75, "newer"))
    first.close()
    code = (
        "import sys; from pathlib import Path; from r1recipes.rewards.judge.cache import Cache; "
        "print(Cache(Path(sys.argv[1])).get('k'))"
    )
    out = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True)
    assert out.strip() == "Verdict(value=0.75, reason='newer')"


WRITE = """
import sys
from pathlib import Path
from r1recipes.rewards.judge.cache import Cache
from r1recipes.rewards.judge.prompts import Verdict
folder, name = Path(sys.argv[1]), sys.argv[2]
cache = Cache(folder)
for number in range(100):
    cache.put(f"{name} {number}", Verdict(float(number), name))
    assert cache.get(f"{name} {number}") == (float(number), name)
"""


def test_several_processes_write_at_once(tmp_path: Path):
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    processes = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    written = Cache(tmp_path)
    assert all(written.get(f"{name} {number}") for name in "abc" for number in range(100))
    written.close()

"""A real judge behind a real OpenAI-compatible server: SmolLM2-135M and llama.cpp's.

What a model of 135M parameters says is noise, so only the way is tested: requests are understood,
answers come in the form that was asked for, tokens are counted.
"""

import json

import pytest
import tomli
import tomli_w

from r1recipes.rewards.judge import client
from tests import llama_server
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.judge_server import ask, to_judge
from tests.rows import write

pytestmark = pytest.mark.slow

SHORT = {"max_tokens": 160, "time_limit_s": 300.0, "retries": 0, "concurrency": 1}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with llama_server.serving(tmp_path_factory.mktemp("llama") / "server.log") as url:
        yield url


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))


def test_a_score_with_a_schema_is_on_the_scale(url, tmp_path):
    judge = to_judge(url, tmp_path, response_format="json_object_schema", scale=[0, 9], **SHORT)
    (paid,) = ask(judge, "2")
    assert paid in ("out_of_range", "cut_off") or 0 <= paid <= 1, judge.reasons
    assert judge.cost.prompt_tokens > 100 and judge.cost.completion_tokens > 5
    judge.close()


def test_a_comparison_with_a_schema_has_a_side(url, tmp_path):
    judge = to_judge(
        url, tmp_path, response_format="json_object_schema", compare="reference", **SHORT
    )
    (paid,) = ask(judge, "3")
    assert paid == "cut_off" or paid in (0.0, 0.25, 0.5, 0.75, 1.0), judge.reasons
    judge.close()


def test_what_the_server_refuses_is_said(url, tmp_path):
    judge = to_judge(url, tmp_path, **SHORT)
    assert ask(judge, "word " * 3000) == ["http_error"]
    assert "status 400" in judge.reasons[0] and "context" in judge.reasons[0]
    judge.close()


def test_grade_asks_it(url, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "HOPELESS", 2)  # each answer takes seconds
    data = tomli.loads(SMALL)
    data["rewards"] = {"correctness": 1.0, "judge": 0.5}
    data["judge"] = {"url": url, "model": "smollm2", "rubric": "Is the answer right?"}
    data["judge"] |= SHORT | {"response_format": "json_object_schema", "max_failed": 0.0}
    data["judge"]["max_tokens"] = 16  # too few for an answer, so that the trial ends early
    path = tmp_path / "judged.toml"
    path.write_text(tomli_w.dumps(data))
    row = {"question": "47 + 38 = ?", "answer": "85", "completion": "<answer>85</answer>"}
    code, out, err = in_process("grade", path, write(tmp_path / "given.jsonl", [row]), "--json")
    assert code == 0, err
    graded = json.loads(out)["rows"][0]
    assert graded["rewards"] == {"correctness": 1.0, "judge": None}
    assert graded["failures"]["judge"] == "was cut off at `max_tokens` 16"

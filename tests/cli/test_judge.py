"""A judge from the command line: `grade` shows what it says, and nothing is sent unasked."""

import json
from pathlib import Path

import pytest
import tomli
import tomli_w

from r1recipes import recipe
from r1recipes.publish import share
from r1recipes.recipe import bundle
from r1recipes.runs import record
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.judge_server import JudgeServer, Reply, blocks
from tests.rows import write

PRIVATE, PUBLIC = "http://10.20.30.40:8000/v1", "https://judge.example.com/v1"
SECRET = "0123456789-very-secret"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))


def recipe_at(url: str, folder: Path, **keys) -> Path:
    data = tomli.loads(SMALL)
    data["rewards"] = {"correctness": 1.0, "judge": 0.5}
    data["judge"] = {"url": url, "model": "stub", "rubric": "Is the work shown?", "retries": 0}
    data["judge"] |= keys
    path = folder / "judged.toml"
    path.write_text(tomli_w.dumps(data))
    return path


def given(folder: Path, *texts: str) -> Path:
    rows = [{"question": "47 + 38 = ?", "answer": "85", "completion": text} for text in texts]
    return write(folder / "given.jsonl", rows)


def by_length(text: str, number: int):
    length = len(blocks(text)["Answer to judge"])
    return {"reason": f"it has {length}\x1b[2J characters", "score": min(10, 1 + length)}


# Trying a rubric


def test_grade_shows_score_and_reason(tmp_path):
    with JudgeServer(by_length) as server:
        path = recipe_at(server.url, tmp_path)
        code, out, err = in_process("grade", path, given(tmp_path, "", "1234", "x" * 99))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["line", "right", "why", "correctness", "judge"]
    start = lines.index("what the judge says")
    assert lines[start + 1].split() == [
        *"1 score 1: it has".split(),
        "0\\U0000001b[2J",
        "characters",
    ]
    assert lines[start + 2].startswith("2     score 5: it has 4") or "score 5: it has 4" in out
    assert "judge stub: " in out and "judge: mean payment right 1.00" in out
    assert "warning: the judge pays a wrong answer 1.00, and the right one 1.00" in out


def test_grade_prints_all_of_it_as_json(tmp_path):
    with JudgeServer(by_length) as server:
        path = recipe_at(server.url, tmp_path)
        code, out, _ = in_process("grade", path, given(tmp_path, "1234"), "--json")
    graded = json.loads(out)
    assert code == 0 and graded["rows"][0]["rewards"]["judge"] == pytest.approx(4 / 9)
    assert graded["rows"][0]["judged"].startswith("score 5: it has 4")
    assert graded["judge"][0].startswith("judge stub: ")


def test_grade_without_a_judge_says_nothing_of_one(tmp_path, small):
    code, out, _ = in_process("grade", small, given(tmp_path, "1234"), "--json")
    assert code == 0 and "judge" not in out


@pytest.mark.parametrize("reply", [Reply(status=401, body=b"who are you?"), "no json"])
def test_grade_shows_a_judge_that_fails(tmp_path, reply):
    with JudgeServer(lambda *_: reply) as server:
        path = recipe_at(server.url, tmp_path)
        code, out, _ = in_process("grade", path, given(tmp_path, "1234", "5"))
    assert code == 0 and "failed" in out.splitlines()[1]
    assert "warning: reward `judge` failed on 2 completions" in out
    assert "warning: the judge stub did not judge" in out


# What is sent, and to whom


@pytest.mark.parametrize("url", [PRIVATE, PUBLIC])
@pytest.mark.parametrize("command", ["run", "grade", "sweep"])
def test_nothing_leaves_this_machine_unasked(tmp_path, command, url):
    path = recipe_at(url, tmp_path)
    arguments = {"run": [path], "grade": [path, given(tmp_path, "1")], "sweep": [study(path)]}
    code, _, err = in_process(command, *arguments[command])
    assert code == 2 and f"at {url}: that needs --allow-judge" in err
    assert not record.all_runs(tmp_path / "runs")


def study(path: Path) -> Path:
    file = path.parent / "study.toml"
    file.write_text(
        f'format = 1\nrecipe = "{path.name}"\n[study]\nn_trials = 1\n'
        '[search]\n"train.beta" = { choices = [0.0, 0.1] }\n'
    )
    return file


def test_the_user_reads_what_the_flag_allows(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_JUDGE", SECRET)
    with JudgeServer(by_length) as server:
        path = recipe_at(server.url, tmp_path, api_key_env="MY_JUDGE")
        code, _, err = in_process("grade", path, given(tmp_path, "1"), "--allow-judge")
    assert code == 0 and SECRET not in err
    assert f"--allow-judge sends questions, references and completions to {server.url}" in err
    assert "with the key in $MY_JUDGE" in err


def test_offline_sends_nothing_to_another_machine(tmp_path):
    path = recipe_at(PUBLIC, tmp_path)
    code, _, err = in_process("run", path, "--allow-judge", "--offline")
    assert code == 2 and "cannot be asked in a run that is offline" in err


def test_a_key_that_is_missing_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_JUDGE", raising=False)
    path = recipe_at("http://127.0.0.1:9/v1", tmp_path, api_key_env="MY_JUDGE")
    code, _, err = in_process("run", path)
    assert code == 2 and "`judge.api_key_env` names MY_JUDGE, which is not set" in err


# Recipes that travel


def shared(path: Path) -> tuple[Path, str]:
    """The bundle of a recipe, and what `share` printed."""
    target = path.parent / "judged.r1.zip"
    code, out, err = in_process("share", path, "--to", target)
    assert code == 0, err
    return target, out


def test_a_private_address_is_not_shared_and_the_fingerprint_stays(tmp_path):
    path = recipe_at(PRIVATE, tmp_path)
    target, out = shared(path)
    assert "`judge.url` is private: http://127.0.0.1:8000/v1 stands in its place" in out
    files = bundle.unpack(target.read_bytes(), "x")
    assert not any(b"10.20.30.40" in content for content in files.values())
    assert b'url = "http://127.0.0.1:8000/v1"' in files["recipe.toml"]
    locked = json.loads(files["lock.json"])
    assert locked["fingerprint"] == recipe.fingerprint(recipe.load(path).recipe)


def test_a_public_address_is_shared(tmp_path):
    target, out = shared(recipe_at(PUBLIC, tmp_path))
    assert "is private" not in out
    assert PUBLIC.encode() in bundle.unpack(target.read_bytes(), "x")["recipe.toml"]


def test_a_recipe_from_elsewhere_asks_no_endpoint_of_this_machine_unasked(tmp_path):
    with JudgeServer(by_length) as server:
        target, _ = shared(recipe_at(server.url, tmp_path))
        answers = given(tmp_path, "1")
        code, _, err = in_process("grade", target, answers)
        assert code == 2 and "that needs --allow-judge" in err and not server.bodies
        code, out, err = in_process("grade", target, answers, "--allow-judge")
        assert code == 0 and server.bodies, err


def test_a_recipe_from_elsewhere_names_no_folder_of_this_machine_as_its_judge(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    path = recipe_at("x", tmp_path)
    data = tomli.loads(path.read_text())
    data["judge"] = {"model": str(tmp_path / "model"), "rubric": "Right?"}
    path.write_text(tomli_w.dumps(data))
    code, _, err = in_process("share", path, "--to", tmp_path / "x.r1.zip")
    assert code == 2 and "`judge.model` names" in err
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "recipe.toml").write_text(tomli_w.dumps(data))
    code, _, err = in_process("check", foreign)
    assert code == 2 and "did not come with this recipe" in err


def test_a_run_is_shared_without_address_and_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_JUDGE", SECRET)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with JudgeServer(by_length) as server:
        url = server.url.replace("127.0.0.1", "0.0.0.0")  # no address of this machine's own
        path = recipe_at(url, tmp_path, api_key_env="MY_JUDGE")
        code, _, err = in_process("run", path, "--force", "--set", "train.max_steps=1")
        assert code == 2 and "needs --allow-judge" in err
        flags = ["--force", "--allow-judge", "--set", "train.max_steps=1"]
        code, _, err = in_process("run", path, *flags)
        assert code == 0 and server.bodies, err
    (run,) = record.all_runs(tmp_path / "runs")
    assert b"0.0.0.0" in run.report.read_bytes()
    files = share.of_run(run).files
    assert {"report.html", "record.json", "recipe.toml"} <= set(files)
    for name, content in files.items():
        assert b"0.0.0.0" not in content and SECRET.encode() not in content, name


def test_a_key_in_what_is_shared_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_JUDGE", SECRET)
    path = recipe_at(PUBLIC, tmp_path, api_key_env="MY_JUDGE", rubric=f"Right? {SECRET}")
    code, _, err = in_process("share", path, "--to", tmp_path / "x.r1.zip")
    assert code == 2 and "has the value of $MY_JUDGE" in err and SECRET not in err

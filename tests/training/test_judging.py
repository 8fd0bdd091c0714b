"""A run that a model judges: what it costs is recorded, a judge that fails stops it, and a trial
takes what another one asked."""

import json
from pathlib import Path

import pytest
import tomli
import tomli_w

from r1recipes.machine import files
from r1recipes.report.run import html
from r1recipes.runs import record
from r1recipes.runs.record import Run
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.judge_server import JudgeServer, Reply, blocks

RUBRIC = "Is the answer right? The reference is {answer}"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))


def judging(text: str, number: int):
    """Right answers in the tags are worth 10, and a digit is worth 1."""
    shown = blocks(text)
    completion, reference = shown["Answer to judge"], shown["Reference answer"]
    if f"<answer>\n{reference}\n</answer>" in completion:
        return {"reason": "it is right", "score": 10}
    return {"reason": "it is not", "score": 2 if any(map(str.isdigit, completion)) else 1}


def recipe_with(server: JudgeServer, folder: Path, evaluation=None, **keys) -> Path:
    data = tomli.loads(SMALL)
    data["rewards"] = {"correctness": 1.0, "judge": 0.5}
    data["eval"] |= evaluation or {}
    data["judge"] = {"url": server.url, "model": "stub", "rubric": RUBRIC, "retries": 0} | keys
    path = folder / "judged.toml"
    path.write_text(tomli_w.dumps(data))
    return path


def run_of(folder: Path) -> Run:
    (run,) = record.all_runs(folder / "runs")
    return run


def test_a_run_is_paid_by_its_judge_and_says_what_it_cost(tmp_path, capfd):
    with JudgeServer(judging) as server:
        code, out, err = in_process("run", recipe_with(server, tmp_path), "--force")
    assert code == 0, out + err
    run = run_of(tmp_path)
    rows = files.read_lines(run.metrics)
    assert len(rows) == 6 and all(0 <= row["rewards/judge/mean"] <= 1 for row in rows)
    calls = [row["judge/calls"] + row["judge/cached"] for row in rows]
    assert all(0 < number <= 16 for number in calls), "at most one for each completion"
    recorded = run.read()["judge"]
    assert recorded["calls"] == len(server.bodies) and recorded["num_not_judged"] == 0
    assert recorded["prompt_tokens"] == 100 * recorded["calls"] and recorded["seconds"] > 0
    assert recorded["trial"]["num_same"] == recorded["trial"]["num_twice"] > 0
    paid = [row["rewards"]["judge"] for row in files.read_lines(run.completions)]
    assert all(value in (0.0, 1 / 9, 1.0) for value in map(float, paid))
    out = capfd.readouterr().out
    assert (
        "made-up completions are paid the same" in out
        and f"Judge: {recorded['calls']:,} calls" in out
    )
    assert "calls, " in next(line for line in out.splitlines() if line.startswith("step 6/6"))
    page = html([run])
    assert f"stub: {recorded['calls']:,} call" in page and "judged the same twice" in page


def test_the_next_run_takes_the_answers_from_the_cache(tmp_path):
    with JudgeServer(judging) as server:
        path = recipe_with(server, tmp_path)
        assert in_process("run", path, "--force")[0] == 0
        num_asked = len(server.bodies)
        assert in_process("run", path, "--force")[0] == 0
        assert len(server.bodies) == num_asked, "the same recipe asks the same"
    first, second = (run.read() for run in record.all_runs(tmp_path / "runs"))
    assert second["judge"]["calls"] == 0 and second["judge"]["cached"] >= num_asked
    assert first["evaluation"] == second["evaluation"]


def test_trials_share_the_cache(tmp_path):
    study = '[study]\nn_trials = 2\nsampler = "random"\nmetric = "eval/accuracy"\n'
    search = '[search]\n"train.beta" = { choices = [0.0, 0.1] }\n'
    with JudgeServer(judging) as server:
        recipe_with(server, tmp_path)
        path = tmp_path / "study.toml"
        path.write_text(f'format = 1\nrecipe = "judged.toml"\n{study}{search}')
        code, out, err = in_process("sweep", path, "--force", "--workers", "1")
        assert code == 0, out + err
    first, second = (run.read()["judge"] for run in record.all_runs(tmp_path / "runs"))
    assert first["calls"] > 0 and second["cached"] > first["cached"]
    assert second["calls"] < first["calls"] / 2


def test_a_judge_that_dies_stops_the_run_which_goes_on_when_it_is_back(tmp_path):
    dead = [False]

    def answering(text, number):
        dead[0] = dead[0] or "step" in state
        return Reply(status=503, body=b"gone") if dead[0] else judging(text, number)

    state: set[str] = set()
    with JudgeServer(answering) as server:
        path = recipe_with(server, tmp_path)

        def after_two_steps(text, number):
            runs = record.all_runs(tmp_path / "runs")
            if runs and len(files.read_lines(runs[0].metrics)) >= 2:
                state.add("step")
            return answering(text, number)

        server.answering = after_two_steps
        code, out, err = in_process("run", path, "--force")
        assert code == 1, out + err
        run = run_of(tmp_path)
        error = run.read()["error"]
        assert error["kind"] == "reward"
        assert error["message"].startswith("stage train: the judge stub failed for")
        assert "it answered with status 503: gone" in error["message"]
        assert "run --resume` goes on" in err
        before = run.read()["judge"]
        assert before["failures"]["http_error"] > 0
        server.answering = judging
        refused_elsewhere(run, "run", "--resume", run.folder, "--force")
        code, out, err = in_process("run", "--resume", run.folder, "--force")
        assert code == 0, out + err
    after = run.read()["judge"]
    assert after["calls"] == len(server.bodies) > before["calls"]
    assert after["num_not_judged"] == before["num_not_judged"] > 0
    assert [row["step"] for row in files.read_lines(run.metrics)] == [1, 2, 3, 4, 5, 6]
    refused_elsewhere(run, "eval", run.folder)


def refused_elsewhere(run: Run, *command) -> None:
    """A folder that names an endpoint on another machine sends nothing there unasked."""
    resolved = run.resolved.read_text()
    run.resolved.write_text(resolved.replace("http://127.0.0.1", "http://10.99.98.97"))
    code, _, err = in_process(*command)
    assert code == 2 and "http://10.99.98.97" in err and "needs --allow-judge" in err
    run.resolved.write_text(resolved)


def test_nobody_at_the_endpoint_ends_a_run_before_it_begins(tmp_path):
    with JudgeServer(judging) as server:
        path = recipe_with(server, tmp_path)
    code, out, err = in_process("run", path)
    assert code == 2 and f"cannot be reached at {server.url}" in err
    assert not record.all_runs(tmp_path / "runs")


def test_a_judge_decides_what_is_right(tmp_path):
    with JudgeServer(judging) as server:
        path = recipe_with(server, tmp_path, {"reward": "judge"}, right_from=10)
        code, out, err = in_process("run", path, "--force")
        assert code == 0, out + err
    run = run_of(tmp_path)
    items = files.read_lines(run.evaluation("after"))
    for item in items:
        for sample in (*item["samples"], item["greedy"]):
            assert sample["right"] is (f"<answer>\n{item['answer']}\n</answer>" in sample["text"])


def test_a_run_is_evaluated_again_by_the_judge_of_another_recipe(tmp_path, finished):
    with JudgeServer(judging) as server:
        path = recipe_with(server, tmp_path, {"reward": "judge"}, right_from=2)
        code, out, err = in_process("eval", finished.folder, "--data", path, "--samples", 1)
        assert code == 0, out + err
        assert server.bodies
        path = recipe_with(server, tmp_path, url="http://10.0.0.5/v1")
        code, out, err = in_process("eval", finished.folder, "--data", path, "--samples", 1)
        assert code == 0, "its judge does not decide, so it is not asked: " + err


def test_comparisons_within_the_group_train(tmp_path, capfd):
    def longer(text, number):
        shown = blocks(text)
        a, b = len(shown["Answer A"]), len(shown["Answer B"])
        return {"better": "A" if a > b else "B" if b > a else "tie"}

    with JudgeServer(longer) as server:
        path = recipe_with(server, tmp_path, compare="group", rubric="Which is longer?")
        code, out, err = in_process("run", path, "--force", "--set", "train.max_steps=2")
        assert code == 0, out + err
    run = run_of(tmp_path)
    rows = files.read_lines(run.metrics)
    assert all(row["rewards/judge/mean"] == pytest.approx(0.5) for row in rows)
    recorded = run.read()["judge"]
    assert recorded["num_pairs"] == recorded["num_pairs_agreed"] > 0
    assert "100% of the pairs alike in both orders" in capfd.readouterr().out


def test_the_key_is_in_no_file_of_a_run(tmp_path, monkeypatch):
    secret = "0123456789-very-secret"
    monkeypatch.setenv("MY_JUDGE", secret)
    with JudgeServer(judging) as server:
        path = recipe_with(server, tmp_path, api_key_env="MY_JUDGE")
        code, out, err = in_process("run", path, "--force", "--set", "train.max_steps=1")
        assert code == 0, out + err
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {secret}"}
    for file in [p for p in tmp_path.rglob("*") if p.is_file()]:
        assert secret.encode() not in file.read_bytes(), file
    assert secret not in out + err
    assert json.loads(run_of(tmp_path).resolved.read_text())["recipe"]["judge"]["api_key_env"]

"""`grade`: what a user reads about rewards before a training."""

import json
from pathlib import Path

import pytest

from tests.helpers import command, in_process
from tests.rows import write

RIGHT = "<reasoning>\nwork\n</reasoning>\n<answer>\n85\n</answer>"


def line(completion: str, **columns: str) -> dict[str, str]:
    return {"question": "47 + 38 = ?", "answer": "85", "completion": completion} | columns


@pytest.fixture
def given(tmp_path: Path) -> Path:
    rows = [
        line(RIGHT),
        line(RIGHT.replace("85", "75")),
        line("The answer is 85."),
        line("\x1b[2J"),
    ]
    return write(tmp_path / "given.jsonl", rows)


def test_a_table_of_rows_one_of_rewards_and_what_is_right(small, given, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = in_process("grade", small, given)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["line", "right", "why", "correctness", "integer"]
    assert lines[1].split()[:7] == ["1", "yes", "the", "same", "text", "1.00", "1.00"]
    assert lines[2].split()[:8] == ["2", "no", "85", "expected,", "75", "given", "0.00", "1.00"]
    assert all(len(text) <= 100 for text in lines[:5]) and "\x1b" not in out
    assert "reward         weight  mean  paid 1  paid 0  with length" in out
    assert "1 of 4 completions are right (25%), as `eval.reward` correctness decides; the" in out
    assert "\n      1  N expected, N given\n" in out
    assert "\n      1  right, but not in <answer>...</answer>\n" in out


def test_json_has_everything(small, given):
    code, out, err = in_process("grade", small, given, "--json", "--rows", 1)
    graded = json.loads(out)
    assert (code, err, len(graded["rows"]), graded["num_right"]) == (0, "", 4, 1)
    assert graded["rows"][1]["why"] == "85 expected, 75 given"
    assert graded["rows"][0]["rewards"]["xml_tags"] == 1.0 and graded["rows"][0]["total"] == 4.0
    assert graded["rewards"][0]["share_full"] == 0.25 and graded["warnings"] == []


def test_rows_are_limited(small, given):
    code, out, _ = in_process("grade", small, given, "--rows", 2)
    assert code == 0 and "... and 2 more; `--rows N` prints more of them" in out


def test_a_run_is_graded_as_it_was(finished):
    code, out, _ = in_process("grade", finished.recipe, finished.folder, "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    lines = [json.loads(text) for text in finished.evaluation("after").read_text().splitlines()]
    recorded = [s["right"] for item in lines for s in (*item["samples"], item["greedy"])]
    assert [row["right"] for row in rows] == recorded


CODE = """
def lengthy(completion, row):
    return min(1.0, len(completion) / 1000)

def generous(completion, row):
    return 1.0 if not completion or row["answer"] in completion else 0.0

def half(completion, row):
    return 0.5 * (row["answer"] in completion)

def broken(completion, row):
    return row["level"]
"""


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (["mine.py:lengthy"], "reward `mine.py:lengthy` pays more for the longer text"),
        (["mine.py:generous"], "reward `mine.py:generous` pays 1 for an empty completion"),
        (["integer"], "`eval.reward` correctness is not among [rewards]"),
        (["mine.py:half", "mine.py:half"], "`eval.reward` mine.py:half pays at most 0.5"),
        (["mine.py:broken"], "reward `mine.py:broken` failed on 4 completions: raised KeyError"),
        (["notebook_int", "notebook_int"], "`eval.reward` notebook_int pays at most 0.5"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_warnings(flags, warning, small, given):
    (small.parent / "mine.py").write_text(CODE)
    weights = {"correctness": 1.0} if len(flags) == 1 and flags[0] != "integer" else {}
    change_rewards(small, weights | {flags[0]: 1.0}, flags[1:])
    code, out, err = in_process("grade", small, given, "--allow-code")
    assert code == 0 and f"warning: {warning}" in out, out + err


def change_rewards(path: Path, weights: dict[str, float], judge: list[str]) -> None:
    import tomli
    import tomli_w

    recipe = tomli.loads(path.read_text()) | {"rewards": weights}
    recipe["eval"]["reward"] = judge[0] if judge else "correctness"
    path.write_text(tomli_w.dumps(recipe))


def test_a_tag_that_the_template_opens_is_named(small, given):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"
    flag = f"model.chat_template={json.dumps(template)}"
    code, out, _ = in_process("grade", small, given, "--set", flag)
    assert code == 0
    assert "reward `strict_format` pays 0 for a completion in the right format" in out
    assert "the chat template has written <think> before it begins" in out
    assert "reward `correctness` pays" not in out


def test_code_runs_only_where_it_is_allowed(small, given):
    (small.parent / "mine.py").write_text(CODE)
    change_rewards(small, {"mine.py:half": 1.0, "correctness": 1.0}, [])
    code, out, err = in_process("grade", small, given)
    assert (code, out) == (2, "") and "runs only with --allow-code" in err
    code, out, err = in_process("grade", small, given, "--allow-code")
    assert code == 0 and "--allow-code lets this run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`grade` needs completions"),
        (["given.jsonl", "--sample", "2"], "with --sample the model writes the completions"),
        (["none.jsonl"], "does not exist"),
        (["bad.jsonl"], "bad.jsonl:2: has no `completion`; it has question"),
    ],
)
def test_what_is_refused(arguments, message, small, given, monkeypatch):
    monkeypatch.chdir(small.parent)
    write(small.parent / "bad.jsonl", [line("x"), {"question": "q"}])
    code, out, err = in_process("grade", small, *arguments)
    assert (code, out) == (2, "") and message in err


@pytest.mark.slow
def test_the_model_answers_some_problems(small):
    done = command("grade", small, "--sample", 3, cwd=small.parent)
    assert done.returncode == 0, done.stderr
    assert "Cold start ..." in done.stdout and "Answering ..." in done.stdout
    assert "of 6 completions are right" in done.stdout and "\n3:2 " in done.stdout
    assert sorted(path.name for path in small.parent.iterdir()) == ["small.toml"]
    code, out, err = in_process("grade", small, "--sample", 2, "--json")
    assert code == 0 and len(json.loads(out)["rows"]) == 4, err

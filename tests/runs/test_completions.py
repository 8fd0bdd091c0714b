"""Given completions: from a user's file or a run's, and what is said of a line that is none."""

from pathlib import Path
from typing import Any

import pytest

from r1recipes import data
from r1recipes.errors import RecipeError
from r1recipes.rewards.grading import Completion
from r1recipes.runs import completions
from tests.rows import GSM8K, make, write

QUESTIONS = [
    {"problem": f"q{i}", "solution": GSM8K.format(i), "level": i, "id": f"r{i}"} for i in range(10)
]
KEYS: dict[str, Any] = {"question": "problem", "answer": "solution", "answer_after": "####"}


def read(folder: Path, *lines: Any) -> list[Completion]:
    write(folder / "rows.jsonl", QUESTIONS)
    path = write(folder / "given.jsonl", list(lines))
    recipe = make(**KEYS)
    return completions.read(path, recipe, data.load(recipe, folder))


def refused(folder: Path, *lines: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        read(folder, *lines)
    problems = caught.value.problems
    return "\n".join(f"{p.where} {p.message} {p.hint}".replace(f"{folder}/", "") for p in problems)


def test_what_a_line_does_not_have_comes_from_the_data(tmp_path):
    (made,) = read(tmp_path, {"problem": " q3\n", "completion": "x", "id": "mine"})
    assert made.text == "x" and made.where == "1" and not made.cut
    assert made.prompt[-1] == {"role": "user", "content": "q3"}
    assert made.columns["answer"] == "1,003" and made.columns["level"] == 3
    assert made.columns["solution"] == GSM8K.format(3) and made.columns["id"] == "mine"


@pytest.mark.parametrize(
    ("answer", "final"), [("7", "7"), ("so it is\n#### 7", "7"), (["7", "seven"], ["7", "seven"])]
)
def test_an_answer_of_its_own_is_final_or_ends_in_the_marker(answer, final, tmp_path):
    (made,) = read(tmp_path, {"question": "new", "solution": answer, "completion": "x"})
    assert made.columns["answer"] == final and made.columns["question"] == "new"
    assert made.prompt[-1]["content"] == "new"


def test_completions_may_be_messages(tmp_path):
    messages = [{"role": "user", "content": "q1"}]
    reply = [{"role": "assistant", "content": "x"}]
    (made,) = read(tmp_path, {"prompt": messages, "completion": reply})
    assert made.text == "x" and made.columns["answer"] == "1,001"


def test_the_files_of_a_run(tmp_path):
    sample = {"text": "a", "num_tokens": 3, "cut": True, "right": False}
    made = read(
        tmp_path,
        {"step": 4, "prompt": "q1", "completion": "x", "answer": "1,001", "rewards": {"f": 1.0}},
        {"question": "q2", "answer": "1,002", "samples": [sample] * 2, "greedy": sample},
    )
    assert [m.where for m in made] == ["1", "2:1", "2:2", "2:greedy"]
    assert [m.cut for m in made] == [False, True, True, True]
    assert {m.columns["answer"] for m in made} == {"1,001", "1,002"}
    assert all("rewards" not in m.columns and "step" not in m.columns for m in made)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "q1"}, "given.jsonl:2 has no `completion`; it has question"),
        ({"question": "q1", "completion": 3}, "given.jsonl:2 `completion` is a int, not a text"),
        ({"question": "new", "completion": "x"}, "given.jsonl:2 has no `answer`, and its question"),
        ({"completion": "x"}, "given.jsonl:2 has no `answer`"),
        ({"answer": " ", "completion": "x"}, "given.jsonl:2 `answer` is empty"),
        ([1], "given.jsonl:2 is a JSON list, not an object"),
        ({"question": "q1", "samples": [{"txt": "a"}]}, "given.jsonl:2 sample 1 has no `text`"),
    ],
)
def test_a_line_that_is_no_completion_has_its_number(line, message, tmp_path):
    assert message in refused(tmp_path, {"question": "q1", "completion": "x"}, line)


def test_many_bad_lines_are_counted(tmp_path):
    text = refused(tmp_path, *[{"question": "q1"}] * 9)
    assert text.count("has no `completion`") == 5 and "4 more lines are not valid" in text
    assert "has no completions" in refused(tmp_path)


def test_a_run_stands_for_its_newest_answers(finished, tmp_path):
    assert completions.source(str(finished.folder), tmp_path) == finished.evaluation("after")
    name = finished.folder.name
    assert completions.source(name, finished.folder.parent) == finished.evaluation("after")
    assert completions.source(str(finished.completions), tmp_path) == finished.completions


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "does not exist"),
        ("none", "there is no run folder `none`"),
        (".", "is a folder, not a file"),
    ],
)
def test_what_names_no_completions(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        completions.source(name, tmp_path / "runs")
    assert message in str(caught.value)

"""Demonstrations: made or from a file, in which order, and without held-out questions."""

import re

import pytest

from r1recipes import data
from r1recipes.data.examples import demonstrations
from r1recipes.errors import RecipeError
from r1recipes.training.backends import builtin
from tests.rows import make, numbered, write


def test_demonstrations_of_builtin_problems(tmp_path):
    recipe = make(name="builtin:arithmetic", size=20, system="", start={"steps": 3, "wrong": 0.0})
    rows = demonstrations.make(recipe, tmp_path, 50)
    assert len(rows) == 50 and rows == demonstrations.make(recipe, tmp_path, 50)
    questions = [row["prompt"][-1]["content"] for row in rows]
    assert set(questions) == set(data.load(recipe, tmp_path).train["question"])
    assert questions[:20] != questions[20:40]
    answers = {row["question"]: row["answer"] for row in data.load(recipe, tmp_path).train}
    for row, question in zip(rows, questions, strict=True):
        assert f"<answer>\n{answers[question]}\n</answer>" in row["completion"][0]["content"]


def test_some_demonstrations_are_wrong(tmp_path):
    recipe = make(name="builtin:arithmetic", size=20, start={"steps": 3, "wrong": 1.0})
    right = make(name="builtin:arithmetic", size=20, start={"steps": 3})
    answers = {row["question"]: row["answer"] for row in data.load(right, tmp_path).train}
    rows = demonstrations.make(recipe, tmp_path, 20)
    for row in rows:
        answer = answers[row["prompt"][-1]["content"]]
        assert f"<answer>\n{answer}\n</answer>" not in row["completion"][0]["content"]


def test_demonstrations_of_a_file(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    shown = [row | {"completion": f"<answer>{row['answer']}</answer>"} for row in numbered(10)]
    write(tmp_path / "shown.jsonl", shown)
    recipe = make(start={"steps": 1, "data": "shown.jsonl"})
    held_out = data.load(recipe, tmp_path).held_out
    rows = demonstrations.make(recipe, tmp_path, 30, held_out=held_out)
    assert len(rows) == 30
    assert rows[0]["prompt"][0] == {"role": "system", "content": "Think."}
    seen = {row["prompt"][-1]["content"] for row in rows}
    assert len(seen) == 8 and not seen & set(held_out["question"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "q", "answer": "a"}], "no column `completion`; it has question, answer"),
        ([{"question": "q", "completion": ""}] * 3, "`completion` is empty in 3 of 3 rows"),
    ],
)
def test_demonstrations_that_are_refused(tmp_path, rows, message):
    write(tmp_path / "shown.jsonl", rows)
    recipe = make(start={"steps": 1, "data": "shown.jsonl"})
    with pytest.raises(RecipeError, match=message):
        demonstrations.make(recipe, tmp_path, 5)


def fitting(max_seq_length):
    """Lengths by the tokenizer of the built-in models."""
    tokenizer = builtin.build_tokenizer()
    return demonstrations.Lengths(tokenizer, max_seq_length)


def test_demonstrations_of_held_out_questions_are_counted(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    shown = [row | {"completion": f"<answer>{row['answer']}</answer>"} for row in numbered(10)]
    write(tmp_path / "shown.jsonl", shown)
    recipe = make(start={"steps": 1, "data": "shown.jsonl"})
    held_out = data.load(recipe, tmp_path).held_out
    line = "2 demonstrations left out: their question is held out"
    assert demonstrations.check(recipe, tmp_path, held_out, fitting(4096)) == [line]
    assert demonstrations.check(make(), tmp_path, held_out, fitting(4096)) == []
    write(
        tmp_path / "shown.jsonl", [row for row in shown if row["question"] in held_out["question"]]
    )
    with pytest.raises(RecipeError, match="every demonstration is on a held-out question"):
        demonstrations.check(recipe, tmp_path, held_out, fitting(4096))


def test_builtin_demonstrations_are_never_of_held_out_problems(tmp_path):
    recipe = make(name="builtin:arithmetic", size=20, start={"steps": 3})
    held_out = data.load(recipe, tmp_path).held_out
    assert demonstrations.check(recipe, tmp_path, held_out, fitting(4096)) == []


@pytest.mark.parametrize("shown", [None, "shown.jsonl"])
def test_demonstrations_that_fit_are_the_same_rows_as_without_a_limit(tmp_path, shown):
    rows = [{"question": f"q{n}", "completion": f"{n}"} for n in range(10)]
    write(tmp_path / "shown.jsonl", rows)
    start = {"steps": 3} | ({"data": shown} if shown else {})
    recipe = make(name="builtin:arithmetic", size=20, start=start)
    limited = demonstrations.make(recipe, tmp_path, 50, lengths=fitting(4096))
    assert limited == demonstrations.make(recipe, tmp_path, 50)


def test_too_long_demonstrations_of_a_file_are_left_out_and_counted(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    rows = [{"question": f"new {n}", "completion": "7" * (500 if n < 3 else 5)} for n in range(10)]
    write(tmp_path / "shown.jsonl", rows)
    recipe = make(start={"steps": 1, "data": "shown.jsonl"})
    held_out, lengths = data.load(recipe, tmp_path).held_out, fitting(128)
    (note,) = demonstrations.check(recipe, tmp_path, held_out, lengths)
    assert note.startswith("3 of 10 demonstrations are longer than max_seq_length 128 (the longest")
    assert note.endswith("and are left out")
    made = demonstrations.make(recipe, tmp_path, 30, held_out=held_out, lengths=fitting(128))
    assert len(made) == 30
    assert {row["completion"][0]["content"] for row in made} == {"7" * 5}
    write(tmp_path / "shown.jsonl", rows[:3])
    with pytest.raises(RecipeError, match="3 of 3 demonstrations are longer") as caught:
        demonstrations.check(recipe, tmp_path, held_out, fitting(128))
    (longest,) = map(int, re.findall(r"max_seq_length = (\d+)", str(caught.value.problems[0].hint)))
    assert demonstrations.check(recipe, tmp_path, held_out, fitting(longest)) == []


def test_too_long_builtin_demonstrations_are_replaced_by_others(tmp_path):
    recipe = make(name="builtin:arithmetic", size=20, system="", start={"steps": 3})
    rows = demonstrations.make(recipe, tmp_path, 20)
    lengths = sorted(fitting(4096).of(rows))
    middle = lengths[10]
    assert lengths[-1] > middle
    made = demonstrations.make(recipe, tmp_path, 50, lengths=(measured := fitting(middle)))
    assert len(made) == 50 and "are left out" in measured.notes[0]
    with pytest.raises(RecipeError, match="cut them before their end"):
        demonstrations.make(recipe, tmp_path, 50, lengths=fitting(8))

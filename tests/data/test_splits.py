"""Data: what is chosen, held out, renamed, and refused with which words."""

import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from r1recipes import data
from r1recipes.data.splits import question_key
from tests.rows import GSM8K, make, numbered, refused, write

# What is loaded


def test_importing_data_is_cheap():
    code = "import sys, r1recipes.data; print({'datasets', 'torch', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_row_has_prompt_answer_question_and_the_other_columns(tmp_path):
    rows = [row | {"tags": ["a", "b"], "meta": {"level": 1}} for row in numbered(10)]
    write(tmp_path / "rows.jsonl", rows)
    splits = data.load(make(), tmp_path)
    assert len(splits.train) == 8 and len(splits.held_out) == 2 and splits.revision is None
    row = splits.train[0]
    number = row["answer"]
    assert row == {
        "prompt": [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": f"What is {number}?"},
        ],
        "answer": number,
        "question": f"What is {number}?",
        "id": f"r{number}",
        "tags": ["a", "b"],
        "meta": {"level": 1},
    }


def test_other_columns_are_whole(tmp_path):
    """A chunk for each of 3,000 rows took a minute to hash."""
    write(tmp_path / "rows.jsonl", numbered(50))
    splits = data.load(make(), tmp_path)
    for rows in (splits.train, splits.held_out):
        assert "id" in rows.column_names
        assert [column.num_chunks for column in rows.data.columns] == [1] * 4


def test_an_empty_system_message_is_left_out(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    prompt = data.load(make(system=""), tmp_path).train[0]["prompt"]
    assert [message["role"] for message in prompt] == ["user"]


def test_columns_of_other_names_and_the_answer_of_gsm8k(tmp_path):
    write(
        tmp_path / "rows.jsonl",
        [{"problem": f"p{i}", "solution": GSM8K.format(i)} for i in range(10)],
    )
    recipe = make(question="problem", answer="solution", answer_after="####")
    rows = data.load(recipe, tmp_path).train
    assert rows.column_names == ["prompt", "answer", "question", "problem", "solution"]
    assert rows["answer"][0] == "1," + rows["question"][0][1:].zfill(3)
    assert rows["problem"][:] == rows["question"][:]
    assert rows["solution"][0] == GSM8K.format(int(rows["question"][0][1:]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(72, "72"), (72.0, "72"), (0.5, "0.5"), (" 3/4\n", "3/4"), (2**70, str(2**70))],
)
def test_numbers_become_the_text_of_the_answer(tmp_path, value, text):
    rows = numbered(3) + [{"question": "q", "answer": value}]
    write(tmp_path / "rows.jsonl", rows)
    splits = data.load(make(eval_size=1), tmp_path)
    found = [*splits.train, *splits.held_out]
    assert next(row["answer"] for row in found if row["question"] == "q") == text


def test_csv_answers_are_texts_and_fields_may_have_line_breaks(tmp_path):
    text = '\ufeffquestion,answer,level\n"one,\nand a half",007,1\ntwo,1e5,2\nthree,,3\n'
    (tmp_path / "rows.csv").write_text(text.replace("three,,3", "three,3.10,3"))
    splits = data.load(make(name="rows.csv", eval_size=1), tmp_path)
    rows = {row["question"]: row for row in [*splits.train, *splits.held_out]}
    assert {key: row["answer"] for key, row in rows.items()} == {
        "one,\nand a half": "007",
        "two": "1e5",
        "three": "3.10",
    }
    assert rows["two"]["level"] == 2


def test_parquet_keeps_types_and_takes_no_features_that_a_file_names(tmp_path):
    """A class label is its number; a feature such as an image would name a file to be read."""
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "subject": datasets.ClassLabel(names=["algebra", "number theory"]),
            "when": datasets.Value("timestamp[ms]"),
        }
    )
    rows = [{"question": f"q{i}", "answer": "1", "subject": i % 2, "when": None} for i in range(6)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    loaded = data.load(make(name="rows.parquet"), tmp_path).train
    assert loaded.features["subject"] == datasets.Value("int64")
    assert loaded.features["when"] == features["when"]
    assert {row["question"]: row["subject"] for row in loaded}.items() <= {
        (row["question"], row["subject"]) for row in rows
    }


def test_nothing_is_left_in_the_folder_of_the_user(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    data.load(make(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


# What is held out


def test_held_out_rows_do_not_depend_on_the_seed_and_grow(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(50))
    three = data.load(make(seed=1, eval_size=3), tmp_path)
    other = data.load(make(seed=2, eval_size=3), tmp_path)
    five = data.load(make(seed=2, eval_size=5), tmp_path)
    assert three.held_out["answer"] == other.held_out["answer"] == five.held_out["answer"][:3]
    assert not set(five.held_out["question"]) & set(five.train["question"])
    assert len(five.train) == 45 and five.num_leaked == 0


def test_a_repeated_question_is_held_out_once_and_not_trained_on(tmp_path):
    rows = numbered(10) + [row | {"question": f" {row['question']}\n"} for row in numbered(10)]
    write(tmp_path / "rows.jsonl", rows)
    splits = data.load(make(eval_size=4), tmp_path)
    assert len(splits.held_out) == 4 and len(splits.train) == 12 and splits.num_leaked == 4


def test_another_file_as_eval_split_and_its_questions_leave_the_training_rows(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(20))
    write(tmp_path / "test.jsonl", numbered(4, first=18))
    splits = data.load(make(eval_split="test.jsonl", eval_size=4), tmp_path)
    assert sorted(splits.held_out["answer"], key=int) == ["18", "19", "20", "21"]
    assert len(splits.train) == 18 and splits.num_leaked == 2


def test_size_is_a_seeded_choice_of_training_rows(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(50))
    loaded = [data.load(make(seed=seed, size=10), tmp_path).train for seed in (1, 1, 2)]
    chosen = [rows["answer"][:] for rows in loaded]
    assert len(chosen[0]) == 10 and chosen[0] == chosen[1] != chosen[2]
    assert len(data.load(make(size=1000), tmp_path).train) == 48


# Built-in problems


@pytest.mark.parametrize("name", ["builtin:arithmetic", "builtin:countdown"])
def test_builtin_problems(name):
    recipes = [make(seed=seed, name=name, size=30, eval_size=9) for seed in (1, 2)]
    splits = [data.load(recipe, Path("/nowhere")) for recipe in recipes]
    assert len(splits[0].train) == 30 and len(splits[0].held_out) == 9
    assert splits[0].train["question"][:] != splits[1].train["question"][:]
    assert splits[0].held_out["question"][:] == splits[1].held_out["question"][:]
    assert splits[0].num_leaked == 0
    if name == "builtin:countdown":
        assert isinstance(splits[0].train[0]["numbers"], list)


def test_2000_builtin_problems_are_made_by_default():
    assert len(data.load(make(name="builtin:arithmetic"), Path("/nowhere")).train) == 2000


def test_too_few_builtin_problems_of_this_difficulty():
    recipe = make(name="builtin:arithmetic", problems={"digits": 1})
    text = refused(recipe, Path("/nowhere"))
    assert "2000 were asked for" in text and "data.size" in text
    recipe = make(name="builtin:arithmetic", size=10, eval_size=999, problems={"digits": 1})
    assert "data.eval_size" in refused(recipe, Path("/nowhere"))


# What is refused: columns and rows


def test_unknown_columns_are_both_named(tmp_path):
    write(tmp_path / "rows.jsonl", [{"Question": "a", "solution": "1"}])
    text = refused(make(), tmp_path)
    assert "has no column `question`; it has Question, solution" in text
    assert 'set `data.question = "Question"`' in text and "has no column `answer`" in text
    write(tmp_path / "rows.jsonl", numbered(9))
    assert len(refused(make(question="Question"), tmp_path).splitlines()) == 1


@pytest.mark.parametrize("name", ["prompts", "completions", "images", "trainer_state"])
def test_columns_that_the_trainer_uses_are_refused(tmp_path, name):
    write(tmp_path / "rows.jsonl", [row | {name: "x"} for row in numbered(9)])
    text = refused(make(), tmp_path)
    assert f"has a column `{name}`, a name that the trainer uses" in text
    assert f'rename_column("{name}", "source_{name}")' in text


def test_a_second_answer_column_is_refused(tmp_path):
    write(tmp_path / "rows.jsonl", [row | {"final": "1"} for row in numbered(9)])
    text = refused(make(answer="final"), tmp_path)
    assert "has a column `answer`, but `data.answer` is `final`" in text
    assert 'rename_column("answer", "source_answer")' in text


def test_question_and_answer_may_be_swapped(tmp_path):
    """As in Jeopardy."""
    write(tmp_path / "rows.jsonl", [{"answer": f"a{i}", "question": f"q{i}"} for i in range(9)])
    row = data.load(make(question="answer", answer="question"), tmp_path).train[0]
    assert row.keys() == {"prompt", "question", "answer"}
    assert row["question"][1:] == row["answer"][1:] and row["answer"][0] == "q"


def test_the_hint_on_renaming_works(tmp_path):
    rows = datasets.Dataset.from_list([row | {"images": "x"} for row in numbered(9)])
    rows.rename_column("images", "source_images").to_json(tmp_path / "copy.jsonl")
    assert "source_images" in data.load(make(name="copy.jsonl"), tmp_path).train.column_names


def test_a_column_named_prompt_may_be_the_question(tmp_path):
    write(tmp_path / "rows.jsonl", [{"prompt": f"q{i}", "answer": "1"} for i in range(9)])
    assert data.load(make(question="prompt"), tmp_path).train["prompt"][0][-1]["role"] == "user"


def test_a_column_named_like_a_variable_of_templates_may_be_the_question(tmp_path):
    write(tmp_path / "rows.jsonl", [{"messages": f"q{i}", "final": "1"} for i in range(9)])
    train = data.load(make(question="messages", answer="final"), tmp_path).train
    assert train.column_names == ["prompt", "answer", "question", "final"]


def test_faults_in_rows_are_counted(tmp_path):
    rows = numbered(9)
    rows[2]["question"] = None
    rows[4]["question"] = "  "
    rows[5]["question"] = ""
    rows[1]["answer"] = None
    rows[7]["answer"] = ""
    write(tmp_path / "rows.jsonl", rows)
    text = refused(make(), tmp_path)
    assert "`question` is null in 1 of 9 rows" in text and "the first is row 3" in text
    assert "`question` is empty in 2 of 9 rows" in text and "the first is row 5" in text
    assert "`answer` is null in 1 of 9 rows" in text and "`answer` is empty in 1 of 9 rows" in text


def test_questions_and_answers_that_are_not_texts(tmp_path):
    write(tmp_path / "rows.jsonl", [{"question": ["a"], "answer": {"b": 1}}] * 5)
    text = refused(make(), tmp_path)
    assert "`question` is a list, not a text in 5 of 5 rows" in text
    assert "`answer` is a dict, not a text, a number, true or false" in text


@pytest.mark.parametrize(
    ("values", "answers"),
    [
        ([True, False], {"true", "false"}),
        ([Decimal("18.90"), Decimal("7.00")], {"18.90", "7.00"}),
        ([["Paris", "Lutetia"], ["Rome"]], {("Paris", "Lutetia"), ("Rome",)}),
    ],
    ids=["true and false", "decimals", "lists"],
)
def test_answers_of_other_types(values, answers, tmp_path):
    rows = [{"question": f"q{i}", "answer": values[i % 2]} for i in range(9)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    train = data.load(make(name="rows.parquet"), tmp_path).train
    assert {tuple(a) if isinstance(a, list) else a for a in train["answer"]} == answers


def test_a_list_of_answers_with_a_hole_is_counted(tmp_path):
    rows = [{"question": f"q{i}", "answer": ["1", None]} for i in range(9)]
    write(tmp_path / "rows.jsonl", rows)
    assert "`answer` has an entry that is null in 9 of 9 rows" in refused(make(), tmp_path)


def test_answers_without_the_marker_are_counted(tmp_path):
    rows = [{"question": f"q{i}", "answer": GSM8K.format(i)} for i in range(9)]
    rows[3]["answer"], rows[6]["answer"] = "18", "so ####  "
    write(tmp_path / "rows.jsonl", rows)
    text = refused(make(answer_after="####"), tmp_path)
    assert "has no `####` (`data.answer_after`) in 1 of 9 rows" in text and "row 4" in text
    assert "has nothing after `####` (`data.answer_after`) in 1 of 9 rows" in text


def test_fewer_rows_than_eval_size(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    text = refused(make(eval_size=11), tmp_path)
    assert "has 10 different questions" in text and "`data.eval_size = 2`" in text
    assert "no training rows are left" in refused(make(eval_size=10), tmp_path)
    write(tmp_path / "test.jsonl", numbered(4, first=20))
    text = refused(make(eval_split="test.jsonl", eval_size=9), tmp_path)
    assert "`data.eval_size = 4`" in text


def test_a_large_file_is_read_within_seconds(tmp_path):
    """10 000 rows of GSM8K's form; the whole of it has 7473."""
    rng = random.Random(0)
    table = pyarrow.table(
        {
            "question": [f"{rng.random()} eggs?" for _ in range(10_000)],
            "answer": [GSM8K.format(i % 1000) for i in range(10_000)],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    splits = data.load(make(name="rows.parquet", answer_after="####", eval_size=200), tmp_path)
    assert len(splits.train) == 9800


@pytest.mark.parametrize(
    ("one", "other"),
    [("10+3=?", "10 + 3 = ?"), (" 10 + 3 = ?\n", "10 +3= ?"), ("a (b)", "a( b )"), ("f x", "f  x")],
)
def test_questions_that_differ_in_white_space_are_the_same(one, other):
    assert question_key(one) == question_key(other)


@pytest.mark.parametrize(("one", "other"), [("sort 12 3", "sort 1 23"), ("now here", "nowhere")])
def test_white_space_between_words_and_numbers_counts(one, other):
    assert question_key(one) != question_key(other)


def test_a_question_with_other_spaces_does_not_leak_into_training(tmp_path):
    rows = [{"question": f"{n} + 3 = ?", "answer": f"{n + 3}"} for n in range(20)]
    write(
        tmp_path / "rows.jsonl",
        rows + [row | {"question": f"{n}+3=?"} for n, row in enumerate(rows)],
    )
    splits = data.load(make(eval_size=5), tmp_path)
    tight = [
        {text.replace(" ", "") for text in part["question"]}
        for part in (splits.train, splits.held_out)
    ]
    assert not tight[0] & tight[1] and len(tight[1]) == splits.num_leaked == 5

"""Data: what is chosen, held out, renamed, and refused with which words."""

import json
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from r1recipes import data, sources
from r1recipes.errors import RecipeError
from r1recipes.schema import Recipe

PRESET = {
    "max_seq_length": 128,
    "max_completion_length": 40,
    "lora_rank": 8,
    "num_generations": 4,
    "prompts_per_step": 4,
}
GSM8K = "Janet has 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $18.\n#### 1,{:03d}"


def make(seed: int = 1, system: str = "Think.", start: dict | None = None, **keys: Any) -> Recipe:
    given: dict[str, Any] = {
        "format": 1,
        "seed": seed,
        "model": {"name": "some/model"},
        "data": {"name": "rows.jsonl", "eval_size": 2} | keys,
        "prompt": {"system": system},
        "rewards": {"correctness": 1.0},
        "preset": {"cpu": PRESET},
    }
    if start:
        given["cold_start"] = start
    if given["data"]["name"] == "builtin:countdown":
        given |= {"rewards": {"countdown": 1.0}, "eval": {"reward": "countdown"}}
    return Recipe.model_validate(given)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(count: int, first: int = 0) -> list[dict[str, Any]]:
    numbers = range(first, first + count)
    return [{"question": f"What is {i}?", "answer": i, "id": f"r{i}"} for i in numbers]


def refused(recipe: Recipe, folder: Path, offline: bool = False) -> str:
    """All that is said about data that are refused."""
    with pytest.raises(RecipeError) as caught:
        data.load(recipe, folder, offline=offline)
    return "\n".join(f"{p.where} {p.message} {p.hint}" for p in caught.value.problems)


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
    assert rows.column_names == ["prompt", "answer", "question"]
    assert rows["answer"][0] == "1," + rows["question"][0][1:].zfill(3)


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


def test_parquet_keeps_the_features_of_the_source(tmp_path):
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
    rows = data.load(make(name="rows.parquet"), tmp_path).train
    assert rows.features["subject"] == features["subject"]
    assert rows.features["when"] == features["when"]


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


# What is refused: files


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path / "train.jsonl", numbered(3))
    text = refused(make(name="trian.jsonl"), tmp_path)
    assert f"{tmp_path}/trian.jsonl does not exist" in text and "did you mean `train.jsonl`" in text
    assert "no folder" in refused(make(name="other/train.jsonl"), tmp_path)
    assert "it has train.jsonl" in refused(make(name="zzzzzzzzzzzz.csv"), tmp_path)


def test_other_suffixes_are_refused(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    assert "one JSON object on each line" in refused(make(name="rows.json"), tmp_path)
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    assert ".jsonl, .csv, .parquet" in refused(make(name="rows.xlsx"), tmp_path)


def test_broken_json_lines_are_named(tmp_path):
    lines = ['{"question": "a", "answer": 1}', "", '{"question": "b" "answer": 2}', "[1, 2]"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines + ["x"] * 9))
    text = refused(make(), tmp_path)
    assert "rows.jsonl:3:18 not valid JSON: Expecting ',' delimiter" in text
    assert "rows.jsonl:4 is a JSON list, not an object" in text
    assert "6 more lines are not valid" in text


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"question": "caf\xe9", "answer": 1}\n')
    assert "rows.jsonl:1 not UTF-8 (byte 18)" in refused(make(), tmp_path)


def test_half_a_character(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "a \\ud83d", "answer": 1}\n')
    assert "column `question` has a text with half a character" in refused(make(), tmp_path)


def test_empty_files(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    assert "is empty (`data.name`)" in refused(make(), tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n\n")
    assert "has no rows" in refused(make(), tmp_path)
    (tmp_path / "rows.csv").write_text("question,answer\n")
    assert "has no rows" in refused(make(name="rows.csv"), tmp_path)


def test_broken_csv_and_parquet(tmp_path):
    (tmp_path / "rows.csv").write_text("question,answer\na,1\nb,2,3\n")
    assert "Row #3: Expected 2 columns, got 3" in refused(make(name="rows.csv"), tmp_path)
    (tmp_path / "rows.parquet").write_text("question,answer\na,1\n")
    assert "not a valid .parquet file" in refused(make(name="rows.parquet"), tmp_path)
    (tmp_path / "rows.csv").write_text("question,answer,answer\na,1,1\n")
    assert "more than one column `answer`" in refused(make(name="rows.csv"), tmp_path)


def test_a_column_of_different_kinds(tmp_path):
    write(tmp_path / "rows.jsonl", [{"question": "a", "answer": 1, "x": [1]}, {"x": {"y": 1}}])
    text = refused(make(), tmp_path)
    assert "column `x` has values of different kinds (dict, list)" in text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": "test"}, "`data.split` is `test`, but a file has no splits"),
        ({"config": "main"}, "`data.config` is for the Hub"),
        ({"eval_split": "test"}, 'such as `data.eval_split = "test.jsonl"`'),
        ({"eval_split": "none.jsonl"}, "none.jsonl does not exist (`data.eval_split`)"),
        ({"eval_split": "rows.jsonl", "eval_size": 9}, "no training rows are left"),
    ],
)
def test_keys_that_do_not_apply_to_a_file(tmp_path, keys, message):
    write(tmp_path / "rows.jsonl", numbered(9))
    assert message in refused(make(**keys), tmp_path)


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
    assert row["question"][1:] == row["answer"][1:] and row["answer"][0] == "q"


def test_the_hint_on_renaming_works(tmp_path):
    rows = datasets.Dataset.from_list([row | {"images": "x"} for row in numbered(9)])
    rows.rename_column("images", "source_images").to_json(tmp_path / "copy.jsonl")
    assert "source_images" in data.load(make(name="copy.jsonl"), tmp_path).train.column_names


def test_a_column_named_prompt_may_be_the_question(tmp_path):
    write(tmp_path / "rows.jsonl", [{"prompt": f"q{i}", "answer": "1"} for i in range(9)])
    assert data.load(make(question="prompt"), tmp_path).train["prompt"][0][-1]["role"] == "user"


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
    write(tmp_path / "rows.jsonl", [{"question": ["a"], "answer": True}] * 5)
    text = refused(make(), tmp_path)
    assert "`question` is a list, not a text in 5 of 5 rows" in text
    assert "`answer` is a bool, not a text or a number in 5 of 5 rows" in text


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


# Folders and the Hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of `datasets`, and every attempt to reach the network an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    datasets.disable_progress_bars()
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, cache):
    """A folder that `datasets` reads as it reads a data set on the Hub, with two configurations."""
    path = tmp_path / "sums"
    path.mkdir()
    configs = []
    for config in ("main", "hard"):
        files = []
        for split, rows in (("train", numbered(20)), ("test", numbered(5, first=50))):
            write(path / f"{config}-{split}.jsonl", rows)
            files.append({"split": split, "path": f"{config}-{split}.jsonl"})
        configs.append({"config_name": config, "data_files": files})
    (path / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return path


def test_a_folder_with_configurations_and_splits(folder):
    before = sorted(folder.iterdir())
    recipe = make(name="sums", config="main", eval_split="test", eval_size=5)
    splits = data.load(recipe, folder.parent)
    assert len(splits.train) == 20 and len(splits.held_out) == 5
    assert sorted(splits.held_out["answer"], key=int)[0] == "50"
    assert sorted(folder.iterdir()) == before


def test_unknown_splits_and_configurations_are_listed(folder):
    text = refused(make(name="sums", config="main", eval_split="tset"), folder.parent)
    assert "has no split `tset`; it has train, test" in text
    assert '`data.eval_split = "test"`' in text
    text = refused(make(name="sums", config="mian"), folder.parent)
    assert "has no config `mian`; it has main, hard" in text and '`data.config = "main"`' in text
    assert "needs a config; it has main, hard" in refused(make(name="sums"), folder.parent)


def test_a_folder_without_data(tmp_path, cache):
    (tmp_path / "notes").mkdir()
    assert "has no data files" in refused(make(name="notes"), tmp_path)


def test_a_folder_with_a_broken_file(folder):
    (folder / "main-test.jsonl").write_text('{"question": \n')
    text = refused(make(name="sums", config="main", eval_split="test"), folder.parent)
    assert "of `sums` cannot be loaded" in text and "name a single .jsonl" in text


def cached_as_from_the_hub(folder: Path, cache: Path, commit: str) -> None:
    """Put the folder into the cache of `datasets` as `someone/sums` at this commit."""
    rows = datasets.load_dataset(str(folder), "main", cache_dir=str(cache.parent / "build"))
    made = Path(rows["train"].cache_files[0]["filename"]).parent
    shutil.copytree(made, cache / "someone___sums" / "main" / "0.0.0" / commit)


def test_a_cached_hub_data_set_is_read_offline_with_its_commit(folder, cache):
    cached_as_from_the_hub(folder, cache, "a" * 40)
    recipe = make(name="someone/sums", config="main", eval_split="test", eval_size=5)
    splits = data.load(recipe, folder.parent, offline=True)
    assert splits.revision == "a" * 40 and len(splits.train) == 20
    recipe = make(name="someone/sums", config="main", revision="b" * 40)
    text = refused(recipe, folder.parent, offline=True)
    assert "cache at commit aaaaaaaa, not at `data.revision` bbbbbbbb" in text
    text = refused(make(name="someone/sums", config="other"), folder.parent, offline=True)
    assert '`data.config = "main"`' in text


def test_the_hub_cannot_be_reached(tmp_path, cache):
    text = refused(make(name="openai/gsm8k", config="main"), tmp_path, offline=True)
    assert "`openai/gsm8k` is not in the local cache, and the Hub may not be asked" in text
    assert "copy a .jsonl" in text


def test_no_connection_is_told_apart_from_offline(tmp_path):
    """With HF_HUB_OFFLINE unset the library tries; a closed port stands for a dead network."""
    code = (
        "from pathlib import Path; from tests.test_data import make; from r1recipes import data\n"
        "try: data.load(make(name='openai/gsm8k', config='main'), Path('.'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {
        "PATH": "/usr/bin",
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    message = "RecipeError `openai/gsm8k` is not in the local cache, and the Hub cannot be reached"
    assert message in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Dataset 'o/d' is a gated dataset on the Hub. You must be authenticated", "HF_TOKEN"),
        ("Revision 'v9' doesn't exist for dataset 'o/d' on the Hub.", "no revision `v9`"),
        ("Dataset 'o/d' doesn't exist on the Hub or cannot be accessed.", "no data set `o/d`"),
    ],
)
def test_what_the_hub_says_is_explained(message, words):
    """The messages of datasets 4.8 (load.py); there is no Hub in a test that would say them."""
    error = datasets.exceptions.DatasetNotFoundError(message)
    given = make(name="o/d", revision="v9").data
    problem = sources._explain(error, given, "train", "data.split", None, False)
    assert words in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("name", "is_local"),
    [
        ("openai/gsm8k", False),
        ("gsm8k", False),
        ("org/math-v1.1", False),
        ("rows.jsonl", True),
        ("./rows", True),
        ("/data/rows", True),
        ("a/b/c", True),
        ("org/rows.parquet", True),
    ],
)
def test_what_a_name_means(tmp_path, name, is_local):
    assert (sources.local_path(name, tmp_path) is not None) == is_local


# Demonstrations


def test_demonstrations_of_builtin_problems(tmp_path):
    recipe = make(name="builtin:arithmetic", size=20, system="", start={"steps": 3, "wrong": 0.0})
    rows = data.demonstrations(recipe, tmp_path, 50)
    assert len(rows) == 50 and rows == data.demonstrations(recipe, tmp_path, 50)
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
    rows = data.demonstrations(recipe, tmp_path, 20)
    for row in rows:
        answer = answers[row["prompt"][-1]["content"]]
        assert f"<answer>\n{answer}\n</answer>" not in row["completion"][0]["content"]


def test_demonstrations_of_a_file(tmp_path):
    write(tmp_path / "rows.jsonl", numbered(10))
    shown = [row | {"completion": f"<answer>{row['answer']}</answer>"} for row in numbered(10)]
    write(tmp_path / "shown.jsonl", shown)
    recipe = make(start={"steps": 1, "data": "shown.jsonl"})
    held_out = data.load(recipe, tmp_path).held_out
    rows = data.demonstrations(recipe, tmp_path, 30, held_out=held_out)
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
        data.demonstrations(recipe, tmp_path, 5)


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

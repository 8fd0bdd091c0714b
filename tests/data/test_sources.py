"""Sources of data: files, folders and the Hub, and what is said about one that cannot be read."""

import json
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from r1recipes import data
from r1recipes.data import sources
from r1recipes.recipe import references
from tests.rows import make, numbered, refused, write

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
    assert "rows.jsonl:1 has a text with half a character" in refused(make(), tmp_path)


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


MIXED = [
    ([15, [15, "x"], 16], [["15"], ["15", "x"], ["16"]]),
    ([True, "yes", 1], ["true", "yes", "1"]),
    ([True, 1, 2], ["true", "1", "2"]),
    ([True, 0.5, 2.0], ["true", "0.5", "2"]),
    (["a", ["a", "b"], True], [["a"], ["a", "b"], ["true"]]),
]
"""Values of a column of mixed kinds, and the references that they are."""


@pytest.mark.parametrize(("values", "references"), MIXED)
@pytest.mark.parametrize("name", ["answer", "final"])
def test_answers_of_mixed_kinds_are_each_read_by_itself(tmp_path, values, references, name):
    rows = [{"question": f"q{n}", name: values[n % 3]} for n in range(30)]
    write(tmp_path / "rows.jsonl", rows)
    splits = data.load(make(answer=name), tmp_path)
    for part in (splits.train, splits.held_out):
        expected = [references[int(question[1:]) % 3] for question in part["question"]]
        assert part["answer"] == expected
        if name == "final":
            assert part["final"] == [values[int(text[1:]) % 3] for text in part["question"]]


def test_further_columns_of_different_kinds_keep_their_values(tmp_path):
    rows = [row | {"x": [1, {"y": 1}, True][n % 3]} for n, row in enumerate(numbered(9))]
    write(tmp_path / "rows.jsonl", rows)
    train = data.load(make(eval_size=1), tmp_path).train
    assert {str(value) for value in train["x"]} == {"1", "{'y': 1}", "True"}


@pytest.mark.parametrize("others", [[1.5], ["a"], [True], [["a"]]])
def test_nan_is_called_nan(tmp_path, others):
    answers = [*others * 9, float("nan")]
    rows = [{"question": f"q{n}", "answer": value} for n, value in enumerate(answers)]
    write(tmp_path / "rows.jsonl", rows)
    assert "`answer` is NaN in 1 of 10 rows" in refused(make(), tmp_path)


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


# What is read


OBJECTS = [
    {"a": 1, "share": 9.7},
    {"b": [1, {"c": None}], "a": "one"},
    None,
    {},
    [1, "two", {"deep": {"x": 2**70}}],
    {"a": None},
]
"""Objects with other keys, and of other kinds, than those before them."""


def test_each_row_keeps_the_keys_of_its_objects_and_their_exact_values(tmp_path):
    rows = [row | {"meta": OBJECTS[int(row["answer"]) % 6]} for row in numbered(24)]
    write(tmp_path / "rows.jsonl", rows)
    splits = data.load(make(), tmp_path)
    for row in [*splits.train, *splits.held_out, *splits.train.select([5, 3])]:
        assert row["meta"] == OBJECTS[int(row["answer"]) % 6]
    again = pickle.loads(pickle.dumps(splits.train))
    assert again["meta"][:] == splits.train["meta"][:]


def test_objects_with_the_same_keys_stay_a_column_of_arrow(tmp_path):
    write(tmp_path / "rows.jsonl", [row | {"meta": {"level": 1.5}} for row in numbered(9)])
    features = data.load(make(), tmp_path).train.features
    assert features["meta"] == {"level": datasets.Value("float64")}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_of_a_csv_file_is_found(mark, tmp_path):
    lines = ["question;answer;note", '"what; is, it|\there";007;x', "b;2;y", "c;3;z"]
    plain = [line.replace(";", mark) for line in (lines[0], *lines[2:])]
    quoted = lines[1].replace('";007;', f'"{mark}007{mark}')
    (tmp_path / "rows.csv").write_text("\n".join([*plain, quoted]))
    train = data.load(make(name="rows.csv", eval_size=1), tmp_path)
    rows = {row["question"]: row["answer"] for row in [*train.train, *train.held_out]}
    assert rows == {"what; is, it|\there": "007", "b": "2", "c": "3"}


def test_the_columns_of_a_csv_file_decide_on_its_separator(tmp_path):
    text = "question,with;commas|bars;answer\na;1\nb;2\n"
    (tmp_path / "rows.csv").write_text("\ufeff" + text.replace("with;", "with,"))
    recipe = make(name="rows.csv", question="question,with,commas|bars", eval_size=1)
    assert set(data.load(recipe, tmp_path).train["question"]) < {"a", "b"}
    (tmp_path / "rows.csv").write_text("frage;antwort\na;1\nb;2\n")
    text = refused(make(name="rows.csv"), tmp_path)
    assert "has no column `question`; it has frage, antwort" in text


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
        "from pathlib import Path; from tests.rows import make; from r1recipes import data\n"
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
        cwd=Path(__file__).parents[2],
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
    assert (references.local_path(name, tmp_path) is not None) == is_local

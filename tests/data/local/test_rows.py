"""Files of rows, demonstrations and examples; and that looking takes no time."""

import subprocess
import sys

import datasets
import pyarrow
import pytest

from r1recipes import data
from r1recipes.data import local, sources
from r1recipes.data.local import rows
from r1recipes.errors import RecipeError
from r1recipes.recipe import references
from tests.data.local.recipes import faults, load
from tests.rows import GSM8K, numbered, write


def test_everything_that_is_named_is_looked_at(folder):
    (folder / "template.jinja").write_text("{% generation %}{{ messages }}{% endgeneration %}")
    loaded = load(
        folder,
        model={"name": "./qwen", "chat_template": "template.jinja"},
        rewards={"mine.py:dose": 1.0, "correctness": 1.0},
    )
    assert local.look(loaded).lines == [
        "data.name rows.jsonl: 20 rows, columns question, answer, id",
        "cold_start.data shown.jsonl: 3 rows, columns question, completion",
        "model.chat_template template.jinja: 49 characters",
        "model.name ./qwen: 1 file of weights, 0.0 GB",
        "reward mine.py: dose(completion, row)",
    ]
    assert faults(loaded) == ""


def test_looking_imports_nothing_heavy(folder):
    load(folder, model={"name": "./qwen"}, rewards={"mine.py:dose": 1.0, "correctness": 1.0})
    code = (
        "import sys; from r1recipes import recipe; from r1recipes.data import local\n"
        "assert not local.look(recipe.load('mine.toml')).problems\n"
        "print({'torch', 'transformers', 'datasets', 'pyarrow', 'huggingface_hub', 'httpx'}"
        " & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_files_of_all_kinds_have_columns(folder):
    (folder / "rows.csv").write_text("question;answer\n" + "".join(f"a,{n};1\n" for n in range(9)))
    datasets.Dataset.from_list(numbered(20)).to_parquet(folder / "rows.parquet")
    for name, about in (("rows.csv", "9 rows, columns question, answer"), ("rows.parquet", "20 r")):
        loaded = load(folder, data={"name": name, "eval_size": 2})
        assert f"data.name {name}: {about}" in local.look(loaded).lines[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "rows.json"}, "rows.json does not exist (`data.name`) did you mean `rows.jsonl`"),
        ({"name": "none/rows.jsonl"}, "there is no folder"),
        ({"question": "problem"}, "has no column `problem`; it has question, answer, id"),
        ({"split": "test"}, "`data.split` is `test`, but a file has no splits"),
        ({"eval_split": "tset.jsonl"}, "tset.jsonl does not exist (`data.eval_split`)"),
        ({"answer_after": "####"}, "has no `####` (`data.answer_after`) in 20 of 20 rows"),
    ],
)
def test_data_that_are_refused(data, message, folder):
    loaded = load(folder, data={"name": "rows.jsonl", "eval_size": 2} | data)
    assert message in faults(loaded)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"question": "a"\n', "rows.jsonl:1:17 not valid JSON"),
        ("rows.jsonl", "\n", "rows.jsonl has no rows"),
        ("rows.csv", "question,answer\n", "rows.csv has no rows"),
        ("rows.csv", "question,answer\ncaf\udce9,1\n", "rows.csv is not UTF-8 text (byte 20)"),
        ("rows.parquet", "PAR1", "rows.parquet is not a valid .parquet file"),
        ("rows.csv", "question,answer\na,\n", "`answer` is empty in 1 of 1 rows"),
    ],
)
def test_files_that_cannot_be_read(name, content, message, folder):
    (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    assert message in faults(load(folder, data={"name": name, "eval_size": 2}))


def test_a_new_kind_of_data_file_needs_no_more_than_its_row(folder, monkeypatch):
    """Once the suffix is in `references.FILE_SUFFIXES`; here it takes the place of .csv."""
    assert tuple(sources.FILES) == references.FILE_SUFFIXES
    kind = sources.FileKind(lambda path, texts: pyarrow.table({"question": ["a", "b"]}))
    monkeypatch.setitem(sources.FILES, ".csv", kind)
    (folder / "rows.csv").write_text("anything")
    expected = [{"question": "a"}, {"question": "b"}]
    assert list(sources.read_file(folder / "rows.csv", "data.name")) == expected
    columns, sample = rows.sample(folder / "rows.csv", "data.name", ())
    assert (columns, sample.rows, sample.is_whole) == (["question"], expected, True)


def test_of_a_large_file_the_first_rows_are_read(folder, monkeypatch):
    monkeypatch.setattr(rows, "SAMPLE_BYTES", 1000)
    write(folder / "rows.jsonl", [row | {"answer": GSM8K.format(1)} for row in numbered(100)])
    lines = ["question,answer", *(f'"a\nb {i}",{i}' for i in range(300))]
    (folder / "rows.csv").write_text("\n".join(lines))
    text = faults(load(folder))
    assert "the first rows of" in text and "`####` stands before the final answer" in text
    loaded = load(folder, data={"name": "rows.csv", "eval_size": 2})
    assert "rows of more, columns question, answer" in local.look(loaded).lines[0]
    assert faults(loaded) == ""


def test_demonstrations_need_their_columns(folder):
    write(folder / "shown.jsonl", [{"question": "q", "answer": "c"}])
    assert "has no column `completion`; it has question, answer" in faults(load(folder))
    (folder / "shown.jsonl").unlink()
    assert "shown.jsonl does not exist (`cold_start.data`)" in faults(load(folder))


def test_a_data_set_of_the_hub_that_is_like_a_file_here_is_a_warning(folder):
    (warning,) = local.look(load(folder, data={"name": "rws"})).warnings
    assert warning == (
        "`data.name` rws is looked for on the Hub: no file or folder here has this name, "
        "but there is `rows.jsonl`"
    )
    assert local.look(load(folder, data={"name": "openai/gsm8k"})).warnings == []


@pytest.mark.parametrize("completion", [None, "", "  "])
def test_demonstrations_without_a_completion(folder, completion):
    rows = [{"question": "q", "completion": "c"}, {"question": "q", "completion": completion}]
    write(folder / "shown.jsonl", rows)
    assert "in 1 of 2 rows of" in faults(load(folder)) and "`completion` is" in faults(load(folder))


@pytest.mark.parametrize(
    ("num_different", "size", "hint"),
    [
        (1, 2, "add rows with other questions"),
        (1, 1, "add rows with other questions"),
        (2, 2, "lower `data.eval_size`"),
        (10, 20, "set `data.eval_size = 2`"),
    ],
)
def test_questions_that_come_again_are_counted(folder, num_different, size, hint):
    rows = [{"question": f"q {n % num_different}", "answer": "1"} for n in range(60)]
    write(folder / "rows.jsonl", rows)
    loaded = load(folder, data={"name": "rows.jsonl", "eval_size": size})
    line = f"60 rows, {num_different} different question" + "s" * (num_different > 1)
    assert line in local.look(loaded).lines[0]
    text = faults(loaded)
    assert hint in text and ("data.eval_size = 1" in text) is False
    with pytest.raises(RecipeError) as caught:
        data.load(loaded.recipe, folder)
    assert hint in str(caught.value.problems[0].hint)


def test_examples_are_looked_at(folder):
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}] * 3
    write(folder / "pairs.jsonl", rows)
    loaded = load(folder, algorithm="dpo", examples={"name": "pairs.jsonl"})
    found = local.look(loaded)
    assert "examples.name pairs.jsonl: 3 rows, columns prompt, chosen, rejected" in found.lines
    assert found.warnings[0] == "[rewards] pay for nothing: DPO goes by pairs of [examples]"
    assert faults(loaded) == ""
    write(folder / "pairs.jsonl", [{"prompt": "q", "chosen": ""}])
    assert "has no column `rejected`" in faults(loaded) and "`chosen` is empty" in faults(loaded)
    loaded = load(folder, algorithm="dpo", examples={"name": "pairs.jsonl", "revision": "main"})
    assert "`examples.revision` is for the Hub" in faults(loaded)
    loaded = load(folder, algorithm="dpo", examples={"name": "pears.jsonl"})
    assert "did you mean `pairs.jsonl`?" in faults(loaded)

"""What a recipe names on this machine: what is looked at, and what is said when it is not there."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow
import pytest
import tomli
import tomli_w

from r1recipes import data, recipe
from r1recipes.data import local, sources
from r1recipes.data.local import model, rows
from r1recipes.errors import RecipeError
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded
from tests.conftest import SMALL
from tests.rows import GSM8K, numbered, write


def load(folder: Path, **sections: dict | str) -> Loaded:
    """The small recipe in `folder` with some sections replaced, and rows of a file as data."""
    given = tomli.loads(SMALL)
    given["data"] = {"name": "rows.jsonl", "eval_size": 2}
    given["cold_start"] = {"steps": 1, "data": "shown.jsonl"}
    given |= sections
    path = folder / "mine.toml"
    path.write_text(tomli_w.dumps(given))
    return recipe.load(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data, demonstrations, a reward and a model."""
    write(tmp_path / "rows.jsonl", numbered(20))
    write(tmp_path / "shown.jsonl", [{"question": "q", "completion": "c"}] * 3)
    (tmp_path / "mine.py").write_text("def dose(completion, row):\n    return 1.0\n")
    qwen = tmp_path / "qwen"
    qwen.mkdir()
    (qwen / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("config.json", "tokenizer.json"):
        (qwen / name).write_text("{}")
    return tmp_path


def said(loaded: Loaded, **options: bool) -> str:
    """All problems that are found."""
    found = local.look(loaded, **options)
    return "\n".join(f"{p.where} {p.message} {p.hint}" for p in found.problems)


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
    assert said(loaded) == ""


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


# Data


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
    assert message in said(loaded)


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
    assert message in said(load(folder, data={"name": name, "eval_size": 2}))


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
    text = said(load(folder))
    assert "the first rows of" in text and "`####` stands before the final answer" in text
    loaded = load(folder, data={"name": "rows.csv", "eval_size": 2})
    assert "rows of more, columns question, answer" in local.look(loaded).lines[0]
    assert said(loaded) == ""


def test_demonstrations_need_their_columns(folder):
    write(folder / "shown.jsonl", [{"question": "q", "answer": "c"}])
    assert "has no column `completion`; it has question, answer" in said(load(folder))
    (folder / "shown.jsonl").unlink()
    assert "shown.jsonl does not exist (`cold_start.data`)" in said(load(folder))


def test_a_data_set_of_the_hub_that_is_like_a_file_here_is_a_warning(folder):
    (warning,) = local.look(load(folder, data={"name": "rws"})).warnings
    assert warning == (
        "`data.name` rws is looked for on the Hub: no file or folder here has this name, "
        "but there is `rows.jsonl`"
    )
    assert local.look(load(folder, data={"name": "openai/gsm8k"})).warnings == []


# The model


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("./qwn", "./qwen"),
        ("models/a/qwen", "model/a/qwen"),
        ("./mode/a/qwem", "./model/a/qwen"),
        ("./unlike", None),
        ("./model/a", None),
    ],
)
def test_the_nearest_folder_of_a_model_is_named(name, near, folder):
    (folder / "model" / "a" / "qwen").mkdir(parents=True)
    (folder / "model" / "a" / "qwen" / "config.json").write_text("{}")
    assert model.nearest_path(name, folder, is_model=True, alike=model.LIKELY) == near


def test_a_folder_that_is_not_there_has_its_place_in_the_recipe(folder):
    loaded = load(folder, model={"name": "./qwn"})
    text = said(loaded)
    assert f"{folder}/mine.toml:6:8 there is no folder `{folder}/qwn` (`model.name`)" in text
    assert "did you mean `./qwen`?" in text
    assert "models there: `qwen`" in said(load(folder, model={"name": "./something"}))
    assert "`rows.jsonl` is a file" in said(load(folder, model={"name": "rows.jsonl"}))
    assert f"{Path.home()}/qwen" in said(load(folder, model={"name": "~/qwen"}))


def test_a_name_of_the_hub_that_is_like_a_folder_here_is_a_warning(folder):
    (folder / "model" / "tmpl").mkdir(parents=True)
    assert local.look(load(folder, model={"name": "model/tmp"})).warnings == []
    (folder / "model" / "tmpl" / "config.json").write_text("{}")
    (warning,) = local.look(load(folder, model={"name": "model/tmp"})).warnings
    assert "`model.name` model/tmp is looked for on the Hub" in warning
    assert "`model/tmpl`" in warning
    assert local.look(load(folder, model={"name": "unsloth/phi-4"})).warnings == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": None}, "has no config.json"),
        ({"config.json": None, "inner/config.json": "{}"}, "qwen/inner`?"),
        ({"tokenizer.json": None}, "has no tokenizer"),
        ({"model.safetensors": None}, "has no weights: no *.safetensors"),
        ({"model.safetensors": None, "q8.gguf": "GGUF"}, "from safetensors, not from GGUF"),
        ({"model.safetensors": "version https://git-lfs.github.com/spec/v1"}, "pointer of Git LFS"),
        (
            {"model.safetensors.index.json": json.dumps({"weight_map": {"a": "m-1", "b": "m-2"}})},
            "lacks 2 of 2 files of weights: m-1",
        ),
        *(
            ({index: content}, f"qwen/{index}` is damaged: {reason}")
            for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json")
            for content, reason in (
                ("", "it is not JSON"),
                ('{"weight_map": {"a": "m-', "it is not JSON"),
                ("[" * 100_000, "it is not JSON"),
                ("[]", "it has no `weight_map`"),
                ("{}", "it has no `weight_map`"),
                ('{"weight_map": ["m-1"]}', "it has no `weight_map`"),
                ('{"weight_map": {"a": 1}}', "it has no `weight_map`"),
                ('{"weight_map": {"a": ["m-1"]}}', "it has no `weight_map`"),
            )
        ),
    ],
)
def test_a_folder_that_is_no_whole_model(files, message, folder):
    for name, content in files.items():
        path = folder / "qwen" / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    text = said(load(folder, model={"name": "./qwen"}))
    assert message in text and text.count("\n") == 0


def test_an_index_that_cannot_be_read_or_decoded_is_a_problem(folder):
    index = folder / "qwen" / "model.safetensors.index.json"
    index.write_bytes(b'{"weight_map": "caf\xe9"}')
    assert "is damaged: it is not JSON: 'utf-8'" in said(load(folder, model={"name": "./qwen"}))
    index.unlink()
    index.mkdir()
    assert "cannot be read: it is not a plain file" in said(load(folder, model={"name": "./qwen"}))


@pytest.mark.parametrize("file", ["record.json", "adapter_config.json"])
def test_a_run_or_an_adapter_may_stand_for_the_model(file, folder, monkeypatch):
    (folder / "first").mkdir()
    (folder / "first" / file).write_text("{}")
    assert local.look(load(folder, model={"name": "./first"})).problems == []
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    assert local.look(load(folder, model={"name": "../first"})).problems == []


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("tmplate.jinja", "nor a file that can be read"),
        ("{% for m in messages %}{{ m }}", "is not valid Jinja"),
        ("{% if %}{{ m }}{% endif %}", "line 1 of it"),
    ],
)
def test_chat_templates_that_are_refused(template, message, folder):
    loaded = load(folder, model={"name": "builtin:tiny", "chat_template": template})
    assert message in said(loaded)


# Rewards


CODE = """
from elsewhere import imported

def dose(completion, row): ...
def trl(prompts, completions, level, id=None, *, question, **columns): ...
def odd(text): ...
def many(completion, row, other): ...
def few(completion): ...
async def late(completion, row): ...
class Judge:
    def __call__(self, completion, row): ...
judge = Judge()
@imported
def wrapped(text): ...
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("dose", None),
        ("few", None),
        ("judge", None),
        ("imported", None),
        ("wrapped", None),
        ("odd", "reward `mine.py:odd` takes (text)"),
        ("many", "needs 3 arguments: completion, row, other"),
        ("late", "`late` is `async`"),
        ("Judge", "`Judge` is a class, not a function"),
        ("trl", "needs the columns level, which the data does not have"),
        ("dosis", "did you mean `dose`?"),
    ],
)
def test_functions_are_judged_by_their_syntax(function, message, folder):
    (folder / "mine.py").write_text(CODE)
    loaded = load(folder, rewards={f"mine.py:{function}": 1.0, "correctness": 1.0})
    text = said(loaded)
    assert (message in text) if message else (text == "")


def test_columns_that_are_not_known_are_not_missed(folder):
    (folder / "mine.py").write_text(CODE)
    rewards = {"mine.py:trl": 1.0, "correctness": 1.0}
    assert said(load(folder, data={"name": "me/rows"}, rewards=rewards)) == ""


def test_code_is_imported_where_it_is_allowed(folder):
    (folder / "mine.py").write_text("1 / 0\ndef f(completion, row): ...\n")
    loaded = load(folder, rewards={"mine.py:f": 1.0, "correctness": 1.0})
    assert said(loaded) == ""
    assert "reward `mine.py:f` raised ZeroDivisionError" in said(loaded, allow_code=True)
    (folder / "mine.py").write_text("def f(completion, row): ...\n")
    assert "f(completion, row), imported" in local.look(loaded, allow_code=True).lines[-1]


def test_a_file_of_rewards_that_is_not_there(folder):
    loaded = load(folder, rewards={"mime.py:f": 1.0, "correctness": 1.0})
    assert "mime.py` cannot be read" in said(loaded) and "did you mean `mine.py`?" in said(loaded)


@pytest.mark.parametrize(
    ("rewards", "judge", "warning"),
    [
        ({"correctness": 1.0}, "correctness", None),
        ({"integer": 1.0}, "correctness", "`eval.reward` correctness is not among [rewards]"),
        ({"notebook_int": 1.0}, "notebook_int", "pays at most 0.5, and a completion is right"),
    ],
)
def test_the_choice_of_rewards_is_doubted(rewards, judge, warning, folder):
    found = local.look(load(folder, rewards=rewards, eval={"reward": judge})).warnings
    assert (warning in found[0]) if warning else (found == [])


@pytest.mark.parametrize("completion", [None, "", "  "])
def test_demonstrations_without_a_completion(folder, completion):
    rows = [{"question": "q", "completion": "c"}, {"question": "q", "completion": completion}]
    write(folder / "shown.jsonl", rows)
    assert "in 1 of 2 rows of" in said(load(folder)) and "`completion` is" in said(load(folder))


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
    text = said(loaded)
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
    assert said(loaded) == ""
    write(folder / "pairs.jsonl", [{"prompt": "q", "chosen": ""}])
    assert "has no column `rejected`" in said(loaded) and "`chosen` is empty" in said(loaded)
    loaded = load(folder, algorithm="dpo", examples={"name": "pairs.jsonl", "revision": "main"})
    assert "`examples.revision` is for the Hub" in said(loaded)
    loaded = load(folder, algorithm="dpo", examples={"name": "pears.jsonl"})
    assert "did you mean `pairs.jsonl`?" in said(loaded)


def test_rewards_that_choose_pairs_are_not_called_unused(folder):
    assert not any("nothing" in w for w in local.look(load(folder, algorithm="dpo")).warnings)
    warnings = local.look(load(folder, algorithm="sft")).warnings
    assert "[rewards] pay for nothing: SFT goes by `eval.reward` alone" in warnings

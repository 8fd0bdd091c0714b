"""Folders of models, and chat templates."""

import json
from pathlib import Path

import pytest

from r1recipes.data import local
from r1recipes.data.local import model
from tests.data.local.recipes import faults, load


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
    text = faults(loaded)
    assert f"{folder}/mine.toml:6:8 there is no folder `{folder}/qwn` (`model.name`)" in text
    assert "did you mean `./qwen`?" in text
    assert "models there: `qwen`" in faults(load(folder, model={"name": "./something"}))
    assert "`rows.jsonl` is a file" in faults(load(folder, model={"name": "rows.jsonl"}))
    assert f"{Path.home()}/qwen" in faults(load(folder, model={"name": "~/qwen"}))


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
    text = faults(load(folder, model={"name": "./qwen"}))
    assert message in text and text.count("\n") == 0


def test_an_index_that_cannot_be_read_or_decoded_is_a_problem(folder):
    index = folder / "qwen" / "model.safetensors.index.json"
    index.write_bytes(b'{"weight_map": "caf\xe9"}')
    assert "is damaged: it is not JSON: 'utf-8'" in faults(load(folder, model={"name": "./qwen"}))
    index.unlink()
    index.mkdir()
    assert "cannot be read: it is not a plain file" in faults(
        load(folder, model={"name": "./qwen"})
    )


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
    assert message in faults(loaded)

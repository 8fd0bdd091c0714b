"""The cards of an export and of a shared recipe: what the Hub reads of them, and what people do."""

import dataclasses
from typing import Any

import pytest
from huggingface_hub import ModelCard

from r1recipes import recipe
from r1recipes.algorithms import ALGORITHMS
from r1recipes.publish import cards
from r1recipes.publish.forms import FORMS
from r1recipes.runs import lock, trained
from r1recipes.runs.trained import TrainedRun

MANIFEST: dict[str, Any] = {
    "form": "lora",
    "step": 6,
    "max_steps": 6,
    "base": "Qwen/Qwen2.5-0.5B",
    "base_on_hub": True,
    "base_revision": "7ae557604adf67be50417f59c2c2f167def9a775",
    "cold_start": False,
    "own_tokenizer": False,
    "dtype": "float32",
    "trained_in_4bit": True,
    "trained_in_fp8": False,
    "checks": ["loaded again"],
    "files": {},
}
GGUF_FILE = {"bytes": 5_000_000, "tensors": {"Q8_0": 15, "F32": 4}}


@pytest.fixture
def run(finished) -> TrainedRun:
    return trained.find(finished.folder, str(finished.folder))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_card_of_an_export_names_the_algorithm_of_its_run(run, name):
    trained_so = run.plan.recipe.model_copy(update={"algorithm": name})
    plan = run.plan.model_copy(update={"recipe": trained_so})
    text = cards.of_export(dataclasses.replace(run, plan=plan), MANIFEST, FORMS["lora"].use)
    assert ModelCard(text).data.to_dict()["tags"] == ["r1recipes", name, "reasoning"]
    assert f": {ALGORITHMS[name].title} on `" in text


@pytest.mark.parametrize(
    ("form", "relation", "library"),
    [
        ("lora", "adapter", "peft"),
        ("merged_16bit", "finetune", "transformers"),
        ("merged_4bit", "quantized", "transformers"),
        ("gguf", "quantized", "gguf"),
        ("ollama", "quantized", "gguf"),
    ],
)
def test_the_hub_reads_what_an_export_is(run, form, relation, library):
    text = cards.of_export(run, MANIFEST | {"form": form}, FORMS[form].use)
    data = ModelCard(text).data.to_dict()
    assert data == {
        "base_model": "Qwen/Qwen2.5-0.5B",
        "base_model_relation": relation,
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": ["r1recipes", "grpo", "reasoning"],
    }


def test_the_command_of_a_card_has_the_permissions_of_its_recipe(run):
    paid = run.plan.recipe.model_copy(update={"rewards": {"mine.py:f": 1.0}})
    plan = run.plan.model_copy(update={"recipe": paid})
    text = cards.of_export(dataclasses.replace(run, plan=plan), MANIFEST, FORMS["lora"].use)
    assert "python -m r1recipes run recipe.toml --preset cpu --allow-code\n" in text
    assert "--allow-code" not in cards.of_export(run, MANIFEST, FORMS["lora"].use)


def test_a_base_that_is_not_on_the_hub_is_not_named_to_it(run):
    text = cards.of_export(run, MANIFEST | {"base": "my model", "base_on_hub": False}, cards.MERGED)
    data = ModelCard(text).data.to_dict()
    assert "base_model" not in data and "base_model_relation" not in data
    assert "- base: `my model` at `7ae5576" in text


def test_a_name_that_yaml_would_read_otherwise_stays_a_name(run):
    for base in ("user/yes: [no]", "user/#1", "user/'x", "user/x\nlicense: mit"):
        text = cards.of_export(run, MANIFEST | {"base": base}, cards.MERGED)
        data = ModelCard(text).data.to_dict()
        assert data["base_model"] == base and "license" not in data


def test_the_files_of_an_export_are_listed(run):
    files = {"small-q8_0.gguf": GGUF_FILE}
    text = cards.of_export(run, MANIFEST | {"form": "gguf", "files": files}, cards.GGUF)
    assert "- form `gguf`, made from weights in float32" in text
    assert "- `small-q8_0.gguf`: 5.0 MB; 15 x Q8_0, 4 x F32" in text
    assert "```\nllama-cli -m small-q8_0.gguf\n```" in text


def test_the_card_has_the_command_that_repeats_the_run(run):
    text = cards.of_export(run, MANIFEST, cards.MERGED)
    assert "```\npython -m r1recipes run recipe.toml --preset cpu" in text


@pytest.mark.parametrize("name", ["tiny", "qwen2.5-1.5b"])
def test_the_card_of_a_recipe_that_was_not_run(name):
    loaded = recipe.load(name)
    locked, files = lock.of_recipe(loaded), {"recipe.toml": b"", "lock.json": b""}
    text = cards.of_recipe(name, loaded.recipe, locked, None, files)
    data = ModelCard(text).data.to_dict()
    on_hub = {"base_model": loaded.recipe.model.name, "datasets": loaded.recipe.data.name}
    expected = {"library_name": "r1recipes", "tags": ["r1recipes", "grpo"]}
    assert data == (expected if name == "tiny" else expected | on_hub)
    assert "It was shared without a run." in text and locked["fingerprint"] in text
    assert "- `README.md`\n- `lock.json`\n- `recipe.toml`\n" in text
    assert text.endswith(f"{cards.MARK}\n")


def test_the_card_of_a_run_has_its_accuracy(finished, run):
    record, locked = finished.read(), finished.read_lock()
    text = cards.of_recipe("small", run.plan.recipe, locked, record, {})
    before, after = (record["evaluation"][when]["accuracy"] for when in ("before", "after"))
    assert f"| accuracy, sampled | {before:.1%} | {after:.1%} |" in text
    assert "s on a CPU, preset cpu, finished 2" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "trained with the base in 4 bits; the base in 16 bits is what the adapter is"),
        (
            {"trained_in_4bit": False, "trained_in_fp8": True},
            "the base in FP8; the base in 16 bits",
        ),
        ({"trained_in_4bit": False}, None),
    ],
)
def test_the_card_says_what_the_adapter_was_trained_on(run, changes, words):
    text = " ".join(cards.of_export(run, MANIFEST | changes, FORMS["lora"].use).split())
    assert words in text if words else "trained with the base in" not in text

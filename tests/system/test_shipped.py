"""The shipped recipes: each loads, renders to itself, and has presets that suit their cards."""

import pytest

from r1recipes import recipe
from r1recipes.algorithms.base import preset_bytes
from r1recipes.algorithms.grpo import GrpoTrain
from r1recipes.config import render
from r1recipes.machine import cards
from r1recipes.planning import models
from r1recipes.recipe import loading, schema

NAMES = [path.stem for path in recipe.shipped()]
REAL = ["llama3.1-8b", "mistral-7b", "phi4", "qwen2.5-1.5b", "qwen2.5-7b"]


FINGERPRINTS = {
    "tiny": "83ddb244",
    "small": "90c6d81d",
    "phi4": "0d83967b",
    "llama3.1-8b": "eb1eb82d",
    "mistral-7b": "e34ddf0a",
    "qwen2.5-1.5b": "d81a0b04",
    "qwen2.5-7b": "8258e9a6",
}


def test_there_are_recipes():
    assert set(REAL) <= set(NAMES)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_fingerprint_is_the_one_that_runs_and_proofs_have(name):
    """A key that is added to the format is marked `config.section.ADDED_LATER`."""
    assert recipe.fingerprint(recipe.load(name).recipe)[:8] == FINGERPRINTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_loads_and_renders_to_itself(name, tmp_path):
    loaded = recipe.load(name)
    again = tmp_path / "again.toml"
    again.write_text(render.render(loaded.recipe, loading.origin_of(loaded)))
    assert recipe.load(again).recipe == loaded.recipe
    assert recipe.fingerprint(recipe.load(again).recipe) == recipe.fingerprint(loaded.recipe)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_names_its_schema_and_is_plain_text(name):
    text = recipe.find(name).read_text()
    assert text.startswith("#:schema ./recipe.schema.json\n")
    assert text.isascii() and text.endswith("\n") and "\t" not in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_covers_its_card(name):
    presets = recipe.load(name).data["preset"]
    for card, keys in presets.items():
        assert {"max_seq_length", "lora_rank", "num_generations"} <= keys.keys()
        if card != "cpu":
            assert {"gpu_memory_utilization", "load_in", "prompts_per_step"} <= keys.keys()
            assert 0.15 <= keys["gpu_memory_utilization"] <= 0.9


@pytest.mark.parametrize("name", REAL)
def test_the_known_models_train_on_gsm8k_and_the_answer_outweighs_the_format(name):
    shipped = recipe.load(name).recipe
    rows = shipped.data
    assert (rows.name, rows.config, rows.eval_split) == ("openai/gsm8k", "main", "test")
    assert rows.answer_after == "####"
    assert shipped.prompt.system == schema.SYSTEM_PROMPT
    assert shipped.rewards == {"correctness": 1.0, "soft_format": 0.1}
    train = shipped.train
    assert isinstance(train, GrpoTrain) and train.beta == 0
    assert 1e-5 <= train.learning_rate <= 3e-5


@pytest.mark.parametrize("name", REAL)
def test_the_weights_of_the_model_fit_into_each_preset(name):
    """Only the weights against the engine's share; the planner predicts the rest."""
    shipped = recipe.load(name).recipe
    shape = models.find(shipped.model.name)
    assert shape is not None
    for card, preset in shipped.preset.items():
        per_weight = {"4bit": 0.516, "fp8": 1.0, "16bit": 2.0}[preset.weights]
        rest = shape.parameters - shape.linear_parameters
        weights = shape.linear_parameters * per_weight + rest * 2
        usable = min(c.usable_bytes for c in cards.GPUS.values() if f"{c.sold_gb}GB" == card)
        share = preset.gpu_memory_utilization
        assert isinstance(share, float) and weights < 0.95 * share * usable, card
        assert preset.max_completion_length >= 768


def test_presets_grow_with_the_card():
    for name in REAL:
        presets = recipe.load(name).recipe.preset
        ordered = [presets[card] for card in sorted(presets, key=preset_bytes)]
        for small, large in zip(ordered, ordered[1:], strict=False):
            assert small.prompts_per_step <= large.prompts_per_step
            assert small.max_seq_length <= large.max_seq_length
            assert small.weights == "4bit" or large.weights == "16bit"

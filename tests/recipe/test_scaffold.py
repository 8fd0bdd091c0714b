"""A new recipe: complete, explained, valid, and near the model that was asked for."""

import re

import pytest

from r1recipes import recipe
from r1recipes.algorithms.base import CPU_ONLY, GPU_ONLY
from r1recipes.config.suggest import models_in
from r1recipes.planning import models
from r1recipes.recipe import scaffold

SHIPPED = [
    path.stem
    for path in recipe.shipped()
    if not recipe.load(path).recipe.data.name.startswith("gym:")
]
"""Those that a new recipe may be based on."""


def new(tmp_path, base: str, model: str, change=lambda text: text):
    path = tmp_path / "new.toml"
    path.write_text(change(scaffold.commented(recipe.load(base).recipe, model)))
    return recipe.load(path).recipe


@pytest.mark.parametrize("base", SHIPPED)
def test_it_is_the_base_with_another_model(tmp_path, base):
    old = recipe.load(base).recipe
    model = old.model.name if old.model.name.startswith("builtin:") else "me/mine-3B"
    made = new(tmp_path, base, model)
    assert made.model.name == model
    assert made == old.model_copy(update={"model": made.model, "description": made.description})


@pytest.mark.parametrize("base", SHIPPED)
def test_every_key_is_there_with_its_meaning(base):
    old = recipe.load(base).recipe
    text = scaffold.commented(old, "me/mine-3B", None)
    absent = GPU_ONLY if "cpu" in old.preset else CPU_ONLY
    assert text.startswith("# A line that begins with # and no space is not set.")
    assert "\n\n# Version of the recipe format.\nformat = 1\n" in text
    lines = text.split("\n")
    for section, key, description in keys(type(old)):
        if section == "examples":  # of algorithms that do not sample while they train
            assert not re.search(r"(?m)^#?\[examples\]", text)
            continue
        if section.partition(".")[0] == "stage":  # one line of it stands for the section
            assert '#[[stage]]\n#algorithm = "sft"\n' in text
            continue
        if key in absent or key == "load_in_4bit":  # the older name of another key
            assert not re.search(rf"(?m)^#?{key} = ", text)
            continue
        assert f"[{section}]" in text or f"[{section}.cpu]" in text or "GB]" in text or not section
        places = [n for n, line in enumerate(lines) if re.match(rf"#?{key} = ", line)]
        above = [lines[n - 1] for n in places]
        start = " ".join(description.split())[:30]
        assert any(line.startswith("# ") for line in above), key
        assert start in " ".join(line.removeprefix("# ") for line in lines), key
    assert all(len(line) <= 100 for line in lines)


def keys(model, section=""):
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        if inner:
            yield from keys(inner[0], f"{section}.{name}" if section else name)
        elif name != "rewards":
            yield section, name, field.description


def test_each_comment_of_a_default_can_be_taken_away(tmp_path):
    """Then it is a line of TOML with a valid value; [data.problems] is for built-in data alone, and
    [judge] for the reward `judge`, with other keys for a score than for a comparison."""

    def uncomment(text: str) -> str:
        text = re.sub(r"(?s)#\[(data\.problems|judge)\]\n.*?\n\n", "", text)
        text = text.replace('load_in = "4bit"', 'load_in = "16bit"')  # for the cold start
        return re.sub(r"(?m)^#(?![ :])", "", text)

    made = new(tmp_path, "phi4", "me/mine-3B", uncomment)
    assert made.cold_start and made.cold_start.steps == 300
    assert made.stage_names == ["1-sft"]
    assert made.model.revision == "main" and made.train.min_p == 0.05
    assert made.prompt.system == recipe.load("phi4").recipe.prompt.system


def test_names_with_quotes_stay_what_they_are(tmp_path):
    assert new(tmp_path, "phi4", 'C:\\models\\"mine"').model.name == 'C:\\models\\"mine"'


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("unsloth/Phi-4", "phi4"),
        ("microsoft/phi-4", "phi4"),
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b"),
        ("Qwen/Qwen2.5-0.5B", "qwen2.5-1.5b"),
        ("unsloth/Qwen2.5-3B-Instruct", "qwen2.5-3b"),
        ("unsloth/Qwen2.5-3B-finetuned", "qwen3-4b"),  # not by what nobody has measured
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("Qwen/Qwen3-14B", "qwen2.5-7b"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "llama3.1-8b"),
        ("mistralai/Ministral-8B-Instruct-2410", "llama3.1-8b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("google/gemma-3-12b-it", "phi4"),
        ("HuggingFaceTB/SmolLM2-360M", "qwen2.5-1.5b"),
        ("me/unknown", "llama3.1-8b"),
        ("", "llama3.1-8b"),
        ("me/model-0B", "llama3.1-8b"),
    ],
)
def test_the_nearest_recipe_is_the_base(model, base):
    assert scaffold.base_for(model, models.find).stem == base


def test_the_tiny_model_has_its_own_recipe():
    assert scaffold.base_for("builtin:tiny", models.find).stem == "tiny"
    assert scaffold.base_for("builtin:small", models.find).stem == "small"

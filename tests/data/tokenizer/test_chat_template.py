"""The tag that a chat template opens before a completion begins, with and without a tokenizer."""

import json
from pathlib import Path

import pytest

from r1recipes import rewards
from r1recipes.data import preflight
from r1recipes.data.tokenizer import chat_template
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Model, Recipe
from tests.data.preflight.words import splits
from tests.rows import make

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PLAIN = CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINKS = CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [
        ("<|im_start|>assistant\n<think>\n", "think"),
        ("<|Assistant|><think>", "think"),
        ("assistant: <reasoning>", "reasoning"),
        ("<|im_start|>assistant\n", None),
        ("<|assistant|>", None),
        ("<assistant>\n", None),
        ("<start_of_turn>model\n", None),
        ("<think>\n\n</think>\n\n", None),
        ("[/INST]", None),
        ("", None),
    ],
)
def test_the_tag_that_a_prompt_ends_with(prompt, tag):
    assert chat_template.opened_tag(prompt) == tag


def named(name: str, template: str | None = None) -> Recipe:
    return make().model_copy(update={"model": Model(name=name, chat_template=template)})


def test_the_template_of_the_recipe_comes_first(tmp_path):
    (tmp_path / "own.jinja").write_text(THINKS)
    for template in (THINKS, "own.jinja"):
        recipe = named("builtin:tiny", template)
        assert chat_template.opened_by_template(recipe, tmp_path) == "think"
    assert chat_template.opened_by_template(named("builtin:tiny"), tmp_path) is None
    with pytest.raises(RecipeError, match="nor a file"):
        chat_template.opened_by_template(named("builtin:tiny", "none.jinja"), tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "tag"),
    [
        ("chat_template.jinja", THINKS, "think"),
        ("chat_template.jinja", PLAIN, None),
        ("tokenizer_config.json", json.dumps({"chat_template": THINKS}), "think"),
        (
            "tokenizer_config.json",
            json.dumps(
                {
                    "chat_template": [
                        {"name": "tool_use", "template": PLAIN},
                        {"name": "default", "template": THINKS},
                    ]
                }
            ),
            "think",
        ),
        ("tokenizer_config.json", json.dumps({"pad_token": "x"}), None),
        ("tokenizer_config.json", "[1", None),
        ("chat_template.jinja", "{{ raise_exception('<think> no') }}", None),
    ],
)
def test_the_template_of_a_folder_is_read_without_a_tokenizer(file, text, tag, tmp_path):
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / file).write_text(text)
    assert chat_template.opened_by_template(named("./qwen"), tmp_path) == tag


def test_the_template_of_a_cached_model_is_read_and_of_another_not(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--me--thinker" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "chat_template.jinja").write_text(THINKS)
    recipe = named("me/thinker")
    revised = recipe.model_copy(update={"model": Model(name="me/thinker", revision=COMMIT)})
    assert chat_template.opened_by_template(revised, Path(".")) == "think"
    assert chat_template.opened_by_template(named("me/other"), Path(".")) is None


def test_the_preflight_warns_of_rewards_that_the_template_makes_unpayable():
    loaded = rewards.load(["strict_format", "integer"], base_dir=Path("."))
    (warning,) = preflight.check_rewards(loaded, splits("hello", "what is 1"), opened="think")
    assert "reward `strict_format` pays 0" in warning and "has written <think>" in warning

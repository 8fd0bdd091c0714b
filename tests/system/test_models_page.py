"""docs/models.md: its code takes the text part out of a model that also sees, and its table has
every family."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    Mistral3Config,
)

from r1recipes import recipe
from r1recipes.planning import architectures
from r1recipes.planning.architectures.families import FAMILIES
from r1recipes.training.backends import builtin

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 160,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (Gemma3Config(text_config=TEXT, vision_config=VISION), "gemma3_text"),
        (
            Mistral3Config(
                text_config=TEXT | {"model_type": "ministral3"},
                vision_config=VISION | {"model_type": "pixtral", "head_dim": 8},
            ),
            "ministral3",
        ),
    ],
    ids=["gemma3", "mistral3"],
)
def test_the_text_part_of_a_model_that_sees_is_planned_and_answers_alike(config, kind, tmp_path):
    whole = AutoModelForImageTextToText.from_config(config).eval()
    whole.save_pretrained(tmp_path / "whole")
    builtin.build_tokenizer().save_pretrained(tmp_path / "whole")
    with pytest.raises(architectures.Refused, match="takes more than text"):
        architectures.find("whole", tmp_path, offline=True)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    command = [sys.executable, "-c", code, str(tmp_path / "whole"), str(tmp_path / "text")]
    subprocess.run(command, check=True, capture_output=True)
    checkpoint = architectures.find("text", tmp_path, offline=True)
    assert checkpoint.shape.family == kind
    assert json.loads((tmp_path / "text" / "config.json").read_text())["model_type"] == kind
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert sum(p.numel() for p in text.parameters()) == checkpoint.shape.parameters
    ids = torch.arange(12).reshape(1, 12) + 20
    with torch.no_grad():
        assert torch.allclose(whole(input_ids=ids).logits, text(input_ids=ids).logits, atol=1e-5)


def test_the_table_has_every_family_and_every_unmeasured_recipe():
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(FAMILIES) <= named
    for path in recipe.shipped():
        if recipe.load(path).recipe.data.name == "openai/gsm8k":
            assert f"../recipes/{path.name}" in PAGE

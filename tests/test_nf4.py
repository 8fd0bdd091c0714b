"""NF4 of a 16-bit folder on a CPU, and what the engine's weights say of themselves."""

import json
from types import SimpleNamespace

import pytest
import torch

from r1recipes.backends import nf4, tiny
from r1recipes.backends.differences import quantisation
from r1recipes.errors import RecipeError

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny.build_model(1).to(torch.bfloat16).save_pretrained(folder)
    tiny.build_tokenizer().save_pretrained(folder)
    return folder


def test_a_16_bit_folder_is_loaded_as_nf4_and_answers_nearly_the_same(source, tmp_path):
    """transformers reads it as it reads a published 4-bit checkpoint."""
    from transformers import AutoModelForCausalLM

    folder = nf4.cached(source, tmp_path, torch.bfloat16)
    exact = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert quantisation(exact) == "none" and quantisation(model) == "nf4, double"
    name = "model.layers.0.mlp.up_proj"
    weight = model.get_submodule(name).weight
    restored = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    error = (restored - exact.get_submodule(name).weight).float()
    spread = exact.get_submodule(name).weight.float().std()
    assert 0.02 < error.std() / spread < 0.15  # 4 bits of a normal distribution: about 0.1
    kept = "model.embed_tokens"
    assert torch.equal(model.get_submodule(kept).weight, exact.get_submodule(kept).weight)


def test_it_is_made_once_and_again_when_the_folder_changes(source, tmp_path):
    first = nf4.cached(source, tmp_path, torch.bfloat16)
    weights = first / "model-00001.safetensors"
    made = weights.stat().st_mtime_ns
    assert nf4.cached(source, tmp_path, torch.bfloat16) == first
    assert weights.stat().st_mtime_ns == made
    assert nf4.cached(source, tmp_path, torch.float16) != first
    config = json.loads((first / "config.json").read_text())
    assert config["quantization_config"]["bnb_4bit_use_double_quant"] and nf4.is_quantised(first)
    assert (first / "tokenizer.json").exists() and not list(tmp_path.glob(".*"))


def test_a_folder_without_weights_or_config_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no .safetensors"):
        nf4.cached(tmp_path, tmp_path / "cache", torch.bfloat16)
    with pytest.raises(RecipeError, match="no config.json"):
        nf4.is_quantised(tmp_path)


@pytest.mark.parametrize(
    "kind, nested, said", [("nf4", True, "nf4, double"), ("fp4", False, "fp4, single")]
)
def test_what_the_weights_are_is_read_from_their_state(kind, nested, said):
    layer = bitsandbytes.nn.Linear4bit(64, 64, quant_type=kind, compress_statistics=nested)
    assert quantisation(layer.to("cpu")) == said
    assert quantisation(SimpleNamespace(parameters=lambda: [torch.zeros(1)])) == "none"

"""NF4 of a 16-bit folder on a CPU, and how the state of weights tells how they are stored."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from r1recipes import data, planning, recipe
from r1recipes.data.examples import demonstrations
from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import files
from r1recipes.training.backends import builtin, quantised
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.quantised import checkpoint, nf4
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.backends.unsloth.differences import quantisation
from r1recipes.training.backends.weights import load_base

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    builtin.build_model(1).bfloat16().save_pretrained(folder)
    builtin.build_tokenizer().save_pretrained(folder)
    return folder


def test_a_16_bit_folder_is_loaded_as_nf4_and_answers_nearly_the_same(source, tmp_path):
    """transformers reads it as it reads a published 4-bit checkpoint."""
    from transformers import AutoModelForCausalLM

    folder = quantised.cached(source, tmp_path, torch.bfloat16, nf4.FORM)
    exact = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    converted, original = (dict(m.named_parameters()) for m in (model, exact))
    assert quantisation(exact) == "none" and quantisation(model) == "nf4, double"
    name = "model.layers.0.mlp.up_proj.weight"
    state = vars(converted[name])["quant_state"]
    restored = bitsandbytes.functional.dequantize_4bit(converted[name].data, state)
    error = (restored - original[name]).float()
    assert 0.02 < error.std() / original[name].float().std() < 0.15  # 4 bits of a normal: about 0.1
    name = "model.embed_tokens.weight"
    assert torch.equal(converted[name], original[name])


def test_it_is_made_once_and_again_when_the_folder_changes(source, tmp_path):
    first = quantised.cached(source, tmp_path, torch.bfloat16, nf4.FORM)
    weights = first / "model-00001.safetensors"
    written = weights.stat().st_mtime_ns
    assert quantised.cached(source, tmp_path, torch.bfloat16, nf4.FORM) == first
    assert weights.stat().st_mtime_ns == written
    assert quantised.cached(source, tmp_path, torch.float16, nf4.FORM) != first
    config = json.loads((first / "config.json").read_text())
    assert config["quantization_config"]["bnb_4bit_use_double_quant"]
    assert quantised.is_quantised(first)
    assert (first / "tokenizer.json").exists() and not list(tmp_path.glob(".*"))


def test_weights_that_a_repository_has_in_another_form_are_left_out(source, tmp_path):
    """Mistral's repository has all weights a second time, under names that loaders do not know."""
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    save_file(
        {"layers.0.attention.wq.weight": torch.zeros(2)}, tmp_path / "consolidated.safetensors"
    )
    folder = quantised.cached(tmp_path, tmp_path / "cache", torch.bfloat16, nf4.FORM)
    index = folder / "model.safetensors.index.json"
    assert "layers.0.attention.wq.weight" not in json.loads(index.read_text())["weight_map"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_conversion_that_was_cut_off_leaves_nothing(error, source, tmp_path, monkeypatch):
    """It would be gigabytes, perhaps on a full disk."""

    def cut_off(folder, tensors):
        folder.mkdir(parents=True)
        raise error

    monkeypatch.setattr(checkpoint, "write", cut_off)
    with pytest.raises((KeyboardInterrupt, RunError), match="^$|No space left") as raised:
        quantised.cached(source, tmp_path, torch.bfloat16, nf4.FORM)
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) in str(raised.value) or isinstance(error, KeyboardInterrupt)


def test_a_process_that_was_faster_is_as_good(tmp_path):
    with files.draft(tmp_path / "model", taken="keep") as draft:
        for folder in (draft, tmp_path / "model"):
            folder.mkdir()
            (folder / "weights").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_without_weights_or_config_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no model.*safetensors"):
        quantised.cached(tmp_path, tmp_path / "cache", torch.bfloat16, nf4.FORM)
    with pytest.raises(RecipeError, match="no config.json"):
        quantised.is_quantised(tmp_path)


@pytest.mark.parametrize(
    "kind, nested, expected", [("nf4", True, "nf4, double"), ("fp4", False, "fp4, single")]
)
def test_quantisation_is_read_from_the_state_of_the_weights(kind, nested, expected):
    layer = bitsandbytes.nn.Linear4bit(64, 64, quant_type=kind, compress_statistics=nested)
    assert quantisation(layer.to("cpu")) == expected
    assert quantisation(SimpleNamespace(parameters=lambda: [torch.zeros(1)])) == "none"


def test_a_cold_start_in_whole_weights_goes_on_in_4_bits(small, tmp_path):
    """As far as bitsandbytes goes on a CPU: no backward pass there for layers with a bias."""
    loaded = recipe.load(small).recipe
    plan = planning.make(loaded, planning.Target.here(None, 1), base_dir=tmp_path)
    preset = plan.preset.model_copy(update={"load_in_4bit": True})
    backend = TrlBackend(plan.model_copy(update={"preset": preset}), offline=True)
    splits = data.load(loaded, tmp_path)
    rows = demonstrations.make(loaded, tmp_path, 12 * 16, held_out=splits.held_out)
    base = tmp_path / "base"
    backend.cold_start(rows, base, None, tmp_path / "cold-start", None, Hooks())
    assert not quantised.is_quantised(base)
    backend.load(base, None)
    assert quantisation(backend.model) == "nf4, double"
    trained = {p.dtype for p in backend.model.parameters() if p.requires_grad}
    assert trained == {torch.float32}
    prompts = [row["prompt"] for row in splits.held_out]
    assert len(backend.generate(prompts, 1, True, True, Hooks())) == len(prompts)


def test_float16_trains_whole_weights_in_float32(source, small, tmp_path):
    """The gradients of float16 weights cannot be unscaled; the adapter's weights are float32."""
    text = small.read_text().replace('"builtin:tiny"', f'"{source}"')
    small.write_text(text)
    target = planning.Target.here(None, 1)
    plan = planning.make(recipe.load(small).recipe, target, base_dir=tmp_path)
    plan = plan.model_copy(update={"dtype": "float16"})
    assert load_base(plan, None, offline=True, is_trainable=True).dtype == torch.float32
    assert load_base(plan, None, offline=True).dtype == torch.float16

"""NF4 of a 16-bit folder on a CPU, and what the engine's weights say of themselves."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from r1recipes import data, planning, recipe
from r1recipes.data.splits import demonstrations
from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import files
from r1recipes.training.backends import builtin, nf4
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.backends.unsloth.differences import quantisation

bitsandbytes = pytest.importorskip("bitsandbytes")
HOOKS = Hooks(lambda done, total: None, lambda row, samples: None, print, lambda: False)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    builtin.build_model(1).to(torch.bfloat16).save_pretrained(folder)
    builtin.build_tokenizer().save_pretrained(folder)
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


def test_weights_that_a_repository_has_in_another_form_are_left_out(source, tmp_path):
    """Mistral's has all of them once more, under names that no loader of the rest knows."""
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    save_file(
        {"layers.0.attention.wq.weight": torch.zeros(2)}, tmp_path / "consolidated.safetensors"
    )
    index = (
        nf4.cached(tmp_path, tmp_path / "cache", torch.bfloat16) / "model.safetensors.index.json"
    )
    assert "layers.0.attention.wq.weight" not in json.loads(index.read_text())["weight_map"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_was_cut_off_is_not_left(error, source, tmp_path, monkeypatch):
    """Gigabytes of it, on a disk that is full."""

    def cut_off(folder, tensors):
        folder.mkdir(parents=True)
        raise error

    monkeypatch.setattr(nf4, "write", cut_off)
    with pytest.raises((KeyboardInterrupt, RunError), match="^$|No space left") as raised:
        nf4.cached(source, tmp_path, torch.bfloat16)
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


def test_a_cold_start_in_whole_weights_goes_on_in_4_bits(small, tmp_path):
    """As far as bitsandbytes goes on a CPU: no backward pass there for layers with a bias."""
    found = recipe.load(small).recipe
    made = planning.make(found, planning.Target.here(None, 1), base_dir=tmp_path)
    preset = made.preset.model_copy(update={"load_in_4bit": True})
    backend = TrlBackend(made.model_copy(update={"preset": preset}), offline=True)
    splits = data.load(found, tmp_path)
    rows = demonstrations(found, tmp_path, 12 * 16, held_out=splits.held_out)
    base = tmp_path / "base"
    backend.cold_start(rows, base, HOOKS)
    assert not nf4.is_quantised(base)
    backend.load(base, None)
    assert quantisation(backend.model) == "nf4, double"
    trained = {p.dtype for p in backend.model.parameters() if p.requires_grad}
    assert trained == {torch.float32}
    prompts = [row["prompt"] for row in splits.held_out]
    assert len(backend.generate(prompts, 1, True, True, HOOKS)) == len(prompts)


def test_float16_trains_whole_weights_in_float32(source, small, tmp_path):
    """The gradients of float16 weights cannot be unscaled; the adapter's weights are float32."""
    text = small.read_text().replace('"builtin:tiny"', f'"{source}"')
    small.write_text(text)
    made = planning.make(
        recipe.load(small).recipe, planning.Target.here(None, 1), base_dir=tmp_path
    )
    backend = TrlBackend(made.model_copy(update={"dtype": "float16"}), offline=True)
    assert backend.load_weights(None, trainable=True).dtype == torch.float32
    assert backend.load_weights(None).dtype == torch.float16

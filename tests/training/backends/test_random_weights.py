"""Random weights have the layout of the model's family: names, sizes and first values are those
that transformers makes, and what trains and generates with the model does so with them."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.planning import architectures, models
from r1recipes.planning.architectures.families import FAMILIES
from r1recipes.runs.reading import Row
from r1recipes.training.backends.unsloth import random_weights
from r1recipes.training.rehearsal import child
from tests.helpers import hint
from tests.training.test_rehearsal_worker import RECIPE

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 2048,
}
WIDE, BIASED = {"head_dim": 32}, {"attention_bias": True}
CONFIGS: dict[str, dict[str, Any]] = {kind: {"model_type": kind} | WIDE for kind in FAMILIES} | {
    "llama, biased": {"model_type": "llama", "mlp_bias": True} | BIASED,
    "qwen2": {"model_type": "qwen2", "head_dim": 16},
    "qwen3, biased": {"model_type": "qwen3", "tie_word_embeddings": True} | WIDE | BIASED,
    "phi3": {"model_type": "phi3"},
    "gemma2": {"model_type": "gemma2", "sliding_window": 32} | WIDE,
    "gemma3_text": {"model_type": "gemma3_text", "sliding_window": 32} | WIDE,
    "gemma3_text, every third": {"model_type": "gemma3_text", "sliding_window_pattern": 3} | WIDE,
    "olmo2": {"model_type": "olmo2"},
    "olmo3": {"model_type": "olmo3", "sliding_window": 32},
    "glm": {"model_type": "glm", "head_dim": 16} | BIASED,
    "glm, untied": {"model_type": "glm", "head_dim": 16, "attention_bias": False},
}
"""By family, some with other keys: shrunk models, and heads that are not hidden_size / heads."""


def config_of(name: str) -> dict[str, Any]:
    return SIZES | CONFIGS[name]


def written(name: str, folder: Path) -> tuple[dict[str, torch.Tensor], models.ModelShape]:
    """The random weights of a family, and the shape that the planner has for it."""
    shape = architectures.of_config(config_of(name), name).shape
    random_weights.write(
        shape, folder, load_in="16bit", dtype=torch.float32, config=config_of(name)
    )
    (file,) = folder.glob("*.safetensors")
    return load_file(file), shape


def made(config: dict[str, Any]) -> Any:
    """The model that transformers makes of a config.json."""
    kind = CONFIG_MAPPING[config["model_type"]]
    keys = {key: value for key, value in config.items() if key != "model_type"}
    return AutoModelForCausalLM.from_config(kind(**{"pad_token_id": 0} | keys))


@pytest.mark.parametrize("name", CONFIGS)
def test_names_sizes_and_first_norms_are_those_of_transformers(name, tmp_path):
    tensors, shape = written(name, tmp_path / "w")
    model = made(config_of(name))
    state = dict(model.named_parameters())  # tied weights once
    assert {key: t.shape for key, t in tensors.items()} == {k: p.shape for k, p in state.items()}
    assert sum(t.numel() for t in tensors.values()) == shape.parameters
    for key, tensor in tensors.items():
        if "norm" in key:
            assert torch.equal(tensor, state[key]), key
        else:
            assert tensor.std() == pytest.approx(random_weights.DEVIATION, rel=0.4), key
    types = getattr(model.config, "layer_types", None) or []
    if not FAMILIES[shape.family].windowed:
        assert shape.windowed_layers == types.count("sliding_attention")


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_every_tensor_and_generates(name, tmp_path):
    written(name, tmp_path / "w")
    assert AutoConfig.from_pretrained(tmp_path / "w").model_type == CONFIGS[name]["model_type"]
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "w", output_loading_info=True)
    model, info = loaded
    assert not any(info.values()), info
    assert type(model).__name__ == FAMILIES[CONFIGS[name]["model_type"]].architecture
    ids = torch.arange(2 * 40).reshape(2, 40) + 11
    out = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert out.shape == (2, 44) and out.max() < SIZES["vocab_size"]


def targets_of(name: str) -> list[str]:
    """The layers of a recipe's adapter that a family has."""
    merged = FAMILIES[CONFIGS[name]["model_type"]].merged.values()
    inside = {layer for layers in merged for layer in layers}
    every = recipe.load("tiny").recipe.lora.target_modules
    return [layer for layer in every if layer not in inside]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_adapter_has_the_layers_that_the_recipe_names_and_the_parameters_counted(name):
    shape, targets = architectures.of_config(config_of(name), name).shape, targets_of(name)
    adapted = get_peft_model(made(config_of(name)), LoraConfig(r=4, target_modules=targets))
    layers = {
        n.rpartition(".")[2] for n, part in adapted.named_modules() if hasattr(part, "lora_A")
    }
    assert layers == set(targets)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained == models.adapter_parameters(shape, 4, tuple(targets))


@pytest.mark.parametrize("name", models.MODELS)
def test_a_model_of_the_catalogue_has_the_layout_of_its_family(name):
    shape = models.MODELS[name]
    config = random_weights.config_of(shape)
    with torch.device("meta"):
        model = made({k: v for k, v in config.items() if k != "architectures"})
    expected = {key: tuple(p.shape) for key, p in model.named_parameters()}
    assert {key: size for key, size, _ in random_weights.layout(shape, config)} == expected
    types = getattr(model.config, "layer_types", None) or []
    assert types.count("sliding_attention") == shape.windowed_layers
    assert shape.window is None or model.config.sliding_window == shape.window


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_local_config_is_rehearsed_with_a_step_of_grpo(kind, tmp_path):
    """The worker of `rehearse`, through TRL on a CPU, on weights that it makes itself."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps(config_of(kind)))
    text = RECIPE.replace("own/own-0.1b", "./own")
    (tmp_path / "mine.toml").write_text(text)
    targets = f"lora.target_modules={targets_of(kind)}"
    loaded = recipe.load(str(tmp_path / "mine.toml"), [targets])
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)
    proofs: list[Row] = []
    weights, phase = tmp_path / "weights", multiprocessing.Value("i", 0)
    child.work(plan.model_dump_json(), weights, 1, (8,), None, phase, proofs.append)
    (proof,) = proofs
    assert proof.get("error") is None, proof
    assert proof["steps"] == 1 and proof["step_s"] > 0 and proof["mean_length"] > 1
    (made_once,) = weights.iterdir()
    assert made_once.name.startswith(f"{kind}-") and made_once.name.endswith("-float32")
    stored = json.loads((made_once / "config.json").read_text())
    assert stored["model_type"] == kind and stored["hidden_size"] == SIZES["hidden_size"]


@pytest.mark.parametrize(("kind", "layer"), [("phi3", "qkv_proj"), ("glm", "gate_up_proj")])
def test_layers_that_a_model_has_merged_are_refused_before_anything_is_loaded(
    kind, layer, tmp_path
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps(config_of(kind)))
    (tmp_path / "mine.toml").write_text(RECIPE.replace("own/own-0.1b", "./own"))
    loaded = recipe.load(str(tmp_path / "mine.toml"))
    with pytest.raises(PlanError, match=f"has one layer `{layer}` in place of") as refused:
        planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)
    flag = f"--set lora.target_modules={targets_of(kind)}" if kind == "glm" else "'gate_proj'"
    assert flag in hint(refused)

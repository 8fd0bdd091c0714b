"""Each family that the engine is said to serve trains beside it, on one NVIDIA card.

A rehearsal of a small model in the family's layout: Unsloth takes the engine's weights over, and an
adapter on them is trained and generated with. Limits: each family starts an engine, which takes a
minute or two; whether engine and training compute the same is not compared.
"""

import json
from typing import Any

import pytest

from r1recipes import recipe
from r1recipes.planning.architectures.families import FAMILIES
from tests.helpers import command

pytestmark = pytest.mark.gpu
SIZES: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
}
SERVED = [kind for kind, family in FAMILIES.items() if family.unshared is None]


@pytest.mark.parametrize("load_in", ["16bit", "4bit"])
@pytest.mark.parametrize("kind", SERVED)
def test_a_family_that_is_served_is_rehearsed(kind, load_in, tmp_path):
    (tmp_path / "own").mkdir()
    window = {"sliding_window": 256} if FAMILIES[kind].whole_every else {}
    config = {"model_type": kind} | SIZES | window
    if kind in ("phi3", "olmo3"):  # whose heads are hidden_size / heads
        del config["head_dim"]
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    text = recipe.find("llama3.1-8b").read_text()
    name = recipe.load("llama3.1-8b").recipe.model.name
    (tmp_path / "mine.toml").write_text(text.replace(f'"{name}"', '"./own"'))
    overrides = ["preset.prompts_per_step=2", f"preset.load_in={load_in}"]
    overrides += ["preset.max_seq_length=512", "preset.max_completion_length=256"]
    overrides += ["preset.per_device_train_batch_size=4", "preset.layers_not_recomputed=2"]
    if merged := FAMILIES[kind].merged:
        inside = {layer for layers in merged.values() for layer in layers}
        every = recipe.load("tiny").recipe.lora.target_modules
        overrides.append(f"lora.target_modules={[name for name in every if name not in inside]}")
    flags = [part for override in overrides for part in ("--set", override)]
    done = command(
        *("rehearse", "mine.toml", "--preset", "24GB", "--vram", "20", "--steps", "2", *flags),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    proof = json.loads(done.stdout)
    assert "error" not in proof and proof["steps"] == 2 and proof["kv_tokens"] > 0
    limit = proof["settings"]["max_completion_length"]
    assert proof["mean_length"] > 0.9 * limit

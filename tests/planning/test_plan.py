import json
from dataclasses import replace
from pathlib import Path

import pytest
import tomli

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import fit, plan
from r1recipes.recipe.schema import Model, Recipe
from tests.conftest import SMALL
from tests.helpers import hint


def card(gib: float, capability: float = 8.0) -> Gpu:
    return Gpu(0, "card", int(gib * GIB), int(gib * GIB), capability, "580")


def with_presets(*names: str, **changes) -> Recipe:
    data = tomli.loads(SMALL)
    cpu = data["preset"]["cpu"]
    del cpu["num_threads"]
    data["preset"] = {
        name: cpu | ({} if name == "cpu" else {"gpu_memory_utilization": 0.5}) | changes
        for name in names
    }
    return Recipe.model_validate(data)


def make(
    parsed: Recipe, tmp_path: Path, card: Gpu | None = None, preset: str | None = None
) -> planning.Plan:
    target = planning.Target.here(card, num_cores=2)
    return planning.make(parsed, target, base_dir=tmp_path, preset=preset)


@pytest.mark.parametrize(
    ("gib", "chosen"),
    # Memory as the drivers report it: RTX 4060 8, T4, L4, RTX 4090, A100-40, L40S, H100, H200.
    [
        (7.6, "8GB"),
        (14.74, "16GB"),
        (22.16, "24GB"),
        (23.64, "24GB"),
        (39.56, "24GB"),
        (44.5, "48GB"),
        (79.2, "80GB"),
        (139.8, "80GB"),
    ],
)
def test_the_largest_preset_that_the_card_holds_is_chosen(gib, chosen):
    parsed = with_presets("8GB", "16GB", "24GB", "48GB", "80GB")
    assert fit.choose_preset(parsed, card(gib), None) == chosen


def test_a_preset_can_be_asked_for(tmp_path):
    parsed = with_presets("cpu", "8GB")
    assert make(parsed, tmp_path, card(80), preset="cpu").device == "cpu"
    with pytest.raises(PlanError, match="no preset `9GB`"):
        make(parsed, tmp_path, preset="9GB")
    with pytest.raises(PlanError, match="needs an NVIDIA GPU"):
        make(parsed, tmp_path, preset="8GB")


def test_a_gpu_recipe_without_a_gpu_says_what_to_run(tmp_path):
    with pytest.raises(PlanError) as raised:
        make(with_presets("16GB", "24GB"), tmp_path)
    assert "16GB or more" in str(raised.value)
    assert "[preset.cpu]" in hint(raised) and "show tiny" in hint(raised)
    with pytest.raises(PlanError) as raised:
        make(recipe.load("phi4").recipe, tmp_path)
    assert "run tiny" in hint(raised)


def test_a_card_below_the_smallest_preset_is_refused(tmp_path):
    with pytest.raises(PlanError, match="smallest preset is 24GB"):
        make(with_presets("24GB"), tmp_path, card(14.7))


def test_a_card_that_others_fill_is_not_called_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed = recipe.load("phi4").recipe
    busy = replace(card(22.0), free_bytes=GIB)
    with pytest.raises(PlanError, match="does not fit") as raised:
        make(parsed, tmp_path, busy)
    assert hint(raised).startswith("end the other processes on the card")
    with pytest.raises(PlanError, match="does not fit") as raised:
        make(parsed, tmp_path, replace(busy, total_bytes=8 * GIB), preset="24GB")
    assert "other processes" not in hint(raised)


def test_a_card_below_every_preset_is_not_sent_back_to_the_same_recipe(tmp_path):
    for name, other in (("qwen2.5-1.5b", False), ("phi4", True)):
        with pytest.raises(PlanError, match="the smallest preset") as raised:
            make(recipe.load(name).recipe, tmp_path, card(5.8 if other else 3.9))
        assert ("run qwen2.5-1.5b" in hint(raised)) == other


def test_batch_arithmetic(tmp_path):
    parsed = with_presets(
        "cpu", prompts_per_step=6, num_generations=8, per_device_train_batch_size=16
    )
    resolved = make(parsed, tmp_path)
    assert resolved.completions_per_step == 48
    assert resolved.per_device_train_batch_size * resolved.gradient_accumulation_steps == 48
    assert resolved.batch_sentence() == (
        "6 prompts x 8 completions = 48 completions a step, in 3 passes of 16"
    )


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [("cpu", 9.0, "float32"), ("cuda", 7.5, "float16"), ("cuda", 8.0, "bfloat16")],
)
def test_dtype_follows_the_compute_capability(device, capability, dtype):
    assert plan.choose_dtype(device, card(16, capability)) == dtype


def test_a_card_that_vllm_has_no_kernels_for(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed = with_presets("16GB")
    assert make(parsed, tmp_path, card(16, 7.5)).dtype == "float16"
    with pytest.raises(PlanError, match="compute capability 7.0; vLLM needs 7.5"):
        make(parsed, tmp_path, card(16, 7.0))


def test_a_cold_start_and_a_4_bit_preset_go_together_where_all_weights_can_be_trained(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed = with_presets("16GB", load_in_4bit=True)
    assert make(parsed, tmp_path, card(16)).preset.load_in_4bit
    large = parsed.model_copy(update={"model": Model(name="unsloth/Qwen2.5-1.5B-Instruct")})
    assert make(large, tmp_path, card(16)).dtype == "bfloat16"  # 4 x 2 bytes a weight
    with pytest.raises(PlanError, match=r"more than 23.0 GiB, and card has 16.0"):
        make(large, tmp_path, card(16, 7.5))  # 4 x 4, for want of bfloat16


def test_a_checkpoint_in_4_bits_cannot_be_cold_started(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed = with_presets("16GB", load_in_4bit=True)
    (tmp_path / "model").mkdir()
    config = {"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 1}
    config |= {"intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64}
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    local = parsed.model_copy(update={"model": Model(name="model")})
    with pytest.raises(PlanError, match="trains all weights, and those of `model` are stored in 4"):
        make(local, tmp_path, card(16))


def test_8bit_optimisers_need_a_gpu(tmp_path):
    data = tomli.loads(SMALL)
    data["train"]["optim"] = "paged_adamw_8bit"
    with pytest.raises(PlanError, match="needs an NVIDIA GPU"):
        make(Recipe.model_validate(data), tmp_path)


def test_a_plan_survives_json(tmp_path):
    resolved = make(with_presets("cpu"), tmp_path)
    assert planning.Plan.model_validate_json(resolved.model_dump_json()) == resolved


def test_a_plan_that_does_not_fit_is_refused_here_and_told_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed, small = recipe.load("phi4").recipe, card(7.6)
    there = planning.make(
        parsed, planning.Target.elsewhere(small), base_dir=tmp_path, preset="24GB"
    )
    assert there.predicted is not None and there.predicted.verdict == "does not fit"
    with pytest.raises(planning.DoesNotFit, match="the recipe does not fit: ") as raised:
        make(parsed, tmp_path, small, "24GB")
    assert raised.value.predicted == there.predicted
    assert raised.value.plan.preset == there.preset


@pytest.mark.parametrize(
    ("name", "capability", "dtype", "reason"),
    [
        ("qwen2.5-1.5b", 9.0, "fp8", "keys of this model have a bias"),
        ("llama3.1-8b", 8.6, "fp8", "compute capability 8.6, and fp8 needs 8.9"),
        ("llama3.1-8b", 8.9, "fp8", None),
        ("qwen2.5-1.5b", 8.6, "int8_per_token_head", None),
        ("qwen2.5-1.5b", 7.5, "int8_per_token_head", None),
    ],
)
def test_a_kv_cache_in_8_bits_is_refused_where_it_loses_the_keys(name, capability, dtype, reason):
    """Or where the card has no such arithmetic; with scales, it is for every card."""
    overrides = ["preset.load_in_4bit=true", f"preset.kv_cache_dtype={dtype}"]
    loaded = recipe.load(name, overrides)
    target = planning.Target.elsewhere(card(24, capability))
    if reason is None:
        made = planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset="24GB")
        assert made.preset.kv_cache_dtype == dtype
        return
    with pytest.raises(PlanError, match=reason) as refused:
        planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset="24GB")
    assert "int8_per_token_head" in (refused.value.problems[0].hint or "")

"""What FP8 weights cannot be loaded with is refused by name, by every command, before anything is
loaded; and so are rollouts with the adapter in weights that are not in 16 bits."""

import json

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.machine import packages
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import plan
from r1recipes.planning.fit import refusals
from tests.driver import MIB, FakeCard
from tests.helpers import hint, in_process

A10 = FakeCard("NVIDIA A10G", capability=(8, 6))
FP8 = "preset.load_in=fp8"


def card(capability: float = 8.9, gib: float = 23.64) -> Gpu:
    return Gpu(0, "card", int(gib * GIB), int(gib * GIB), capability, "580")


def make(name: str, card: Gpu, *overrides: str, is_here: bool = False) -> planning.Plan:
    loaded = recipe.load(name, list(overrides))
    there = planning.Target.elsewhere(card)
    target = planning.Target.here(card, 1) if is_here else there
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent)


@pytest.mark.parametrize("capability", [8.9, 9.0, 10.0, 12.0])
def test_cards_that_compute_in_fp8_get_it(capability):
    made = make("llama3.1-8b", card(capability), FP8)
    assert made.preset.weights == "fp8" and made.preset_name == "24GB"


@pytest.mark.parametrize("capability", [7.5, 8.0, 8.6])
def test_older_cards_are_refused(capability):
    with pytest.raises(PlanError, match=f"capability {capability}, and FP8 needs 8.9") as refused:
        make("llama3.1-8b", card(capability), FP8)
    assert "--set preset.load_in=4bit" in hint(refused)


def test_plain_trl_is_refused(monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: False)
    with pytest.raises(PlanError, match="FP8 weights need Unsloth and vLLM"):
        make("llama3.1-8b", card(), FP8, is_here=True)


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({"vllm": "0.11.2"}, "vllm 0.26 or newer, and 0.11.2 is installed"),
        ({"torch": "2.8.0"}, "torch 2.9 or newer, and 2.8.0 is installed"),
        ({"unsloth_zoo": "2026.9.1"}, "unsloth_zoo 2026.10.7 or newer, and 2026.9.1 is"),
        ({"vllm": "0.26.0", "torch": "2.11.0+cu130", "unsloth_zoo": "2026.10.7"}, None),
        ({"vllm": "a build of ours"}, None),
        ({}, None),
    ],
)
def test_old_packages_of_this_machine_are_refused(versions, reason, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    monkeypatch.setattr(packages, "version", versions.get)
    assert make("llama3.1-8b", card(), FP8).preset.weights == "fp8"  # of another machine
    if reason is None:
        assert make("llama3.1-8b", card(), FP8, is_here=True).preset.weights == "fp8"
        return
    with pytest.raises(PlanError, match=reason) as refused:
        make("llama3.1-8b", card(), FP8, is_here=True)
    assert "r1recipes doctor" in hint(refused)


@pytest.mark.parametrize("load_in", ["fp8", "4bit", "16bit"])
def test_the_adapter_is_added_to_16_bit_weights_alone(load_in, monkeypatch):
    monkeypatch.setenv(refusals.MERGED_ROLLOUT, "1")
    override = f"preset.load_in={load_in}"
    if load_in == "16bit":
        assert make("qwen2.5-1.5b", card(), override).preset.weights == "16bit"
        return
    with pytest.raises(PlanError, match=f'`load_in = "{load_in}"`: UNSLOTH_VLLM_MERGED') as refused:
        make("qwen2.5-1.5b", card(), override)
    assert "unset UNSLOTH_VLLM_MERGED_ROLLOUT" in hint(refused)


def test_weights_in_4_bits_are_not_made_fp8():
    with pytest.raises(PlanError, match="stored in 4 bits, and the preset asks for FP8"):
        make("llama3.1-8b", card(), FP8, "model.name=unsloth/Meta-Llama-3.1-8B-bnb-4bit")


def local_model(folder, **changes: object) -> str:
    config: dict[str, object] = {"model_type": "llama", "hidden_size": 256, "vocab_size": 64}
    config |= {"intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return f"model.name={folder}"


def test_layers_that_no_kernel_takes_are_refused(tmp_path):
    assert make("llama3.1-8b", card(), FP8, local_model(tmp_path)).preset.weights == "fp8"
    odd = local_model(tmp_path, intermediate_size=520)
    with pytest.raises(PlanError, match="`gate_proj` .* has 256 inputs and 520 outputs, and FP8"):
        make("llama3.1-8b", card(), FP8, odd)


@pytest.mark.parametrize("method", ["compressed-tensors", "fp8", "fbgemm_fp8"])
def test_a_model_that_is_stored_in_fp8_is_refused_with_the_way_to_it(method, tmp_path):
    name = local_model(tmp_path, quantization_config={"quant_method": method})
    with pytest.raises(PlanError, match=f"quantised with {method}, which cannot be") as refused:
        make("llama3.1-8b", card(), name)
    assert 'with `load_in = "fp8"` it is quantised here' in hint(refused)


@pytest.mark.parametrize("arguments", [("run",), ("check",), ("doctor",)])
def test_every_command_refuses_a_card_of_this_machine(arguments, driver, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    driver.says(A10)
    text = recipe.find("llama3.1-8b").read_text().replace('"4bit"', '"fp8"')
    (tmp_path / "mine.toml").write_text(text)
    code, out, error = in_process(*arguments, "mine.toml")
    assert code == 2
    assert "A10G has compute capability 8.6, and FP8 needs 8.9" in out + error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_plan_refuses_a_card_of_any_machine():
    code, _, error = in_process("plan", "phi4", "--gpu", "rtx 3090", "--set", FP8)
    assert code == 2 and "RTX 3090 24GB has compute capability 8.6, and FP8 needs 8.9" in error


def test_check_says_nothing_of_a_card_without_fp8_where_no_preset_for_it_needs_it(
    driver, monkeypatch
):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    driver.says(A10)
    assert in_process("check", "phi4", "--set", "preset.48GB.load_in=fp8")[0] == 0
    driver.says(FakeCard("NVIDIA L40S", 45000 * MIB))
    assert in_process("check", "phi4", "--set", "preset.48GB.load_in=fp8")[0] == 0


@pytest.mark.parametrize("kind", ["ministral", "olmo2", "smollm3", "glm"])
def test_a_family_whose_weights_the_engine_cannot_share_is_refused_on_a_card(kind, tmp_path):
    name = local_model(tmp_path, model_type=kind)
    attention = "lora.target_modules=['q_proj','o_proj']"
    with pytest.raises(PlanError, match=rf"\({kind}\) cannot be trained beside vLLM: ") as refused:
        make("llama3.1-8b", card(), name, attention)
    assert "plain TRL trains this one" in hint(refused)
    loaded = recipe.load("llama3.1-8b", [name, attention])
    note = refusals.check_model(loaded.recipe, tmp_path, offline=True)
    assert note and "trains with plain TRL alone" in note


@pytest.mark.parametrize("kind", ["ministral", "smollm3"])
def test_plain_trl_takes_it(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: False)
    name = local_model(tmp_path, model_type=kind)
    made = make("llama3.1-8b", card(), name, "preset.standby=false", is_here=True)
    assert made.backend == "trl"
    loaded = recipe.load("tiny", [name])
    on_cpu = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)
    assert on_cpu.backend == "trl" and on_cpu.device == "cpu"


@pytest.mark.parametrize("kind", ["llama", "qwen3", "ministral3", "granite", "olmo3", "gemma"])
def test_the_others_are_planned_in_float16_too(kind, tmp_path):
    name = local_model(tmp_path, model_type=kind, head_dim=64)
    assert make("llama3.1-8b", card(7.5), name).predicted is not None


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_a_family_that_vllm_refuses_in_float16_needs_bfloat16(kind, tmp_path):
    name = local_model(tmp_path, model_type=kind, head_dim=64)
    assert make("llama3.1-8b", card(8.0), name).predicted is not None
    with pytest.raises(PlanError, match=rf"\({kind}\) needs bfloat16"):
        make("llama3.1-8b", card(7.5), name)

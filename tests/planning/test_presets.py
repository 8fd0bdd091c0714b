"""Presets of a new recipe: for the cards that were asked for, and from the model's own shape."""

import json
import tomllib
from pathlib import Path

import pytest

from r1recipes import planning, recipe
from r1recipes.algorithms.base import preset_bytes
from r1recipes.machine import cards, gpu
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import proofs
from r1recipes.planning.fit import presets
from tests.configs import LLAMA, QWEN
from tests.driver import FakeCard
from tests.helpers import in_process


@pytest.fixture
def no_card(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "current", lambda: None)
    monkeypatch.chdir(tmp_path)


def folder(name: str, config: dict) -> str:
    Path(name).mkdir()
    (Path(name) / "config.json").write_text(json.dumps(config))
    return name


def new(*arguments: str) -> tuple[dict, str, str]:
    code, out, err = in_process("new", "new.toml", *arguments)
    assert code == 0, err
    text = Path("new.toml").read_text()
    return tomllib.loads(text), text, out + err


@pytest.mark.parametrize(
    ("name", "config", "base"),
    [
        ("mine", QWEN, "qwen2.5-1.5b"),
        ("qwen-7b", QWEN, "qwen2.5-1.5b"),  # what it is counts, not its name
        ("mine", LLAMA, "llama3.1-8b"),
        ("mine", LLAMA | {"model_type": "mistral"}, "mistral-7b"),
    ],
)
def test_a_folder_is_near_what_its_config_says(name, config, base, no_card):
    _, _, said = new("--model", folder(name, config))
    assert f"from {base}.toml" in said


def test_a_model_without_the_layers_that_an_adapter_has_is_refused(no_card):
    mine = folder("mine", LLAMA | {"model_type": "phi3"})
    code, _, err = in_process("new", "new.toml", "--model", mine)
    assert code == 2 and not Path("new.toml").exists()
    assert "`mine` (phi3) has one layer `qkv_proj` in place of q_proj, k_proj, v_proj" in err


@pytest.mark.parametrize("config", [QWEN, LLAMA])
def test_every_preset_fits_its_cards_with_this_model(config, no_card, tmp_path):
    made, text, _ = new("--model", folder("mine", config))
    loaded = recipe.load(tmp_path / "new.toml")
    assert set(made["preset"]) & {"16GB", "24GB", "48GB", "80GB"}
    for name in made["preset"]:
        size = proofs.class_bytes(name) or preset_bytes(name)
        target = planning.Target.elsewhere(Gpu(0, name, size, size, 8.0, ""))
        resolved = planning.make(loaded.recipe, target, base_dir=tmp_path, preset=name)
        assert resolved.predicted is not None and resolved.predicted.verdict == "fits"
    assert text.count("not measured: peak") == len(made["preset"])


def test_a_model_of_half_a_billion_is_not_given_the_passes_of_seven(no_card):
    small, _, _ = new("--model", folder("half", QWEN))
    Path("new.toml").unlink()
    large, _, _ = new("--model", folder("eight", LLAMA))
    key = "per_device_train_batch_size"
    assert small["preset"]["24GB"][key] > large["preset"]["24GB"][key]
    assert "8GB" in small["preset"] and "8GB" not in large["preset"]


def test_the_cards_that_are_asked_for_have_presets(no_card):
    cards_asked = ["--gpu", "rtx 3060 12gb", "--gpu", "4090"]
    made, text, _ = new("--model", folder("mine", QWEN), *cards_asked)
    assert set(made["preset"]) == {"12GB", "24GB"}
    assert "Predicted for RTX 3060 12GB" in " ".join(text.split())


def test_a_card_that_is_too_small_is_said(no_card):
    made, _, said = new("--model", folder("mine", LLAMA), "--gpu", "gtx 1650", "--gpu", "4090")
    assert set(made["preset"]) == {"24GB"} and "no preset for GTX 1650 4GB: " in said
    code, _, err = in_process("new", "b.toml", "--model", "mine", "--gpu", "gtx 1650")
    assert code == 2 and "fits none of these cards" in err and not Path("b.toml").exists()
    code, _, err = in_process("new", "b.toml", "--model", "mine", "--gpu", "3060")
    assert code == 2 and "several sizes" in err


def test_the_card_at_hand_has_one(driver, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    driver.says(FakeCard())  # an L4
    assert set(new("--model", folder("mine", QWEN))[0]["preset"]) == {"24GB"}


def test_measured_presets_of_the_same_model_stay(no_card, tmp_path):
    made, text, _ = new("--model", "Qwen/Qwen2.5-1.5B-Instruct")
    shipped = recipe.load("qwen2.5-1.5b").recipe.preset
    assert set(made["preset"]) == set(shipped) and "not measured" not in text
    Path("new.toml").unlink()
    made, text, _ = new("--model", "Qwen/Qwen2.5-1.5B-Instruct", "--gpu", "4090", "--gpu", "5080")
    assert recipe.load(tmp_path / "new.toml").recipe.preset["24GB"] == shipped["24GB"]
    assert "not measured" not in text


@pytest.mark.parametrize(("model", "has_cpu"), [("HuggingFaceTB/SmolLM2-135M", True), ("x", False)])
def test_a_small_model_has_a_preset_for_the_cpu(model, has_cpu, no_card, tmp_path):
    made, _, _ = new("--model", folder("x", QWEN) if model == "x" else model)
    assert ("cpu" in made["preset"]) == has_cpu
    if has_cpu:
        loaded = recipe.load(tmp_path / "new.toml")
        target = planning.Target.here(None, 1)
        assert planning.make(loaded.recipe, target, base_dir=tmp_path).preset_name == "cpu"


def test_an_unknown_model_is_said_to_be_unknown(no_card):
    made, _, said = new("--model", "nobody/nothing-3B")
    assert "warning: `nobody/nothing-3B` is unknown here" in said and "may not fit" in said
    assert set(made["preset"]) == set(recipe.load("qwen3-4b").recipe.preset)


def test_a_file_that_exists_is_refused_before_anything_else_is_said(no_card, tmp_path):
    Path("new.toml").write_text("mine")
    code, out, err = in_process("new", "new.toml", "--model", "nobody/nothing-3B")
    assert (code, out) == (2, "") and "`new.toml` exists" in err and "unknown here" not in err
    assert Path("new.toml").read_text() == "mine"


def test_algorithms_without_the_engine_keep_the_bases_presets(no_card):
    made, _, _ = new("--model", folder("mine", QWEN), "--algorithm", "ppo")
    assert set(made["preset"]) == set(recipe.load("qwen2.5-1.5b").recipe.preset)


def test_there_is_a_card_of_every_class():
    assert [card.name.rpartition(" ")[2] for card in presets.smallest_cards()] == list(
        presets.CLASSES
    )
    assert all(cards.size_class(c.total_bytes) in c.name for c in presets.smallest_cards())

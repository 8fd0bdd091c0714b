"""FP8 weights in the predictions of memory and time, which are derived and were not measured."""

from dataclasses import replace

import pytest

from r1recipes import planning, recipe
from r1recipes.algorithms.base import LoadIn
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import auto, disk, fit, models, out_of_memory, speed
from r1recipes.planning.memory import constants, engine, predict
from r1recipes.planning.memory.case import Case
from tests.helpers import in_process, shape
from tests.planning.memory.test_predict import case

CARD = Gpu(0, "NVIDIA GeForce RTX 4090", int(23.64 * GIB), int(23.64 * GIB), 8.9, "580")


def made(name: str, load_in: LoadIn, *overrides: str) -> planning.Plan:
    loaded = recipe.load(name, [f"preset.load_in={load_in}", *overrides])
    target = planning.Target.elsewhere(CARD)
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset="24GB")


@pytest.mark.parametrize(("name", "gib"), [("llama-3.1-8b", 8.46), ("phi-4", 14.6)])
def test_a_byte_for_each_weight_of_a_linear_layer_and_a_scale_for_each_channel(name, gib):
    model = models.MODELS[name]
    rest = 2 * (model.embedding_parameters + model.small_parameters)
    channels = model.num_hidden_layers * sum(n for _, n in model.projections.values())
    size = models.weights_bytes(model, "fp8")
    assert size == model.linear_parameters + 4 * channels + rest
    assert size / GIB == pytest.approx(gib, rel=0.01)
    four, sixteen = (models.weights_bytes(model, load_in) for load_in in ("4bit", "16bit"))
    assert four < size < sixteen


def test_each_form_leaves_the_rest_of_the_share_to_the_cache():
    four, eight, sixteen = (
        predict.predict(case(load_in=load_in, engine_bytes=18 * GIB))
        for load_in in ("4bit", "fp8", "16bit")
    )
    assert four.kv_tokens > eight.kv_tokens > sixteen.kv_tokens > 0
    assert four.spare["load"] > eight.spare["load"] == sixteen.spare["load"] == 0
    matrix = models.MODELS["llama-3.1-8b"].hidden_size * 14336
    assert four.phases["generate"]["unpacked weight"] == 2 * matrix
    assert "unpacked weight" not in eight.phases["generate"]  # only while a pass needs it
    assert eight.phases["train"]["unpacked weight"] == 4 * matrix
    assert "unpacked weight" not in sixteen.phases["train"]


def test_unsloth_counts_a_quarter_more():
    """For weights in a folder with "fp8" in its name; by another it would count 16 bits."""
    model = models.MODELS["llama-3.1-8b"]
    rest = engine.sized_overhead(model, "fp8", 32) - 1.25 * model.linear_parameters
    assert rest == engine.sized_overhead(model, "16bit", 32) - 2 * model.linear_parameters
    assert engine.sized_overhead(model, "4bit", 32) < engine.sized_overhead(model, "fp8", 32)


def test_the_error_is_wider_and_the_plan_says_why():
    wide, narrow = (constants.CALIBRATED[name] for name in ("error_fp8", "error"))
    assert wide.status == "assumed" and wide.value > 2 * narrow.value
    fp8, four = made("llama3.1-8b", "fp8"), made("llama3.1-8b", "4bit")
    assert fp8.predicted and four.predicted
    assert (fp8.predicted.error, four.predicted.error) == (wide.value, narrow.value)
    tight = replace(case(load_in="fp8", engine_bytes=12 * GIB), standby=True)
    prediction = predict.predict(tight)
    size = round(1.06 * prediction.peak_bytes)
    assert predict.verdict(prediction, tight, size) == "tight"
    flags = ("plan", "llama3.1-8b", "--gpu", "rtx 4090", "--set")
    out = in_process(*flags, "preset.load_in=fp8")[1]
    assert "within 10%" in out and "FP8 weights, which were not measured" in out
    assert "not measured" not in in_process(*flags, "preset.load_in=4bit")[1]


@pytest.mark.parametrize(("name", "gpu"), [("llama3.1-8b", "RTX 4090 24GB"), ("phi4", "L40S 48GB")])
def test_it_is_planned_for_the_two_cards_that_it_is_for(name, gpu):
    listed = cards.GPUS[gpu]
    size = listed.usable_bytes
    card = Gpu(0, gpu, size, size, listed.compute_capability, "580")
    loaded = recipe.load(name, ["preset.load_in=fp8"])
    target = planning.Target.elsewhere(card)
    resolved = planning.make(loaded.recipe, target, base_dir=loaded.path.parent)
    assert resolved.predicted and resolved.predicted.verdict == "fits"
    assert resolved.preset == loaded.recipe.preset[resolved.preset_name]


def step(load_in: LoadIn, count: int = 64, **changes: object) -> speed.StepTime:
    settings = {"load_in": load_in, "num_seqs": count, "batch": 4}
    setting: Case = case(models.MODELS["llama-3.1-8b"], **settings | changes)
    peak = cards.GPUS["RTX 4090 24GB"].peak
    assert peak
    return speed.step(setting, count, 8, 10**6, peak)


def test_it_decodes_fastest_and_trains_no_faster_than_16_bits():
    four, eight, sixteen = (step(load_in) for load_in in ("4bit", "fp8", "16bit"))
    assert eight.generation_s < sixteen.generation_s < four.generation_s
    assert eight.training_s > sixteen.training_s
    traffic = 9 * models.MODELS["llama-3.1-8b"].linear_parameters * 16 / 1.008e12
    assert eight.training_s - sixteen.training_s == pytest.approx(traffic)


def test_auto_does_not_choose_it_and_a_hint_leads_away_from_it():
    parsed = recipe.load("llama3.1-8b").recipe
    preset = auto.with_open(parsed.preset["24GB"].with_weights("fp8"), auto.OPEN)
    model, room = shape(parsed.model.name), fit.room_of(CARD)
    chosen = {choice.preset.weights for choice in auto.choices(parsed, preset, model, room)}
    assert chosen == {"4bit", "16bit"} == set(auto.BY_ITSELF)
    small = fit.room_of(Gpu(0, "card", 10 * GIB, 10 * GIB, 8.9, ""))
    fp8 = parsed.preset["24GB"].with_weights("fp8")
    changes = auto.changes(parsed, fp8, model, small)
    assert changes and all(change["load_in"] == "4bit" for change in changes)
    assert "--set preset.load_in=4bit" in fit.flags(changes[0])


def test_out_of_memory_leads_to_4_bits():
    plan = made("llama3.1-8b", "fp8", "preset.gpu_memory_utilization=0.95")
    message = out_of_memory.NO_CACHE[0]
    assert out_of_memory.explain(message, "load", plan).change == "--set preset.load_in=4bit"


def test_disks_have_room_for_the_16_bit_weights_and_for_a_base_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    fp8, four = made("llama3.1-8b", "fp8"), made("llama3.1-8b", "4bit")
    model = models.MODELS["llama-3.1-8b"]
    downloads = [disk.needs(plan, model, tmp_path, offline=False)[1].size for plan in (fp8, four)]
    assert downloads == [models.weights_bytes(model, "16bit"), models.weights_bytes(model, "4bit")]


def test_the_run_folder_has_room_for_a_base_of_its_own_in_fp8():
    model = models.BUILTIN["builtin:small"]
    loaded = recipe.load("small")
    target = planning.Target.elsewhere(CARD)
    plan = planning.make(loaded.recipe, target, base_dir=loaded.path.parent)
    fp8 = plan.model_copy(update={"preset": plan.preset.with_weights("fp8")})
    more = disk.run_bytes(fp8, model) - disk.run_bytes(plan, model)
    assert more == models.weights_bytes(model, "fp8")

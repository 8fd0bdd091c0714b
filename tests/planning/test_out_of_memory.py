"""Kinds of out of memory, and the change that each is answered with."""

from dataclasses import replace

import pytest

from r1recipes import planning, recipe
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import disk, out_of_memory, proofs

CARD = Gpu(0, "NVIDIA T4", 14 * 2**30, 14 * 2**30, 8.0, "580.0")
CUDA = "OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB"

DEMOS = "cold_start.data='demonstrations.jsonl'"
HELD = "ValueError: Free memory on device cuda:0 (3.1/14.7 GiB) on startup is less than desired GPU"
HELD += " memory utilization (0.9, 13.3 GiB)."
CUBLAS = "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def made(*overrides: str, recipe_name="qwen2.5-1.5b", preset="8GB", card=CARD) -> planning.Plan:
    loaded = recipe.load(recipe_name, list(overrides))
    return planning.make(
        loaded.recipe,
        planning.Target.elsewhere(card),
        base_dir=loaded.path.parent,
        preset=preset,
    )


@pytest.mark.parametrize(
    ("message", "phase", "overrides", "kind", "change"),
    [
        (CUDA, "first step", [], "training pass", "per_device_train_batch_size=4"),
        (
            CUDA,
            "first step",
            ["preset.layers_not_recomputed=2"],
            "training pass",
            "layers_not_recomputed=0",
        ),
        (
            CUDA,
            "steps",
            ["preset.per_device_train_batch_size=1"],
            "grew after",
            "standby=true",
        ),
        (CUDA, "load", [], "when it was loaded", "gpu_memory_utilization=0.4"),
        (HELD, "load", [], "held by other processes", "nvidia-smi"),
        (CUBLAS, "steps", [], "grew after", "per_device_train_batch_size=4"),
        (
            CUDA,
            "cold start",
            ["cold_start.steps=9", DEMOS],
            "cold start",
            "cold_start.batch_size=32",
        ),
        (
            CUDA,
            "cold start",
            ["cold_start.steps=9", DEMOS, "cold_start.batch_size=1"],
            "cold start",
            "max_seq_length=640",
        ),
        ("CUDA out of memory while warming up sampler with 256 dummy requests", "steps")
        + ([], "when it was loaded", "gpu_memory_utilization=0.4"),
        ("CUDA Error: out of memory at cumem_allocator.cpp:119", "steps")
        + ([], "when it woke", "gpu_memory_utilization=0.4"),
        ("CUDA Error: out of memory at cumem_allocator.cpp:119", "load")
        + ([], "when it was loaded", "gpu_memory_utilization=0.4"),
        (CUDA, "generate", [], "while it generated", "gpu_memory_utilization=0.4"),
        (out_of_memory.NO_CACHE[0], "load", [], "no KV cache", "gpu_memory_utilization=0.6"),
        (
            out_of_memory.NO_CACHE[1],
            "load",
            ["preset.gpu_memory_utilization=0.95"],
            "no KV cache",
            "max_completion_length=384",
        ),
    ],
)
def test_each_kind_is_named_with_one_change(message, phase, overrides, kind, change):
    assert out_of_memory.is_out_of_memory(message)
    answer = out_of_memory.explain(message, phase, made(*overrides))
    assert kind in answer.kind
    assert change in answer.change


@pytest.mark.parametrize("preset", ["16GB", "24GB", "48GB"])
def test_the_engines_share_stays_where_it_holds_a_sequence(preset):
    """No pair of changes that each bring back what the other one answered."""
    size = proofs.class_bytes(preset)
    assert size is not None
    card = replace(CARD, total_bytes=size)
    asked = made(recipe_name="phi4", preset=preset, card=card)
    for message in (CUDA, out_of_memory.NO_CACHE[0]):
        change = out_of_memory.explain(message, "load", asked).change
        overrides = [part for part in change.split() if part != "--set"]
        changed = made(*overrides, recipe_name="phi4", preset=preset, card=card)
        assert changed.preset != asked.preset
        assert changed.predicted is not None and changed.predicted.lacking_bytes == 0


@pytest.mark.parametrize("phase", ["load", "generate", "first step", "steps"])
def test_without_an_engine_its_share_and_standby_mend_nothing(phase):
    card = replace(CARD, total_bytes=23 * 2**30)
    asked = made("preset.per_device_train_batch_size=1", preset="24GB", card=card)
    plain = asked.model_copy(update={"backend": "trl"})
    answer = out_of_memory.explain(CUDA, phase, plain)
    assert answer.change == "--set preset.load_in=4bit" and "engine" not in answer.kind


@pytest.mark.parametrize("phase", ["load", "generate", "first step", "steps"])
@pytest.mark.parametrize("message", [CUDA, *out_of_memory.NO_CACHE])
def test_a_share_that_the_preset_does_not_have_is_not_changed(phase, message):
    """No share is made up to be raised or lowered."""
    asked = made("preset.per_device_train_batch_size=1", "preset.standby=true")
    preset = asked.preset.model_copy(update={"gpu_memory_utilization": None})
    answer = out_of_memory.explain(message, phase, asked.model_copy(update={"preset": preset}))
    assert "gpu_memory_utilization" not in answer.change and answer.change.startswith("--set ")


@pytest.mark.parametrize(("share", "change"), [(0.6, "=0.5"), (0.35, "=0.3"), (0.3, "in=4bit")])
def test_of_a_model_of_unknown_shape_the_share_is_not_lowered_for_ever(monkeypatch, share, change):
    monkeypatch.setattr(disk, "shape_of", lambda *_, **__: None)
    asked = made("preset.load_in_4bit=false", f"preset.gpu_memory_utilization={share}")
    assert change in out_of_memory.explain(CUDA, "load", asked).change


def test_what_unsloth_says_before_the_cause_does_not_hide_it():
    advice = "Unsloth: Your GPU ran out of memory loading vLLM with standby mode enabled.\nTry:\n"
    line = out_of_memory.telling_line(f"{advice}Original error: {out_of_memory.NO_CACHE[0]}.")
    assert "no KV cache" in out_of_memory.explain(line, "load", made()).kind
    assert (
        out_of_memory.telling_line(CUDA + "\nmore") == CUDA and out_of_memory.telling_line("") == ""
    )


def test_memory_that_others_gave_back_is_not_out_of_memory():
    race = (
        "Unsloth: vLLM could not finish memory profiling ...\nThis is a transient race on a shared"
    )
    assert not out_of_memory.is_out_of_memory(
        f"{race} GPU, NOT an out of memory error. Free VRAM went up"
    )


def test_the_change_is_one_that_the_recipe_takes():
    answer = out_of_memory.explain(CUDA, "first step", made())
    changed = made(answer.change.removeprefix("--set "))
    assert changed.per_device_train_batch_size == 4


def test_other_errors_are_none():
    assert not out_of_memory.is_out_of_memory("ValueError: bad shape")

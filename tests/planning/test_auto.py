"""What the planner chooses and proposes: each choice is judged by the same arithmetic."""

from dataclasses import replace

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import auto, fit, models, plan, speed
from r1recipes.planning.auto import Room
from r1recipes.planning.memory.case import ADAM_8BIT_BYTES, Case
from tests.helpers import hint, shape


def room(gib: float, name: str = "H100 80GB") -> Room:
    return Room(int(gib * GIB), int(gib * GIB), cards.GPUS[name].peak or cards.UNLISTED)


def card(gib: float, free: float | None = None) -> Gpu:
    return Gpu(0, "card", int(gib * GIB), int((free or gib) * GIB), 8.0, "")


def preset_of(name: str, preset: str, **changes):
    parsed = recipe.load(name).recipe
    return parsed, parsed.preset[preset].model_copy(update=changes)


@pytest.mark.parametrize("gib", [11, 14.74, 22, 40, 79])
def test_auto_takes_the_fastest_that_fits(gib):
    parsed, preset = preset_of("qwen2.5-7b", "24GB", **dict.fromkeys(auto.OPEN, "auto"))
    model_shape = shape(parsed.model.name)
    chosen = auto.resolve(parsed, preset, model_shape, room(gib))
    assert not auto.open_keys(chosen.preset) and chosen.verdict == "fits"
    for other in auto.choices(parsed, preset, model_shape, room(gib)):
        assert other.verdict != "fits" or auto.NEAR * other.completion_s >= chosen.completion_s


def test_a_share_that_fits_is_found_also_below_a_step_of_the_ladder():
    """In standby the training pass stays beside the engine's pass, which grows by steps."""
    lengths = {"max_seq_length": 4064, "max_completion_length": 4000}
    parsed, preset = preset_of("phi4", "16GB", **lengths, gpu_memory_utilization="auto")
    model_shape, shares = shape(parsed.model.name), [n / 100 for n in range(40, 96)]
    for tenths in range(130, 240, 2):
        for batch in (2, 4, 8):
            opened = preset.model_copy(update={"per_device_train_batch_size": batch})
            presets = [opened.model_copy(update={"gpu_memory_utilization": n}) for n in shares]
            each = (next(auto.choices(parsed, p, model_shape, room(tenths / 10))) for p in presets)
            fits = any(choice.verdict == "fits" for choice in each)
            chosen = auto.resolve(parsed, opened, model_shape, room(tenths / 10))
            assert (chosen.verdict == "fits") == fits, (tenths, batch)


def test_layers_are_not_recomputed_where_there_is_room_and_time_to_gain():
    parsed, preset = preset_of("qwen2.5-1.5b", "80GB", **dict.fromkeys(auto.OPEN, "auto"))
    model_shape = shape(parsed.model.name)
    chosen = [auto.resolve(parsed, preset, model_shape, room(gib)) for gib in (7.6, 22, 79)]
    layers = [choice.preset.layers_not_recomputed for choice in chosen]
    assert layers == sorted(layers) and layers[-1] == model_shape.num_hidden_layers > layers[0]
    recomputed = chosen[-1].preset.model_copy(update={"layers_not_recomputed": 0})
    slower = next(auto.choices(parsed, recomputed, model_shape, room(79)))
    assert slower.completion_s > 1.05 * chosen[-1].completion_s


def test_a_preset_that_stores_too_much_is_told_to_store_less():
    changes = {"layers_not_recomputed": 28, "per_device_train_batch_size": 16}
    parsed, preset = preset_of("qwen2.5-1.5b", "80GB", **changes)
    best = auto.changes(parsed, preset, shape(parsed.model.name), room(30))
    assert any(change.keys() == {"layers_not_recomputed"} for change in best)
    parsed, preset = preset_of("qwen2.5-1.5b", "24GB")
    offered = auto.changes(parsed, preset, shape(parsed.model.name), room(14))
    assert offered and not any("layers_not_recomputed" in change for change in offered)


def test_auto_takes_16_bits_without_standby_where_there_is_room():
    parsed, preset = preset_of("qwen2.5-1.5b", "24GB", **dict.fromkeys(auto.OPEN, "auto"))
    chosen = auto.resolve(parsed, preset, shape(parsed.model.name), room(79)).preset
    assert not chosen.load_in_4bit and not chosen.standby


@pytest.mark.parametrize(
    ("name", "preset", "gib", "changes"),
    [
        ("phi4", "16GB", 14.74, {"per_device_train_batch_size": 24}),
        ("llama3.1-8b", "24GB", 12, {"gpu_memory_utilization": 0.8}),
        ("qwen2.5-7b", "48GB", 18, {}),
        ("phi4", "16GB", 14.74, {"max_seq_length": 9000, "max_completion_length": 8000}),
    ],
)
def test_what_is_proposed_fits(name, preset, gib, changes):
    parsed, changed = preset_of(name, preset, **changes)
    model_shape = shape(parsed.model.name)
    assert next(auto.choices(parsed, changed, model_shape, room(gib))).verdict == "does not fit"
    proposed = auto.changes(parsed, changed, model_shape, room(gib))
    assert 1 <= len(proposed) <= 3
    for change in proposed:
        fitting = type(changed).model_validate(changed.written() | change)
        assert next(auto.choices(parsed, fitting, model_shape, room(gib))).verdict == "fits", change


def test_fewer_prompts_are_proposed_before_shorter_completions():
    parsed, preset = preset_of("phi4", "16GB", prompts_per_step=1000, per_device_train_batch_size=2)
    model_shape = shape(parsed.model.name)
    (change,) = auto.changes(parsed, preset, model_shape, room(14.2))
    assert change["prompts_per_step"] < 1000 and "max_completion_length" not in change
    fits = next(auto.choices(parsed, preset.model_copy(update=change), model_shape, room(14.2)))
    assert fits.verdict == "fits"


def test_nothing_is_proposed_where_nothing_fits():
    parsed, preset = preset_of("phi4", "16GB")
    assert auto.changes(parsed, preset, shape(parsed.model.name), room(6)) == []


def test_a_plan_that_does_not_fit_is_refused_with_what_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed = recipe.load("phi4", ["preset.load_in_4bit=false"]).recipe
    with pytest.raises(PlanError, match=r"takes \d+\.\d GiB") as raised:
        planning.make(
            parsed, planning.Target.here(card(14.74), 1), base_dir=tmp_path, preset="24GB"
        )
    assert "--set preset." in hint(raised)


@pytest.mark.parametrize("standby", [False, True])
def test_what_is_in_excess_is_so_of_what_the_run_may_take(standby):
    """Without standby that is less than the card has; a sweep goes by the excess."""
    parsed, preset = preset_of("phi4", "24GB", standby=standby, gpu_memory_utilization=0.85)
    model_shape = shape(parsed.model.name)
    for hundredths in range(2000, 2400, 5):
        gpu = card(hundredths / 100)
        _, predicted = fit.fitted(parsed, preset, model_shape, gpu)
        assert (predicted.excess_bytes > 0) == (predicted.verdict == "does not fit")
        assert predicted.headroom_bytes >= 0 or predicted.verdict != "fits"
        assert predicted.room_bytes < gpu.total_bytes or standby


def test_memory_that_others_hold_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    parsed = recipe.load("qwen2.5-1.5b").recipe
    with pytest.raises(PlanError, match=r"and there are 2\.0"):
        planning.make(parsed, planning.Target.here(card(7.62, free=2), 1), base_dir=tmp_path)


def test_auto_is_resolved_in_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    keys = [f'preset.{key}="auto"' for key in auto.OPEN]
    parsed = recipe.load("llama3.1-8b", keys).recipe
    resolved = planning.make(parsed, planning.Target.here(card(22.16), 1), base_dir=tmp_path)
    assert not auto.open_keys(resolved.preset)
    predicted = resolved.predicted
    assert predicted is not None and predicted.verdict == "fits" and predicted.sequences >= 8
    assert planning.Plan.model_validate_json(resolved.model_dump_json()) == resolved


def test_auto_without_the_engine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: False)
    parsed = recipe.load("llama3.1-8b", ['preset.standby="auto"']).recipe
    with pytest.raises(PlanError, match='`standby = "auto"` needs Unsloth'):
        planning.make(parsed, planning.Target.here(card(22.16), 1), base_dir=tmp_path)


@pytest.mark.parametrize("name", [path.stem for path in recipe.shipped()])
def test_every_shipped_preset_fits_the_cards_that_it_is_named_for(name, tmp_path):
    parsed = recipe.load(name).recipe
    for preset in parsed.preset:
        sizes = [c.usable_bytes for c in cards.GPUS.values() if f"{c.sold_gb}GB" == preset]
        for size in sizes:
            gpu = Gpu(0, "card", size, size, 8.0, "")
            target = planning.Target.elsewhere(gpu)
            resolved = planning.make(parsed, target, base_dir=tmp_path, preset=preset)
            assert resolved.predicted is not None
            assert resolved.predicted.verdict == "fits", resolved.predicted.sentence()


def test_more_sequences_at_once_and_16_bits_are_faster():
    model_shape, peak = models.MODELS["qwen2.5-1.5b"], room(79).peak
    few = Case(
        *(model_shape, "4bit", 1024, 768, 32, tuple(model_shape.projections), 8, 8, 8 * GIB, False),
        optimizer_bytes=ADAM_8BIT_BYTES,
    )

    def per_completion(case, count):
        return speed.step(case, count, 8, 200_000, peak).step_s / count

    many = replace(few, num_seqs=64)
    assert per_completion(many, 64) < per_completion(few, 8) / 3
    assert per_completion(replace(few, load_in="16bit"), 8) < per_completion(few, 8)
    assert per_completion(replace(few, standby=True), 8) > per_completion(few, 8)

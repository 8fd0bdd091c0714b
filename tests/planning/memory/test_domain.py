"""Where the stated error was measured, and that elsewhere it is wider and called extrapolated."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.memory import measured
from r1recipes.machine.cards import GPUS
from r1recipes.planning import models
from r1recipes.planning.memory import domain, predict
from r1recipes.planning.memory.constants import CALIBRATED
from tests.helpers import in_process

POINTS = measured.load(Path(measured.__file__).parent / "points")
CASE = POINTS[0].case
STATED, BEYOND = CALIBRATED["error"].value, CALIBRATED["error_beyond"].value


@pytest.mark.parametrize("bounds", domain.BOUNDS, ids=lambda bounds: bounds.name)
def test_the_bounds_are_those_of_the_rehearsals(bounds):
    values = [bounds.of(point.case) for point in POINTS]
    assert (bounds.least, bounds.greatest) == (min(values), max(values))


@pytest.mark.parametrize(("text", "is_so"), domain.KINDS)
def test_a_kind_that_is_called_extrapolated_was_in_no_rehearsal(text, is_so):
    assert not any(is_so(point.case) for point in POINTS), text


def test_the_stated_error_holds_wherever_it_was_measured():
    for point in POINTS:
        assert domain.error(point.case) == STATED and not domain.reasons(point.case), point.name
        if not point.ran_out:
            expected = predict.expected_bytes(
                predict.predict(point.case), point.case, int(point.cap_bytes)
            )
            peak = max(expected.values())
            assert abs(peak / point.peak_bytes - 1) <= STATED, point.name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_seq_length": 110_000}, "sequences of 110,000 tokens, measured 512 to 4,096"),
        ({"max_seq_length": 128}, "sequences of 128 tokens"),
        ({"batch": 512}, "in a training pass"),
        ({"lora_rank": 256}, "rank 256, measured 8 to 64"),
        ({"num_seqs": 1}, "1 sequences at once"),
        ({"layers_not_recomputed": 64}, "64 layers that are not recomputed, measured 0 to 36"),
        ({"kv_cache_dtype": "fp8"}, "KV cache in 8 bits"),
        ({"samples": False}, "generate nothing"),
        ({"reference": True}, "scores of the base model"),
        ({"logit_bytes": 8.0}, "logits of a whole pass"),
        ({"shape": models.MODELS["smollm2-135m"]}, "0.1 billion parameters"),
        ({"shape": replace(CASE.shape, extra_parameters=257)}, "a family whose blocks"),
        ({"shape": replace(CASE.shape, capped_attention=True)}, "a family whose blocks"),
        ({"shape": replace(CASE.shape, fused_mlp=False)}, "a family whose blocks"),
        ({"shape": replace(CASE.shape, sliding_window=512)}, "a family whose blocks"),
    ],
)
def test_beyond_it_the_error_is_wider_with_the_reason(change, words):
    case = replace(CASE, **change)
    assert domain.error(case) == BEYOND > STATED
    assert words in "; ".join(domain.reasons(case))


def test_a_little_beyond_the_bounds_counts_as_measured():
    assert domain.error(replace(CASE, max_seq_length=4400)) == STATED
    assert domain.error(replace(CASE, max_seq_length=4600)) == BEYOND


@pytest.mark.parametrize("name", ["T4 16GB", "RTX 4090 24GB", "B200 180GB", "H100 80GB"])
def test_a_card_that_is_not_of_hopper_is_called_extrapolated(name):
    is_hopper = GPUS[name].compute_capability == 9.0
    assert (domain.of_card(GPUS[name].compute_capability) is None) == is_hopper
    _, out, _ = in_process("plan", "qwen2.5-1.5b", "--gpu", name)
    assert (", extrapolated" in out) != is_hopper
    assert ("a card of another generation than Hopper" in " ".join(out.split())) != is_hopper
    _, out, _ = in_process("plan", "qwen2.5-1.5b", "--gpu", name, "--fit")
    assert ("a card of another generation" in out) != is_hopper


def test_a_wider_error_is_kept_free():
    """What fits by 5 % surely fits where that was measured, and may not elsewhere."""
    prediction = predict.predict(CASE)
    card = int(prediction.peak_bytes * 1.06)
    wide = replace(CASE, kv_cache_dtype="fp8")
    narrow = predict.verdict(prediction, replace(CASE, standby=True), card)
    assert narrow == "fits"
    assert predict.verdict(prediction, replace(wide, standby=True), card) == "tight"
    settings = ("--set", "preset.max_seq_length=110000", "--set", "preset.max_completion_length=9")
    _, out, _ = in_process("plan", "qwen2.5-1.5b", "--gpu", "h200", *settings)
    assert "within 9%, extrapolated" in out and "110,000 tokens" in out


def test_settings_that_are_tight_are_shown_as_tight():
    for tenths in range(105, 130):
        code, out, err = in_process("plan", "phi4", "--vram", f"{tenths / 10}", "--fit")
        if "# tight:" in out:
            assert code == 0 and "[preset." in out and "nearer than the prediction is exact" in out
            assert "(tight, +-4%" in out
            return
        assert code == (0 if out else 2), err
    raise AssertionError("no size is tight")

"""The fit of the planner's constants: it finds what made the points, and rewrites the table."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import fit, measured, plot
from benchmarks.memory.measured import Point
from r1recipes.machine.units import GIB
from r1recipes.planning import models
from r1recipes.planning.memory import constants, predict
from tests.planning.memory.test_predict import case

POINTS = measured.load(fit.POINTS)


def proof(**changes: Any) -> dict[str, Any]:
    settings = {
        "load_in_4bit": True,
        "max_seq_length": 1024,
        "max_completion_length": 768,
        "lora_rank": 32,
        "num_generations": 8,
        "prompts_per_step": 4,
        "per_device_train_batch_size": None,
        "gpu_memory_utilization": 0.5,
        "standby": False,
    }
    return {
        "recipe_model": "unsloth/Qwen2.5-1.5B-Instruct",
        "settings": settings,
        "vram_gib": 16.0,
        "peak_gib": 12.0,
        "peak_gib_by_phase": {"import": 0.7, "load": 9.0, "first step": 11.0, "steps": 12.0},
        "kv_tokens": 200_000,
        "card": "NVIDIA H200",
    } | changes


def point_of(name: str = "p", **changes: Any) -> Point:
    point = measured.of_proof(name, proof(**changes))
    assert point is not None
    return point


def test_a_proof_becomes_a_point():
    point = point_of()
    assert point.case.batch == 8 and point.case.num_seqs == 32 and not point.ran_out
    assert point.case.engine_bytes == 8 * GIB and point.phases["train"] == 12 * GIB
    for error in ("OutOfMemoryError: CUDA out of memory.", "CUBLAS_STATUS_ALLOC_FAILED"):
        assert point_of(error=error).ran_out
    illegal = "AcceleratorError: CUDA error: an illegal memory access was encountered"
    assert measured.of_proof("p", proof(error=illegal)) is None
    assert measured.of_proof("p", proof(error="RunError: the stack changed")) is None
    assert measured.of_proof("p", proof(recipe_model="someone/else")) is None


def test_what_an_engine_takes_outside_torch_is_read_from_both_kinds_of_proof():
    """vLLM 0.26 has a number for it, 0.27.1 one for all that it took before the KV cache."""
    assert point_of(weights_gib=2.0, non_torch_gib=0.25).parts["engine outside"] == GIB / 4
    assert point_of(weights_gib=2.0, consumed_gib=2.25).parts["engine outside"] == GIB / 4
    assert "engine outside" not in point_of(weights_gib=2.0).parts
    assert "engine outside" not in point_of(consumed_gib=2.25).parts


def test_a_third_is_set_aside_whatever_was_measured():
    numbers = range(300)
    points = [point_of(vram_gib=8 + number / 10) for number in numbers]
    assert 70 < sum(point.set_aside for point in points) < 130
    again = [point_of(vram_gib=8 + number / 10, peak_gib=9.0) for number in numbers]
    assert [p.set_aside for p in points] == [p.set_aside for p in again]


@pytest.fixture(scope="module")
def fitted() -> tuple[list[Point], dict[str, float]]:
    """Points that were made with other constants than the table's, and those that are fitted."""
    truth = constants.values() | {"context": 0.9 * GIB, "hidden_copies": 12.0}
    points = []
    for key in ("qwen2.5-1.5b", "mistral-7b-v0.3", "llama-3.1-8b"):
        for batch in (1, 2, 4, 8):
            for length in (768, 1800):
                settings = case(
                    models.MODELS[key],
                    batch=batch,
                    max_seq_length=length + 256,
                    max_completion_length=length,
                )
                point = point_of(f"{key}-{batch}-{length}")
                prediction = predict.predict(settings, truth)
                peaks = predict.expected_bytes(prediction, settings, round(point.cap_bytes))
                phases = {name: float(size) for name, size in peaks.items()}
                point = replace(
                    point,
                    case=settings,
                    peak_bytes=max(phases.values()),
                    phases=phases,
                    kv_tokens=prediction.kv_tokens,
                    parts=measured.predicted_parts(settings, truth),
                )
                points.append(point)
    return points, fit.fit(points)


def test_the_fit_finds_what_made_the_points(fitted):
    points, by_name = fitted
    values = fit.in_bytes(by_name)
    assert max(map(abs, measured.errors(points, constants.values()).values())) > 0.03
    assert max(map(abs, measured.errors(points, values).values())) < 0.01
    assert by_name["context"] == pytest.approx(0.9, abs=0.02)
    for name, (low, _, high) in fit.RANGES.items():
        assert low <= by_name[name] <= high


def test_the_table_is_rewritten_and_nothing_else(fitted, tmp_path):
    points, by_name = fitted
    path = tmp_path / "constants.py"
    shutil.copy(constants.__file__, path)
    fit.rewrite(path, by_name, points, 0.042)
    namespace: dict[str, Any] = {"__name__": "rewritten"}
    exec(compile(path.read_text(), path, "exec"), namespace)
    table = namespace["CALIBRATED"]
    assert list(table) == list(constants.CALIBRATED)
    assert table["error"].value == pytest.approx(0.06) and table["context"].status == "measured"
    for name, constant in table.items():
        assert constant.physics == constants.CALIBRATED[name].physics
        if name in by_name:
            assert constant.value == pytest.approx(by_name[name], rel=0.01, abs=1e-9)
    assert "rehearsals" in table["graph"].source


def test_the_sources_of_the_constants_are_there():
    root = Path(__file__).parents[2]
    text = Path(constants.__file__).read_text()
    paths = set(re.findall(r"benchmarks/[\w./-]*\w", text))
    assert paths and all((root / path).exists() for path in paths), paths


def test_the_plot_has_a_mark_for_each_point():
    marks = [
        plot.Mark("one", 4.0 * GIB, 4.1 * GIB, False),
        plot.Mark("two", 9.0 * GIB, 8.0 * GIB, True),
    ]
    text = plot.svg(marks)
    assert len(re.findall("<circle", text)) == 2 and "<title>two</title>" in text


def test_no_committed_point_has_a_wrong_verdict():
    values = constants.values()
    assert [point.name for point in POINTS if measured.wrong_verdict(point, values)] == []


def test_points_of_one_engine_are_on_one_side():
    for path in fit.POINTS.glob("*.json"):
        sides = {p.set_aside for p in POINTS if f"{p.name}-".startswith(f"{path.stem}-")}
        assert len(sides) == 1, path


def test_the_committed_points_that_were_set_aside_are_within_the_bars():
    aside = [point for point in POINTS if point.set_aside]
    sizes = [abs(off) for off in measured.errors(aside, constants.values()).values()]
    assert len(sizes) >= len(POINTS) / 4
    assert sum(sizes) / len(sizes) <= 0.03 and max(sizes) <= 0.08

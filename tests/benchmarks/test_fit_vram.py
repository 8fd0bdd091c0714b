"""The fit of the planner's constants: it finds what made the points, and rewrites the table."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r1recipes.machine.units import GIB
from r1recipes.planning import models
from r1recipes.planning.memory import constants, predict
from tests.planning.memory.test_predict import case

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import fit_vram  # noqa: E402
import vram_measured  # noqa: E402
import vram_plot  # noqa: E402

FOLDER = ROOT / "benchmarks" / "vram_points"
POINTS = vram_measured.load(FOLDER)


def proof(**changes) -> dict:
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


def test_a_proof_becomes_a_point():
    point = vram_measured.of_proof("p", proof())
    assert point.case.batch == 8 and point.case.num_seqs == 32 and not point.ran_out
    assert point.case.engine_bytes == 8 * GIB and point.phases["train"] == 12 * GIB
    for error in ("OutOfMemoryError: CUDA out of memory.", "CUBLAS_STATUS_ALLOC_FAILED"):
        assert vram_measured.of_proof("p", proof(error=error)).ran_out
    illegal = "AcceleratorError: CUDA error: an illegal memory access was encountered"
    assert vram_measured.of_proof("p", proof(error=illegal)) is None
    assert vram_measured.of_proof("p", proof(error="RunError: the stack changed")) is None
    assert vram_measured.of_proof("p", proof(recipe_model="someone/else")) is None


def test_a_third_is_set_aside_whatever_was_measured():
    names = [f"{n}" for n in range(300)]
    points = [vram_measured.of_proof(n, proof(vram_gib=8 + int(n) / 10)) for n in names]
    assert 70 < sum(point.set_aside for point in points) < 130
    again = [
        vram_measured.of_proof(n, proof(vram_gib=8 + int(n) / 10, peak_gib=9.0)) for n in names
    ]
    assert [p.set_aside for p in points] == [p.set_aside for p in again]


@pytest.fixture(scope="module")
def fitted():
    """Constants fitted to points that were made with others."""
    truth = constants.values() | {"context": 0.9 * GIB, "hidden_copies": 12.0}
    points = []
    for key in ("qwen2.5-1.5b", "mistral-7b-v0.3", "llama-3.1-8b"):
        for batch in (1, 2, 4, 8):
            for length in (768, 1800):
                made = case(
                    models.MODELS[key],
                    batch=batch,
                    max_seq_length=length + 256,
                    max_completion_length=length,
                )
                found = predict.predict(made, truth)
                point = vram_measured.of_proof(f"{key}-{batch}-{length}", proof())
                seen = predict.expected_bytes(found, made, round(point.cap_bytes))
                sizes = {name: float(size) for name, size in seen.items()}
                point = replace(
                    point,
                    case=made,
                    peak_bytes=max(sizes.values()),
                    phases=sizes,
                    kv_tokens=found.kv_tokens,
                    told=vram_measured.parts(made, truth),
                )
                points.append(point)
    return points, fit_vram.fit(points)


def test_the_fit_finds_what_made_the_points(fitted):
    points, found = fitted
    known = fit_vram.in_bytes(found)
    assert max(map(abs, vram_measured.errors(points, constants.values()).values())) > 0.03
    assert max(map(abs, vram_measured.errors(points, known).values())) < 0.01
    assert found["context"] == pytest.approx(0.9, abs=0.02)
    for name, (low, _, high) in fit_vram.RANGES.items():
        assert low <= found[name] <= high


def test_the_table_is_rewritten_and_nothing_else(fitted, tmp_path):
    points, found = fitted
    path = tmp_path / "calibration.py"
    shutil.copy(constants.__file__, path)
    fit_vram.rewrite(path, found, points, 0.042)
    namespace = {"__name__": "rewritten"}
    exec(compile(path.read_text(), path, "exec"), namespace)
    table = namespace["CALIBRATED"]
    assert list(table) == list(constants.CALIBRATED)
    assert table["error"].value == pytest.approx(0.06) and table["context"].status == "measured"
    for name, constant in table.items():
        assert constant.physics == constants.CALIBRATED[name].physics
        if name in found:
            assert constant.value == pytest.approx(found[name], rel=0.01, abs=1e-9)
    assert "rehearsals" in table["graph"].source


def test_the_plot_has_a_mark_for_each_point():
    text = vram_plot.svg(
        [("one", 4.0 * GIB, 4.1 * GIB, False), ("two", 9.0 * GIB, 8.0 * GIB, True)]
    )
    assert len(re.findall("<circle", text)) == 2 and "<title>two</title>" in text


def test_no_committed_point_has_a_wrong_verdict():
    known = constants.values()
    assert [p.name for p in POINTS if vram_measured.wrong_verdict(p, known)] == []


def test_points_of_one_engine_are_on_one_side():
    for path in FOLDER.glob("*.json"):
        sides = {p.set_aside for p in POINTS if f"{p.name}-".startswith(f"{path.stem}-")}
        assert len(sides) == 1, path


def test_the_committed_points_that_were_set_aside_are_within_the_bars():
    aside = [point for point in POINTS if point.set_aside]
    sizes = [abs(off) for off in vram_measured.errors(aside, constants.values()).values()]
    assert len(sizes) >= len(POINTS) / 4
    assert sum(sizes) / len(sizes) <= 0.03 and max(sizes) <= 0.08

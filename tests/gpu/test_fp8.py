"""FP8 weights on one NVIDIA card of compute capability 8.9 or more: rehearsed, trained, exported.

A run whose layers are not FP8 ends with an error, so that one which learns has trained on them.
Limits: three engines are started, which takes minutes; speed is measured by benchmarks/speed.
"""

import json

import pytest

from r1recipes import planning, recipe
from r1recipes.machine import files, gpu
from r1recipes.planning import models
from r1recipes.planning.fit.refusals import FP8_CAPABILITY
from r1recipes.runs import Run
from tests.gpu.test_levers import learned, trained
from tests.helpers import command

pytestmark = pytest.mark.gpu
FP8 = "preset.load_in=fp8"


@pytest.fixture(scope="module", autouse=True)
def card() -> gpu.Gpu:
    present = gpu.current()
    if present is None or present.compute_capability < FP8_CAPABILITY:
        pytest.skip(f"a card of compute capability {FP8_CAPABILITY} or more is needed")
    return present


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The recipe `small` on FP8 weights, which are made of its own base after the cold start."""
    return trained(tmp_path_factory.mktemp("fp8"), FP8)


def test_it_learns(run):
    assert run.plan().preset.weights == "fp8" and learned(run)
    rows = files.read_lines(run.metrics)
    assert all(row["grad_norm"] > 0 for row in rows[:3])


def test_its_weights_are_beside_its_base_in_half_the_bytes(run):
    def size(folder) -> int:
        return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))

    (folder,) = run.quantised("fp8").iterdir()
    shape = models.BUILTIN["builtin:small"]
    assert size(folder) == pytest.approx(models.weights_bytes(shape, "fp8"), rel=0.02)
    assert "quantization_config" not in json.loads((run.base / "config.json").read_text())


def test_it_answers_and_is_evaluated_again(run):
    question = files.read_lines(run.evaluation("after"))[0]["question"]
    arguments = (run.folder, question, "--temperature", "0", "--offline")
    asked = command("ask", *arguments, cwd=run.folder.parent)
    assert asked.returncode == 0, asked.stderr
    assert "<answer>" in asked.stdout.partition("trained:")[2]
    again = command("eval", run.folder, "--samples", "2", "--offline", cwd=run.folder.parent)
    assert again.returncode == 0 and "difference of pass@1" in again.stdout, again.stderr


def test_the_merged_model_is_made_of_the_16_bit_weights(run):
    done = command("export", run.folder, "--to", "merged_16bit", "--offline", cwd=run.folder.parent)
    assert done.returncode == 0, done.stderr
    folder = run.folder / "export" / "merged_16bit"
    export = json.loads((folder / "export.json").read_text())
    assert export["trained_in_fp8"] and export["dtype"] != "float8_e4m3fn"
    assert "trained with the base in FP8" in (folder / "README.md").read_text()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("name", "preset", "vram"),
    [
        ("qwen2.5-coder-0.5b", "8GB", 7.62),  # q, k and v have a bias: Unsloth has no kernel there
        ("smollm2-135m", "8GB", 7.62),
    ],
)
def test_a_rehearsal_takes_the_memory_that_was_planned(name, preset, vram, card, tmp_path):
    arguments = ("--preset", preset, "--vram", vram, "--steps", "2", "--set", FP8)
    done = command("rehearse", name, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    proof = json.loads(done.stdout)
    assert proof["settings"]["load_in"] == "fp8" and proof["step_s"] > 0
    loaded = recipe.load(name, [FP8])
    size = int(vram * 2**30)
    capped = gpu.Gpu(0, card.name, size, size, card.compute_capability, card.driver)
    target = planning.Target.elsewhere(capped)
    plan = planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset=preset)
    assert plan.predicted is not None
    off = proof["peak_gib"] * 2**30 / plan.predicted.peak_bytes - 1
    assert abs(off) <= plan.predicted.error, off
    assert proof["kv_tokens"] == pytest.approx(plan.predicted.kv_tokens, rel=0.1)

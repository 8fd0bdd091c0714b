"""Variants name their levers, each lever can be switched off, and rows have medians of a run."""

import json
import os
import statistics
from pathlib import Path

import pytest

from benchmarks.speed import levers
from r1recipes import planning, recipe
from r1recipes.machine import files
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import auto, plan
from r1recipes.recipe.schema import Recipe
from r1recipes.runs.record import Run
from r1recipes.training.backends import passes
from r1recipes.training.backends.unsloth import sampling

CARD = Gpu(0, "NVIDIA L4", 22 * GIB, 22 * GIB, 8.9, "580.1")
BY_DEFAULT = {"text", "logprobs", "slots", "calls", "fused", "passes"}
ROLLOUT = {"vllm_importance_sampling_correction": False}


def test_a_variant_is_a_base_with_levers_on_and_off():
    assert levers.levers_of("before") == frozenset()
    assert levers.levers_of("now") == BY_DEFAULT
    assert levers.levers_of("before+text+logprobs") == {"text", "logprobs"}
    assert levers.levers_of("now-slots-passes+merged") == BY_DEFAULT - {"slots", "passes"} | {
        "merged"
    }
    for wrong in ("", "then", "+text", "now+texts", "now+"):
        with pytest.raises(ValueError, match="lever|begin"):
            levers.levers_of(wrong)


def test_each_lever_that_is_on_can_be_switched_off(monkeypatch):
    for module, name in (
        (sampling, "WITHOUT_TEXT"),
        (sampling, "WITHOUT_LOGPROBS"),
        (sampling, "PROMPTS_PER_CALL"),
        (auto, "engine_sequences"),
        (plan, "engine_sequences"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setenv(passes.VARIABLE, ",".join(passes.LEVERS))
    monkeypatch.setenv("UNSLOTH_FUSED_LINEAR", "1")
    loaded = recipe.load("qwen2.5-coder-0.5b")

    def seen() -> list[object]:
        target = planning.Target.elsewhere(CARD)
        made = planning.make(loaded.recipe, target, base_dir=loaded.path.parent)
        return [made.max_num_seqs, sampling.PROMPTS_PER_CALL, sampling.rollout_arguments(ROLLOUT)]

    assert seen() == [257, 4096, {"detokenize": False, "logprobs": None}]
    for name in levers.BY_DEFAULT:
        switch_off = levers.LEVERS[name].off
        assert switch_off is not None
        switch_off()
    assert seen() == [255, 64, {}]
    assert passes.levers() == set() and os.environ["UNSLOTH_FUSED_LINEAR"] == "0"


@pytest.mark.parametrize("name", sorted(levers.LEVERS))
def test_each_lever_can_be_turned_on(name):
    lever = levers.LEVERS[name]
    assert (lever.off is None) != (not lever.flags and not lever.environment)
    overrides = [flag for flag in lever.flags if flag != "--set"]
    assert isinstance(recipe.load("qwen2.5-coder-0.5b", overrides).recipe, Recipe)


def test_a_row_has_the_medians_of_the_steps_that_are_counted(finished: Run):
    row, steps = levers.times(finished, 1), files.read_lines(finished.metrics)
    assert row["step_s"] == round(statistics.median(s["time/step_s"] for s in steps[1:]), 3)
    assert row["steps"] == len(steps) - 1 == len(row["step_s_of_each"]) - 1
    assert row["generation_tokens_per_s"] > 0 and row["ms_per_decoded_position"] > 0


def test_what_is_measured_already_is_not_measured_again(tmp_path: Path, monkeypatch):
    """A variant that failed is."""
    measured: list[frozenset[str]] = []

    def measure(name, on, flags, warmup, seconds):
        measured.append(on)
        return {"error": 1} if not on else {"step_s": 1.0}

    monkeypatch.setattr(levers, "measure", measure)
    out = tmp_path / "levers.json"
    arguments = ["levers", "tiny", "--out", str(out), "--variants", "before", "now"]
    monkeypatch.setattr("sys.argv", arguments)
    levers.main()
    levers.main()
    assert measured == [frozenset(), levers.BY_DEFAULT, frozenset()]
    result = json.loads(out.read_text())
    assert result["variants"] == {"before": {"error": 1}, "now": {"step_s": 1.0}}
    assert {"date", "machine", "versions"} <= result.keys()

"""The variables that Unsloth and vLLM read, and what is refused of those that a user sets."""

import os
from types import SimpleNamespace

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError, RunError
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning.fit import refusals
from r1recipes.training.backends.unsloth import differences, environment

CARD = Gpu(0, "NVIDIA L4", 22 * GIB, 22 * GIB, 8.9, "580.1")


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """Prepares for a plan, with this value of the variable or without it."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(refusals.MERGED_ROLLOUT, None)
    loaded = recipe.load("qwen2.5-1.5b")
    target = planning.Target.elsewhere(CARD)
    plan = planning.make(loaded.recipe, target, base_dir=loaded.path.parent)

    def prepare(value: str | None) -> None:
        if value is not None:
            os.environ[refusals.MERGED_ROLLOUT] = value
        environment.prepare(plan, tmp_path)

    return prepare


@pytest.mark.parametrize(("value", "merges"), [(None, False), ("0", False), ("1", True)])
def test_rollouts_are_merged_where_the_user_says_so(prepared, value, merges):
    prepared(value)
    assert refusals.merges_rollouts() is merges
    assert os.environ[refusals.MERGED_ROLLOUT] == (value or "0")


def test_layers_are_computed_again_as_the_recipe_says_alone(prepared):
    """Unsloth 2026.10.9 reads the variable where the recipe's key is 0."""
    os.environ["UNSLOTH_GC_KEEP_LAYERS"] = "auto"
    prepared(None)
    assert os.environ["UNSLOTH_GC_KEEP_LAYERS"] == "0"


@pytest.mark.parametrize("value", ["attention", "attn", "yes", ""])
def test_a_half_merged_engine_could_not_answer_an_evaluation(prepared, value):
    with pytest.raises(PlanError, match=f"is `{value}`") as refused:
        prepared(value)
    assert "set UNSLOTH_VLLM_MERGED_ROLLOUT=1" in (refused.value.problems[0].hint or "")


def test_unsloths_silent_way_back_to_the_engines_lora_is_refused():
    assert differences.rollout_differences(SimpleNamespace(), SimpleNamespace(entries=[])) == []
    verdict = SimpleNamespace(reason="the base model is quantized")
    fallen_back = SimpleNamespace(_unsloth_merged_rollout_state=verdict)
    rows = differences.rollout_differences(fallen_back, None)
    with pytest.raises(RunError, match="LoRA, because the base model is quantized"):
        differences.refuse_differences(rows)

"""Plans of recipes with stages: one backend, one engine, the memory of the largest stage."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1recipes import planning, recipe
from r1recipes.algorithms.examples import Examples
from r1recipes.errors import PlanError
from r1recipes.planning import fit
from r1recipes.planning.plan import DoesNotFit, Plan, Target, pinned
from r1recipes.recipe.loading import load_text
from tests.planning.test_learned import CARD, made


def staged(*stages: dict[str, Any], algorithm: str = "grpo", **preset: object) -> recipe.Recipe:
    data = made(algorithm, **preset).model_dump(exclude_none=True)
    return recipe.Recipe.model_validate(data | {"stage": list(stages)})


def plan_of(*stages: dict[str, Any], is_here: bool = False, **keys: Any) -> Plan:
    target = Target(CARD, 1, has_packages=True, is_here=is_here)
    return planning.make(staged(*stages, **keys), target, base_dir=Path.cwd())


SIZES: dict[str, Any] = {
    "gpu_memory_utilization": 0.4,
    "prompts_per_step": 16,
    "num_generations": 8,
    "per_device_train_batch_size": 4,
    "standby": False,
    "load_in_4bit": False,
}
SFT = {"algorithm": "sft", "train": {"max_steps": 7}}


def test_a_stage_has_a_plan_of_its_own_on_the_same_engine():
    plan = plan_of(SFT, {"algorithm": "dpo", "prompts_per_step": 4}, **SIZES)
    sft, dpo = plan.earlier
    assert (sft.recipe.train.max_steps, sft.completions_per_step) == (7, 16)
    assert (dpo.completions_per_step, dpo.gradient_accumulation_steps) == (8, 2)
    assert plan.completions_per_step == 128
    for stage in plan.earlier:
        assert stage.backend == "unsloth" and stage.max_num_seqs == plan.max_num_seqs
        assert not stage.earlier and stage.preset.gpu_memory_utilization == 0.4


def test_the_memory_is_that_of_the_largest_stage():
    less = {"algorithm": "grpo", "per_device_train_batch_size": 2}
    alone, small = plan_of(**SIZES).predicted, plan_of(less, **SIZES).predicted
    large = plan_of(SFT, {"algorithm": "dpo"}, **SIZES).predicted
    assert alone and small and large
    assert small == alone and small.stage is None
    assert large.stage == "2-dpo" and large.needed_bytes > alone.needed_bytes
    assert large.where == "generate of stage 2-dpo" and large.where in large.sentence()
    assert large.step_s == alone.step_s  # the times are those of the last training
    assert fit.largest(None, {"1-sft": None}) is None


def test_a_stage_that_does_not_fit_is_refused_by_name():
    dpo = {"algorithm": "dpo", "per_device_train_batch_size": 32}
    with pytest.raises(DoesNotFit, match="the recipe does not fit: stage 1-dpo: about"):
        plan_of(dpo, is_here=True, **SIZES)
    predicted = plan_of(dpo, **SIZES).predicted
    assert predicted and predicted.verdict == "does not fit"


def test_all_stages_are_trained_by_a_backend_that_each_of_them_has():
    assert plan_of(SFT, **SIZES).backend == "unsloth"
    plan = plan_of({"algorithm": "ppo"}, **SIZES)
    assert {plan.backend, plan.earlier[0].backend} == {"trl"}


def test_the_size_of_the_passes_is_chosen_for_each_stage():
    sizes = SIZES | {"per_device_train_batch_size": "auto"}
    plan = plan_of(SFT, {"algorithm": "dpo"}, **sizes)
    sft, dpo = (stage.per_device_train_batch_size for stage in plan.earlier)
    assert dpo < plan.per_device_train_batch_size and sft > 1
    assert plan.predicted and plan.predicted.verdict == "fits"


def test_passes_that_do_not_divide_a_chosen_step_are_refused_by_name():
    sizes = SIZES | {"prompts_per_step": "auto", "per_device_train_batch_size": 8}
    plan = plan_of(**sizes)
    odd = {"algorithm": "sft", "prompts_per_step": 12}
    with pytest.raises(PlanError, match="stage 1-sft: 12 demonstrations a step do not divide"):
        _with_chosen(odd, plan)


def _with_chosen(stage: dict[str, Any], plan: Plan) -> None:
    """A stage that goes with the recipe, and not with a value that was chosen for it."""
    from r1recipes.planning import plan as module

    whole = staged(stage | {"prompts_per_step": 8}, **SIZES)
    odd = whole.stage[0].model_copy(update=stage)
    chosen = plan.model_copy(update={"recipe": whole.model_copy(update={"stage": [odd]})})
    preset = chosen.preset.model_copy(update={"per_device_train_batch_size": 8})
    module._with_stages(
        chosen.model_copy(update={"preset": preset}), lambda *arguments: pytest.fail("not reached")
    )


def test_a_plan_without_stages_is_written_as_before():
    assert "earlier" not in json.loads(plan_of(**SIZES).model_dump_json())
    plan = plan_of(SFT, **SIZES)
    written = plan.model_dump_json()
    assert Plan.model_validate_json(written) == plan
    assert "earlier" not in json.loads(written)["earlier"][0]


def test_commits_are_pinned_in_every_stage():
    plan = plan_of(SFT | {"examples": {"name": "me/shown"}}, **SIZES)
    commits = {"model_revision": "a" * 40, "data_revision": "b" * 40}
    again = pinned(plan, commits | {"stage_revisions": {"1-sft": "c" * 40}})
    alone = again.earlier[0].recipe
    assert (alone.model.revision, alone.data.revision) == ("a" * 40, "b" * 40)
    assert isinstance(alone.examples, Examples) and alone.examples.revision == "c" * 40
    assert again.recipe.model.revision == "a" * 40


def test_plan_prints_each_stage(tmp_path, capsys):
    from tests.helpers import in_process

    path = tmp_path / "phi4.toml"
    path.write_text(
        recipe.find("phi4").read_text()
        + '\n[[stage]]\nalgorithm = "sft"\n\n[[stage]]\nalgorithm = "ppo"\n'
    )
    assert load_text(path.read_text(), path).recipe.stage_names == ["1-sft", "2-ppo"]
    code, out, _ = in_process("plan", path, "--gpu", "rtx 4090", "--offline")
    assert code == 0 and "stage     1-sft: 8 demonstrations a step" in out
    assert "in train of stage 2-ppo" in out and "PPO has no checkpoints" in out
    assert "speed" not in out  # of plain TRL it is not known

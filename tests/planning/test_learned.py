"""Plans of algorithms that learn from examples: the memory of their passes, their steps, speed."""

from dataclasses import replace
from pathlib import Path

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.machine import cards
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import auto, out_of_memory, speed
from r1recipes.planning.memory import predict
from r1recipes.planning.memory.case import Case
from r1recipes.planning.speed.evaluation import GENERATION_SHARE
from r1recipes.recipe import scaffold
from r1recipes.training import rehearsal
from tests.helpers import in_process, shape

CARD = Gpu(0, "NVIDIA RTX 4090", 24 * GIB, 24 * GIB, 8.9, "580.0")
MODEL = "unsloth/Qwen2.5-1.5B-Instruct"


def made(algorithm: str, **preset: object) -> recipe.Recipe:
    """The recipe of a 1.5B model with this algorithm, and a preset with these values."""
    base = scaffold.for_algorithm(recipe.load("qwen2.5-1.5b").recipe, algorithm)
    settings = base.preset["24GB"].model_copy(update=preset)
    return base.model_copy(update={"preset": {"24GB": settings}})


def planned(algorithm: str, **preset: object) -> planning.Plan:
    target = planning.Target.elsewhere(CARD)
    return planning.make(made(algorithm, **preset), target, base_dir=Path.cwd())


SIZES = {"gpu_memory_utilization": 0.4, "prompts_per_step": 16, "num_generations": 8}


def parts(algorithm: str, batch: int) -> dict[str, int]:
    """The memory of a training pass."""
    plan = planned(algorithm, **SIZES, per_device_train_batch_size=batch)
    case = auto.case_of(plan.recipe, plan.preset, shape(MODEL), CARD.total_bytes)
    assert case.batch == batch == plan.per_device_train_batch_size
    return predict.predict(case).phases["train"]


def test_dpo_holds_all_logits_of_a_pass_and_sft_a_few_rows():
    grpo, sft, dpo = (parts(name, 4) for name in ("grpo", "sft", "dpo"))
    preset = made("dpo").preset["24GB"]
    assert dpo["logits"] == 12 * 4 * preset.max_seq_length * shape(MODEL).vocab_size
    assert sft["logits"] == grpo["logits"] < dpo["logits"] / 10
    for name in ("weights", "KV cache", "adapter", "optimizer", "training activations"):
        assert grpo[name] == sft[name] == dpo[name], name  # no second model, one adapter
    assert parts("dpo", 8)["logits"] == 2 * dpo["logits"]


def test_the_engine_has_room_for_what_is_sampled_at_once():
    plans = [planned(n, **SIZES, per_device_train_batch_size=4) for n in ("grpo", "sft", "dpo")]
    assert {plan.max_num_seqs for plan in plans} == {128}
    assert [plan.completions_per_step for plan in plans] == [128, 16, 32]
    assert [plan.gradient_accumulation_steps for plan in plans] == [32, 4, 8]
    assert plans[2].batch_sentence() == "16 pairs = 32 completions a step, in 8 passes of 4"
    assert plans[1].batch_sentence() == "16 demonstrations a step, in 4 passes of 4"


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_the_planner_chooses_whole_passes(algorithm):
    opened = dict.fromkeys(auto.OPEN, "auto")
    plan = planned(algorithm, **opened)
    assert plan.predicted is not None and plan.predicted.verdict == "fits"
    assert plan.step.is_whole
    tight = planned(algorithm, prompts_per_step=6, per_device_train_batch_size="auto")
    assert tight.step.is_whole and tight.completions_per_step % 6 == 0


def test_out_of_memory_halves_pairs_and_not_a_pair():
    plan = planned("dpo", **SIZES, per_device_train_batch_size=8)
    message = "OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB"
    for batch, change in ((8, "per_device_train_batch_size=4"), (2, "standby=true")):
        tried = plan.model_copy(update={"per_device_train_batch_size": batch})
        assert change in out_of_memory.explain(message, "first step", tried).change


def test_a_step_that_generates_nothing_is_shorter_by_its_generation():
    plan = planned("dpo", **SIZES, per_device_train_batch_size=4)
    case = auto.case_of(plan.recipe, plan.preset, shape(MODEL), CARD.total_bytes)
    assert case.trained == 32

    def step(case: Case) -> speed.StepTime:
        return speed.step(case, 32, 8, 10_000, cards.UNLISTED)

    dpo, alone = step(case), step(replace(case, reference=False))
    sampled = step(replace(case, samples=True))
    assert dpo.generation_s == 0 < sampled.generation_s
    assert alone.training_s == sampled.training_s < dpo.training_s < 1.5 * alone.training_s


def test_an_evaluation_costs_more_of_the_steps_that_generate_nothing():
    grpo, dpo = (speed.Evaluation("cuda", 64, 64, 200, samples) for samples in (True, False))
    assert dpo.steps(32) == pytest.approx(grpo.steps(32) / (1 - GENERATION_SHARE["cuda"]))
    assert dpo.least_every > grpo.least_every


def test_a_rehearsal_is_refused_by_the_name_of_the_algorithm(tmp_path):
    plan = planned("dpo", **SIZES, per_device_train_batch_size=4)
    with pytest.raises(PlanError, match="DPO cannot be rehearsed"):
        rehearsal.rehearse(plan, weights_dir=tmp_path, vram_bytes=None, steps=2)


def test_plan_shows_the_step_and_what_is_sampled(tmp_path):
    path = tmp_path / "mine.toml"
    in_process("new", path, "--model", MODEL, "--algorithm", "dpo")
    code, out, err = in_process("plan", path, "--gpu", "rtx 4090")
    assert code == 0, err
    assert (
        "sampled at once before training" in out and "pairs = " in out and "verdict   fits" in out
    )

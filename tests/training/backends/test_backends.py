"""Which backend carries out a plan, and how it is refused where none does."""

import sys
from collections.abc import Callable

import pytest

from r1recipes import planning, recipe
from r1recipes.algorithms import ALGORITHMS
from r1recipes.errors import PlanError
from r1recipes.machine.gpu import Gpu
from r1recipes.training.backends import BACKENDS, create
from r1recipes.training.backends.trl import TrlBackend
from tests.conftest import SMALL

CARD = Gpu(0, "NVIDIA L4", 22 * 2**30, 22 * 2**30, 8.9, "580.1")


PRESET = """
[preset.16GB]
max_seq_length = 128
max_completion_length = 40
lora_rank = 8
num_generations = 4
prompts_per_step = 4
gpu_memory_utilization = 0.5
"""


@pytest.fixture
def planned(tmp_path) -> Callable[..., planning.Plan]:
    """Plans the small recipe for a machine that has the packages of the extra `gpu`."""

    def make(gpu: Gpu | None = None, algorithm: str = "grpo", **changes: str) -> planning.Plan:
        text = SMALL.replace("seed = 1\n", f'seed = 1\nalgorithm = "{algorithm}"\n') + PRESET
        if size := ALGORITHMS[algorithm].group_size:
            text = text.replace("num_generations = 4", f"num_generations = {size}")
        (tmp_path / "small.toml").write_text(text)
        loaded = recipe.load(tmp_path / "small.toml").recipe
        target = planning.Target.elsewhere(gpu) if gpu else planning.Target.here(None, 1)
        plan = planning.make(loaded, target, base_dir=tmp_path)
        return plan.model_copy(update=changes)

    return make


def serving(plan: planning.Plan) -> list[str]:
    return [backend.name for backend in BACKENDS if backend.serves(plan) is None]


@pytest.mark.parametrize("gpu", [CARD, None])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_backend_serves_each_plan(algorithm, gpu, planned):
    plan = planned(gpu, algorithm)
    assert serving(plan) == [plan.backend]
    assert plan.backend in ALGORITHMS[algorithm].backends
    on_unsloth = gpu is not None and "unsloth" in ALGORITHMS[algorithm].backends
    assert (plan.backend == "unsloth") == on_unsloth


def test_an_algorithm_names_backends_that_exist():
    names = {backend.name for backend in BACKENDS}
    assert all(names.issuperset(algorithm.backends) for algorithm in ALGORITHMS.values())


def test_a_run_of_an_algorithm_without_unsloth_is_evaluated_by_it(planned):
    """Only the training has not been measured there."""
    assert serving(planned(CARD, "ppo", backend="unsloth")) == ["unsloth"]


def test_a_plan_on_the_cpu_is_created_without_unsloth(planned):
    assert isinstance(create(planned(), offline=True), TrlBackend)
    assert "unsloth" not in sys.modules


def test_layers_that_are_not_recomputed_need_unsloth(planned):
    """Plain TRL has no such setting: the key is refused, not ignored."""

    def asked(*arguments: object) -> planning.Plan:
        plan = planned(*arguments)
        preset = plan.preset.model_copy(update={"layers_not_recomputed": 2})
        return plan.model_copy(update={"preset": preset})

    assert serving(asked(CARD)) == ["unsloth"] and not serving(asked(CARD, "ppo"))
    with pytest.raises(PlanError, match="`layers_not_recomputed` needs Unsloth; remove it"):
        create(asked(CARD, "ppo"), offline=True)


def test_a_plan_that_no_backend_serves_is_refused_with_each_reason(planned):
    with pytest.raises(PlanError) as refused:
        create(planned(backend="unsloth"), offline=True)
    (problem,) = refused.value.problems
    assert "unsloth: it needs an NVIDIA GPU, not `cpu`" in problem.message
    assert "trl: the plan was made for `unsloth`" in problem.message
    assert "doctor" in (problem.hint or "")

"""How many problems an evaluation while training may have (`eval.every`), and what is refused."""

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning.speed import MAX_SHARE, Evaluation, evaluation
from r1recipes.planning.speed.evaluation import MIN_PROBLEMS
from tests.helpers import hint, in_process

CASES = [
    Evaluation(device, completions, batch, available)
    for device in ("cpu", "cuda")
    for completions in (8, 16, 24, 64, 256)
    for batch in (16, 64, 400)
    for available in (1, 6, 40, 200)
]


@pytest.mark.parametrize("cost", CASES, ids=str)
def test_the_problems_are_as_many_as_the_share_allows(cost):
    sizes = [cost.problems(every) for every in (1, 2, 5, 10, 25, 50, 100, 1000)]
    numbers = [size or 0 for size in sizes]
    assert numbers == sorted(numbers)
    for every, size in zip((1, 2, 5, 10, 25, 50, 100, 1000), sizes, strict=True):
        if size is None:
            assert every < cost.least_every
            continue
        assert min(MIN_PROBLEMS, cost.available) <= size <= cost.available
        assert cost.share(size, every) <= MAX_SHARE
        assert size == cost.available or cost.share(size + 1, every) > MAX_SHARE
    least = cost.least_every
    assert cost.problems(least) is not None and (least == 1 or cost.problems(least - 1) is None)


def test_the_cost_grows_with_the_problems_and_falls_with_the_size_of_a_step():
    for device in ("cpu", "cuda"):
        steps = [Evaluation(device, 64, 32, 500).steps(n) for n in range(1, 500)]
        assert steps == sorted(steps) and steps[0] > 0
        of_sizes = [Evaluation(device, n, 400, 500).steps(100) for n in (8, 64, 256, 1024)]
        assert of_sizes == sorted(of_sizes, reverse=True)


def test_what_generation_took_is_never_more_than_is_assumed():
    """Pairs of benchmarks/speed/choices.md: completions and seconds of a small and a large call."""
    pairs = [(6, 11.1, 48, 16.0), (8, 15.3, 64, 20.3), (8, 27.5, 64, 51.3), (8, 5.1, 64, 5.9)]
    for few, small_s, many, large_s in pairs:
        cost = Evaluation("cuda", many, 64, 200)
        assumed = cost.steps(few) / evaluation.GENERATION_SHARE["cuda"]
        assert assumed >= small_s / large_s - 0.01


def make(name: str, *flags: str, card: Gpu | None = None):
    loaded = recipe.load(name, list(flags))
    target = planning.Target.elsewhere(card) if card else planning.Target.here(None, 1)
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent)


def test_a_plan_says_how_many_are_answered():
    assert make("tiny").eval_problems is None
    assert make("tiny", "eval.every=10").eval_problems == 140
    assert make("tiny", "eval.every=30").eval_problems == 200  # all that are held out
    assert make("tiny", "eval.every=90").eval_problems is None  # the evaluation after follows
    card = Gpu(0, "NVIDIA L4", 22 * GIB, 22 * GIB, 8.9, "580.1")
    plan = make("phi4", "eval.every=50", card=card)
    assert plan.completions_per_step == 64 and plan.eval_problems == 64
    without = make("phi4", card=card)
    assert plan.predicted == without.predicted  # as many completions at once as before and after


def test_an_evaluation_that_is_too_often_is_refused_with_what_fits():
    with pytest.raises(PlanError, match=r"costs too much.*256 completions.*16 held-out") as raised:
        make("tiny", "eval.every=2")
    assert hint(raised) == "set `eval.every = 3` or more"
    make("tiny", "eval.every=3")
    code, _, err = in_process("plan", "phi4", "--gpu", "t4", "--set", "eval.every=25")
    assert code == 2 and "set `eval.every = 29` or more" in err
    code, out, _ = in_process("plan", "phi4", "--gpu", "t4", "--set", "eval.every=29")
    assert code == 0 and "evaluates 24 held-out problems every 29 steps, in at most 3%" in out
    assert "evaluates" not in in_process("plan", "phi4", "--gpu", "t4")[1]


def test_check_says_which_presets_are_refused():
    code, _, err = in_process("check", "tiny", "--set", "eval.every=2")
    assert code == 2 and "--set eval.every=2: `eval.every = 2` costs too much" in err
    assert "hint: set `eval.every = 3` or more" in err
    code, out, err = in_process("check", "phi4", "--set", "eval.every=27")
    assert code == 0 and "phi4: ok" in out
    assert "preset 16GB is refused" in err and "preset 80GB" not in err
    code, _, err = in_process("check", "tiny", "--set", "eval.every=200")
    assert code == 0 and "`eval.every = 200` never comes in 90 steps" in err
    assert in_process("check", "tiny", "--set", "eval.every=10")[2] == ""
    code, _, err = in_process("check", "tiny", "--set", "eval.every=0")
    assert code == 2 and "eval.every" in err


def test_presets_that_leave_the_size_of_a_step_open_are_left_to_the_plan():
    flags = [f"preset.{key}=auto" for key in ("prompts_per_step", "per_device_train_batch_size")]
    overrides = [word for flag in [*flags, "eval.every=1"] for word in ("--set", flag)]
    code, _, err = in_process("check", "phi4", *overrides)
    assert code == 0 and "refused" not in err

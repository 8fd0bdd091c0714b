"""The gradient of a step, with and without the levers."""

import math
from typing import Any

import pytest
import torch

from r1recipes.algorithms.step import PassRules
from r1recipes.training.backends import passes
from tests.training.backends.passes.steps import ALL, Step, always, step

LOSSES = ("dapo", "dr_grpo", "grpo", "bnpo", "cispo")


@pytest.fixture(scope="module")
def as_trl(tmp_path_factory):
    """Steps as TRL does them, each made once."""
    made: dict[str, Step] = {}

    def of(**train: Any) -> Step:
        key = repr(train)
        if key not in made:
            made[key] = step(tmp_path_factory.mktemp("trl"), "", **train)
        return made[key]

    return of


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Up to the rounding of sums in 32 bits: the gradients of passes cancel to a part of theirs."""
    return bool((one - other).abs().max() <= 2e-5 * other.abs().max())


CASES = [
    *({"loss_type": f"'{loss}'"} for loss in LOSSES),
    *({"loss_type": f"'{loss}'", "beta": 0.5} for loss in LOSSES),
    {"loss_type": "'dapo'", "mask_truncated_completions": "true"},
    {"loss_type": "'grpo'", "mask_truncated_completions": "true"},
    {"algorithm": "rloo", "beta": 0.05},
    {"algorithm": "rloo", "normalize_advantages": "true"},
]


def train_keys(case: dict[str, Any]) -> dict[str, Any]:
    """Keys that a recipe accepts together."""
    spread = {"scale_rewards": "'none'"} if "dr_grpo" in str(case) else {}
    return {"epsilon_high": 5.0 if "cispo" in str(case) else 0.2} | spread | case


@pytest.mark.slow
@pytest.mark.parametrize("levers", [ALL, "drop", "sort,trim", "sort,resize,trim", "drop,trim"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_no_lever_changes_the_gradient_of_a_step(tmp_path, as_trl, case, levers):
    plain, cut = as_trl(**train_keys(case)), step(tmp_path, levers, **train_keys(case))
    assert plain.gradient.abs().max() > 1e-4
    has_kl_reward = case == {"algorithm": "rloo", "beta": 0.05}  # by which each completion differs
    share = plain.row["frac_reward_zero_std"]
    assert share == 0 if has_kl_reward else 0 < share < 1
    assert same(cut.gradient, plain.gradient)
    for name in ("loss", "grad_norm", "reward", "completions/mean_length", "frac_reward_zero_std"):
        assert cut.row[name] == pytest.approx(plain.row[name], rel=1e-4, abs=1e-5), name
    assert cut.row.keys() == plain.row.keys()


@pytest.mark.slow
@pytest.mark.parametrize("levers", ["", ALL])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"normalize_advantages": "true"},
        {"mask_truncated_completions": "true"},
    ],
    ids=lambda keys: "-".join(keys) or "plain",
)
def test_rloo_has_one_gradient_with_both_trainers(tmp_path, as_trl, keys, levers):
    """That of Unsloth is GRPOTrainer: no rule of the advantages and no factor is missing."""
    by_rloo = as_trl(algorithm="rloo", **keys)
    by_grpo = step(tmp_path, levers, backend_row="unsloth", algorithm="rloo", **keys)
    assert by_rloo.gradient.abs().max() > 1e-4
    assert same(by_grpo.gradient, by_rloo.gradient)
    assert by_grpo.row["grad_norm"] == pytest.approx(by_rloo.row["grad_norm"], rel=1e-4)
    assert by_grpo.row["reward"] == pytest.approx(by_rloo.row["reward"])


@pytest.mark.slow
def test_a_pass_counts_by_its_rows(tmp_path, as_trl, monkeypatch):
    """Without the weights the gradient is another: the test above would see it."""
    keys = train_keys({"loss_type": "'grpo'"})
    plain = as_trl(**keys)
    rules = PassRules(drops=True, sorts=True, resizes=True, weighs=False)
    monkeypatch.setattr(passes, "allowed", lambda *_: rules)
    assert not same(step(tmp_path, ALL, **keys).gradient, plain.gradient)


@pytest.mark.slow
def test_a_step_without_any_spread_has_a_gradient_of_zero(tmp_path):
    """As before, and not none: the moments of the optimiser decay, and the weights with them."""
    done = step(tmp_path, ALL, reward=always)
    assert len(done.shapes) == 1 and torch.count_nonzero(done.gradient) == 0
    assert done.row["grad_norm"] == 0 and done.row["frac_reward_zero_std"] == 1
    assert math.isfinite(done.row["entropy"])


@pytest.mark.slow
def test_passes_without_rows_cost_no_forward_and_others_have_less_padding(tmp_path, as_trl):
    plain = as_trl(**train_keys({"loss_type": "'dapo'"}))
    full = sum(rows * width for rows, width in plain.shapes)
    cut, dropped, trimmed = (
        step(tmp_path, levers).shapes for levers in (ALL, "drop", "sort,resize,trim")
    )
    rows = sum(rows for rows, _ in plain.shapes)
    idle = plain.row["frac_reward_zero_std"] * rows
    assert len(plain.shapes) == 8 and len({width for _, width in plain.shapes}) == 1
    assert sum(n for n, _ in cut) == sum(n for n, _ in dropped) < rows - idle + 4
    assert {width for _, width in dropped} == {plain.shapes[0][1]}
    assert sum(n for n, _ in trimmed) == rows and len(trimmed) < 8 and max(trimmed)[0] > 4
    assert sum(a * b for a, b in cut) < sum(a * b for a, b in trimmed) < 0.8 * full

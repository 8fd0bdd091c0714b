"""Which levers there are, and which rows they leave out."""

import pytest
import torch

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.step import PassRules
from r1recipes.errors import RunError
from r1recipes.training.backends import passes


@pytest.mark.parametrize("name", ["drop,shorten", "all"])
def test_an_unknown_lever_is_refused(monkeypatch, name):
    monkeypatch.setenv(passes.VARIABLE, name)
    with pytest.raises(RunError, match="which is no lever"):
        passes.levers()


@pytest.mark.parametrize(("value", "names"), [(None, passes.LEVERS), ("", ()), ("trim", ["trim"])])
def test_levers_are_chosen_by_an_environment_variable(monkeypatch, value, names):
    monkeypatch.setenv(passes.VARIABLE, value) if value is not None else None
    assert passes.levers() == set(names)


@pytest.mark.parametrize("size", [2, 6, 8, 16])
def test_what_rounding_leaves_of_no_spread_is_no_advantage(size):
    """As TRL computes it. A group with spread stays, also where a row is at the mean."""
    groups = [[0.7] * size, [1.1] * size, [0.0, 1.1] * (size // 2), [0.0] + [1.0] * (size - 1)]
    groups.append([1.0, 3.0] + [2.0] * (size - 2))
    rewards = torch.tensor(groups)
    spread = rewards.std(1, keepdim=True) + 1e-4
    advantages = ((rewards - rewards.nanmean(1, keepdim=True)) / spread).view(-1)
    clean = passes.without_rounding(advantages, size)
    assert not clean[: 2 * size].any() and torch.equal(clean[2 * size :], advantages[2 * size :])
    if size > 2:
        assert clean[-1] == 0 and clean[-size:].any()


def test_rows_are_not_put_together_where_they_are_not_trimmed():
    rules = PassRules(drops=True, sorts=True, resizes=True, weighs=True)
    assert not passes.allowed(rules, {"drop", "sort", "resize"}).resizes
    assert passes.allowed(rules, {"resize", "trim"}).resizes


DROPS = {
    ("grpo", 0.0): True,
    ("grpo", 0.1): False,
    ("rloo", 0.0): True,
    ("rloo", 0.1): True,
    ("online_dpo", 0.1): False,
    ("ppo", None): False,
}
"""(algorithm, `beta` if it has one) -> whether rows without an advantage have no gradient."""


@pytest.mark.parametrize(("name", "beta"), DROPS)
def test_rows_without_an_advantage_stay_where_they_have_a_gradient(name, beta):
    algorithm = ALGORITHMS[name]
    train = algorithm.train.model_validate({} if beta is None else {"beta": beta})
    assert algorithm.pass_rules(train).drops == DROPS[name, beta]


def test_each_algorithm_that_samples_is_among_those():
    assert {name for name, _ in DROPS} == {a.name for a in ALGORITHMS.values() if a.samples}

"""vLLM schedules the same with tokens passed over as without; runs where vllm is installed."""

import random
import sys
from types import SimpleNamespace

import pytest

from r1recipes.errors import RunError
from r1recipes.training.backends.unsloth import environment, scheduling

CASES = {
    "all at once": (24, 24, 2000),
    "in waves": (40, 8, 2000),
    "with sequences put off": (24, 24, 60),
    "one": (1, 8, 200),
}
"""Name -> sequences, how many at once, blocks of the KV cache."""


@pytest.fixture
def whole(monkeypatch):
    """vLLM's KVCacheManager, which is put back."""
    pytest.importorskip("vllm")
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    for name in ("allocate_slots", "cache_blocks"):
        monkeypatch.setattr(KVCacheManager, name, getattr(KVCacheManager, name))
    return KVCacheManager


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_step_is_the_same(case, whole, tmp_path):
    from benchmarks.speed.scheduling import Engine

    sequences, at_once, blocks = CASES[case]
    lengths = [random.Random(n).randrange(1, 300) for n in range(sequences)]
    engines = [Engine(tmp_path, at_once, blocks) for _ in range(2)]
    steps = [[*engines[0].generate(lengths, seed)] for seed in (1, 1, 2)]
    scheduling.shorten()
    short = whole.allocate_slots
    scheduling.shorten()
    assert whole.allocate_slots is short and vars(short)["is_short"]
    assert [[*engines[1].generate(lengths, seed)] for seed in (1, 1, 2)] == steps
    assert any(step.put_off for step in steps[0]) == (case == "with sequences put off")
    assert min(len(step.tokens) for step in steps[0]) <= 1 < len(steps[0])


def test_a_rehearsal_says_which_levers_it_was_made_with(monkeypatch):
    names = ["R1RECIPES_PASSES", "R1RECIPES_GRAPHS", "R1RECIPES_CHECKPOINTS", scheduling.VARIABLE]
    for name in (*names, "R1RECIPES_LOGIT_ROWS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNSLOTH_VLLM_MERGED_ROLLOUT", "0")  # as `prepare` leaves it
    assert environment.levers() == {}
    monkeypatch.setenv(scheduling.VARIABLE, "short")
    monkeypatch.setenv("UNSLOTH_VLLM_MERGED_ROLLOUT", "1")
    asked_for = {scheduling.VARIABLE: "short", "UNSLOTH_VLLM_MERGED_ROLLOUT": "1"}
    assert environment.levers() == asked_for


class Manager(SimpleNamespace):
    """A KVCacheManager with these groups of layers."""


def manager(*groups: object, enable_caching: bool = True) -> Manager:
    coordinator = SimpleNamespace(single_type_managers=groups)
    pool = SimpleNamespace(hash_block_size=16)
    return Manager(coordinator=coordinator, block_pool=pool, enable_caching=enable_caching)


class FullAttentionManager(SimpleNamespace):
    """As vLLM calls it."""


class SlidingWindowManager(SimpleNamespace):
    """As vLLM calls it."""


def test_layers_that_differ_or_keep_a_window_are_left_to_vllm():
    full, window = FullAttentionManager(block_size=16), SlidingWindowManager(block_size=16)
    plain = manager(full)
    assert scheduling.only_group(plain) is full and plain.only_group is full
    others = [manager(full, window), manager(window), manager(full, enable_caching=False)]
    others += [manager(FullAttentionManager(block_size=32))]
    assert [scheduling.only_group(each) for each in others] == [None] * 4


@pytest.mark.parametrize("value", [None, "whole"])
def test_vllm_is_not_touched_without_being_asked(value, monkeypatch):
    if value is None:
        monkeypatch.delenv(scheduling.VARIABLE, raising=False)
    else:
        monkeypatch.setenv(scheduling.VARIABLE, value)
    monkeypatch.setitem(sys.modules, "vllm.v1.core.kv_cache_manager", None)  # cannot be imported
    scheduling.prepare()
    monkeypatch.setenv(scheduling.VARIABLE, "short")
    with pytest.raises(ImportError):
        scheduling.prepare()
    monkeypatch.setenv(scheduling.VARIABLE, "fast")
    with pytest.raises(RunError, match="R1RECIPES_SCHEDULING is 'fast'"):
        scheduling.prepare()

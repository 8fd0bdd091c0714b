"""The samples of a step; repairs of Unsloth's trainer, on one that cuts as Unsloth's does."""

import functools
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from r1recipes import planning, recipe
from r1recipes.errors import RunError
from r1recipes.training.backends.trainer import SAMPLES_PER_STEP, Collector
from r1recipes.training.backends.unsloth import engine, patches


class CuttingTrainer:
    """How Unsloth's GRPOTrainer cuts the completions that it scores (rl_replacements.py)."""

    def __init__(self, batch: int):
        self.args = SimpleNamespace(unsloth_grpo_mini_batch=1, per_device_train_batch_size=batch)

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, keep):
        size = -(-len(input_ids) // self.args.unsloth_grpo_mini_batch)
        if model is None:
            raise RuntimeError("out of memory")
        return [len(input_ids[n : n + size]) for n in range(0, len(input_ids), size)]


@pytest.mark.parametrize(("completions", "batch"), [(64, 8), (64, 64), (6, 2), (8, 1), (4, 16)])
def test_the_reference_is_scored_in_passes_as_large_as_those_of_training(completions, batch):
    trainer = CuttingTrainer(batch)
    patches.bound_reference_pass(trainer)
    sizes = trainer._get_per_token_logps_and_entropies("model", [0] * completions, [], 1)
    assert sum(sizes) == completions and max(sizes) == min(batch, completions)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer._get_per_token_logps_and_entropies(None, [0] * completions, [], 1)
    assert trainer.args.unsloth_grpo_mini_batch == 1  # the training pass stays whole


def test_the_reference_pass_is_not_compiled():
    """Each number of parts would be compiled anew."""
    compiled = []

    def backend(module, inputs):
        compiled.append(module)
        return module.forward

    @torch.compile(backend=backend, dynamic=True, fullgraph=True)
    def total(rows, parts):
        return sum(part.exp().sum() for part in rows.tensor_split(parts))

    trainer, rows = SimpleNamespace(args=CuttingTrainer(4).args), torch.zeros(24)
    trainer._get_per_token_logps_and_entropies = lambda model, rows: total(rows, len(rows) // 4)
    patches.bound_reference_pass(trainer)
    assert trainer._get_per_token_logps_and_entropies("model", rows) == 24 and not compiled
    assert total(rows, 6) == 24 and compiled


class Llm:
    """vLLM's `LLM` as Unsloth makes it: with these arguments, of which some are not the plan's."""

    def __init__(self, **arguments: object):
        self.arguments = arguments


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (None, {"kv_cache_dtype": "auto", "attention_backend": "FLASH_ATTN"}),
        ("fp8", {"kv_cache_dtype": "fp8", "attention_backend": "FLASH_ATTN"}),
        (
            "int8_per_token_head",
            {"kv_cache_dtype": "int8_per_token_head", "attention_backend": "TRITON_ATTN"},
        ),
    ],
)
def test_the_engine_is_loaded_with_the_kv_cache_of_the_preset(dtype, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Llm))
    unsloths = {"kv_cache_dtype": "auto", "attention_backend": "FLASH_ATTN"}
    plan: Any = SimpleNamespace(preset=SimpleNamespace(kv_cache_dtype=dtype))
    follow = functools.partial(engine.follow, plan)
    with patches.engine_arguments(follow):
        assert Llm(**unsloths).arguments == expected
    with pytest.raises(ValueError, match="no memory"), patches.engine_arguments(follow):
        raise ValueError("no memory")
    assert Llm(**unsloths).arguments == unsloths


@pytest.mark.parametrize(
    ("num_seqs", "sizes"),
    [
        (6, [1, 2, 4, 6, 8]),
        (24, [1, 2, 4, 8, 16, 24, 32]),
        (72, [1, 2, 4, 8, 16, 32, 64, 72, 96, 128]),
        (257, [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 384, 512]),
        (272, [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 272, 384, 512]),
    ],
)
def test_few_graphs_have_one_for_the_largest_batch(num_seqs, sizes, monkeypatch):
    preset = SimpleNamespace(kv_cache_dtype=None)
    plan: Any = SimpleNamespace(preset=preset, max_num_seqs=num_seqs)
    config = SimpleNamespace(cudagraph_capture_sizes=None)
    engine.follow(plan, {"compilation_config": config})
    assert config.cudagraph_capture_sizes is None
    monkeypatch.setenv(engine.GRAPHS, "few")
    engine.follow(plan, {"compilation_config": config})
    assert config.cudagraph_capture_sizes == sizes
    monkeypatch.setenv(engine.GRAPHS, "none")
    with pytest.raises(RunError, match="R1RECIPES_GRAPHS is 'none'"):
        engine.follow(plan, {"compilation_config": config})


@pytest.mark.parametrize(
    ("weights", "best", "worst"),
    [
        ({"a": 1.0, "b": 0.0}, 2, 0),
        ({"a": 0.0, "b": 1.0}, 0, 4),
        ({"a": 2.0, "b": 1.0}, 1, 4),
        ({"a": 1.0, "b": 2.0}, 0, 4),
    ],
)
def test_the_best_and_the_worst_paid_are_so_by_the_weighted_sum(small, weights, best, worst):
    """A reward of weight 0 is only looked at; None pays nothing."""
    paid: dict[str, list[float | None]] = {
        "a": [0.0, 1.59, 1.6, 0.5, 0.1],
        "b": [2.0, 0.2, None, 0.3, -0.1],
    }
    loaded = recipe.load(small).recipe.model_copy(update={"rewards": weights})
    target = planning.Target.here(None, 1)
    plan = planning.make(recipe.load(small).recipe, target, base_dir=small.parent)
    collector = Collector({}, plan.model_copy(update={"recipe": loaded}))
    collector._paid, collector._completions = paid, [[{"content": str(n)}] for n in range(5)]
    collector._prompts = [[{"content": "?"}]] * 5
    first, second, *rest = (row["completion"] for row in collector.samples())
    assert (int(first), int(second)) == (best, worst)
    assert len(rest) == SAMPLES_PER_STEP - 2


def test_memory_of_paged_optimizers_is_counted(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert patches.paged_bytes() == 0
    instance = SimpleNamespace(paged_tensors=[torch.zeros(100_000, dtype=torch.uint8)] * 2)
    manager = SimpleNamespace(get_instance=lambda: instance)
    functional = SimpleNamespace(GlobalPageManager=manager)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", functional)
    assert patches.paged_bytes() == 200_000

"""The parts of the Unsloth backend that need neither a GPU nor Unsloth, which is replaced."""

import importlib
import os
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from r1recipes import planning, recipe
from r1recipes.errors import PlanError, RunError
from r1recipes.machine import packages
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.training.backends import builtin
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.unsloth import engine, environment, patches, sampling

CARD = Gpu(0, "NVIDIA L4", 22 * GIB, 22 * GIB, 8.9, "580.1")
MODULES: dict[str, dict[str, Any]] = {
    "unsloth": {"FastLanguageModel": None},
    "unsloth.models.loader_utils": {"BAD_MAPPINGS": {}},
    "unsloth.models.mapper": {"FLOAT_TO_INT_MAPPER": {"a/known": "a/known-unsloth-bnb-4bit"}},
    "unsloth_zoo.vllm_utils": {"prepare_merged_rollout": None},
    "vllm": {"SamplingParams": SimpleNamespace},
}


@pytest.fixture
def unsloth(monkeypatch):
    """The module, with stand-ins for the libraries that it imports."""
    for name in ("GRPOConfig", "GRPOTrainer"):  # TRL must not see the stand-in for vLLM
        getattr(importlib.import_module("trl"), name)
    for name, content in MODULES.items():
        module = ModuleType(name)
        vars(module).update(content | {"__spec__": ModuleSpec(name, None)})
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("r1recipes.training.backends.unsloth.backend")
    del sys.modules["r1recipes.training.backends.unsloth.backend"]


def made(unsloth, *overrides: str):
    loaded = recipe.load("qwen2.5-1.5b", list(overrides))
    plan = planning.make(
        loaded.recipe, planning.Target.elsewhere(CARD), base_dir=loaded.path.parent
    )
    return unsloth.UnslothBackend(plan, offline=True)


def answered(batch, params, use_tqdm) -> list[SimpleNamespace]:
    """How vLLM 0.26 works through a call (entrypoints/offline_utils.py), with one token for each
    completion; the last prompt ends first."""
    prompts = list(use_tqdm(batch, desc="Rendering prompts"))
    bar = use_tqdm(
        total=len(prompts) * params.n, desc="Processed prompts", dynamic_ncols=True, postfix="0.00"
    )
    for _ in prompts:
        assert 1 / bar.format_dict["elapsed"] > 0
        bar.postfix = "est. speed input: 1 toks/s"
        bar.update(params.n)
        if bar.n == len(prompts) * params.n:
            bar.refresh()
    bar.close()
    output = SimpleNamespace(token_ids=[20], finish_reason="stop")
    return [SimpleNamespace(outputs=[output] * params.n) for _ in prompts]


@pytest.mark.parametrize(("samples", "per_call"), [(1, 4096), (4, 4096), (4, 3)])
def test_progress_is_that_of_the_prompts_in_one_call_and_in_several(
    samples, per_call, unsloth, monkeypatch, capsys
):
    """vLLM counts completions, and first the prompts that it prepares."""
    calls, done = [], []

    def fast_generate(batch, sampling_params, lora_request, use_tqdm):
        calls.append(len(batch))
        return answered(batch, sampling_params, use_tqdm)

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    monkeypatch.setattr(sampling, "PROMPTS_PER_CALL", per_call)
    backend = made(unsloth, "eval.batch_size=2")
    backend._tokenizer = builtin.build_tokenizer()
    backend.model = SimpleNamespace(device=torch.device("cpu"), fast_generate=fast_generate)
    hooks = Hooks(on_progress=lambda *count: done.append(count))
    groups = backend.generate(
        [[{"role": "user", "content": "1+1"}]] * 7, samples, False, False, hooks
    )
    assert [len(group) for group in groups] == [samples] * 7
    assert calls == ([7] if per_call > 7 else [3, 3, 1])
    assert done == [(n, 7) for n in range(1, 8)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("samples", "block"), [(8, 512), (16, 256), (1024, 4)])
def test_a_block_keeps_the_engine_at_work(samples, block, unsloth):
    backend = made(
        unsloth, f"preset.num_generations={samples}", f"preset.prompts_per_step={samples}"
    )
    assert backend.block_size() == block


def test_answers_are_those_of_the_weights_of_now_and_take_no_random_numbers(unsloth, monkeypatch):
    """As in an evaluation while training: each call hands the engine the adapter as it is."""
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state)
    )
    seen = []

    def fast_generate(batch, sampling_params, lora_request, use_tqdm):
        torch.rand(3)
        seen.append((len(batch), sampling_params.n, sampling_params.seed, lora_request))
        assert sampling_params.detokenize is False
        return answered(batch, sampling_params, use_tqdm)

    monkeypatch.setattr(sampling, "PROMPTS_PER_CALL", 2)
    backend, saved = made(unsloth), ["step 1"]
    backend._tokenizer = builtin.build_tokenizer()
    backend.model = SimpleNamespace(
        device=torch.device("cpu"),
        fast_generate=fast_generate,
        save_lora=lambda folder: (Path(folder) / "weights").write_text(saved[0]),
        load_lora=lambda folder: (Path(folder) / "weights").read_text(),
    )
    before = torch.get_rng_state()
    prompts = [[{"role": "user", "content": "1+1"}]] * 3
    for saved[0] in ("step 1", "step 2"):
        groups = backend.generate(prompts, 1, False, True, Hooks())
        assert [len(group) for group in groups] == [1, 1, 1]
    backend.generate(prompts[:1], 1, False, False, Hooks())
    assert torch.equal(torch.get_rng_state(), before)
    seed = backend.recipe.seed
    calls = [(2, "step 1"), (1, "step 1"), (2, "step 2"), (1, "step 2"), (1, None)]
    assert seen == [(size, 1, seed, lora) for size, lora in calls]


def test_an_engine_that_cannot_be_shut_down_hides_no_error_before_it(unsloth):
    """After an illegal memory access each call of CUDA fails, and the first error is the cause."""

    def shutdown():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    core = SimpleNamespace(shutdown=shutdown)
    backend = made(unsloth)
    backend.model = SimpleNamespace(
        vllm_engine=SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))
    )
    backend.close()


def test_the_engine_is_hidden_while_a_trainer_is_made_also_when_that_fails():
    inner = torch.nn.Linear(1, 1)
    outer = torch.nn.Sequential(inner)
    held = SimpleNamespace()
    for module in (inner, outer):
        vars(module)["vllm_engine"] = held
    with patches.without_engine(outer):
        assert not hasattr(outer, "vllm_engine") and not hasattr(inner, "vllm_engine")
    with pytest.raises(UnboundLocalError), patches.without_engine(outer):
        raise UnboundLocalError
    assert vars(inner)["vllm_engine"] is vars(outer)["vllm_engine"] is held


def test_torch_is_stopped_before_the_card_is_full(unsloth, monkeypatch):
    """On a card with less memory than is used outside torch, torch may allocate nothing."""
    fractions: list[float] = []
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", fractions.append)
    backend = made(unsloth)
    for size in (22 * GIB, GIB):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda size=size: (size, size))
        engine.limit_allocator(backend.plan)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (8 * GIB, 22 * GIB))
    engine.limit_allocator(backend.plan)
    assert fractions == [0.97 - 1 / 22, 0.0, 8 / 22]


def test_the_engines_share_is_one_of_what_is_free(unsloth, monkeypatch):
    backend = made(unsloth)
    share = backend.plan.preset.gpu_memory_utilization * CARD.total_bytes
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2 * share, CARD.total_bytes))
    assert engine.share_of_free(backend.plan) == 0.5
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (0.9 * share, CARD.total_bytes))
    with pytest.raises(PlanError, match="GiB of the card are free"):
        engine.share_of_free(backend.plan)


@pytest.mark.parametrize(
    ("name", "load_in", "revision", "loaded", "commit"),
    [
        ("a/b", "16bit", None, "a/b", "of the config"),
        ("a/b", "16bit", "v1", "c0ffee", "c0ffee"),
        ("a/b", "4bit", None, "nf4 of c0ffee in nf4", "c0ffee"),
        ("a/b-bnb-4bit", "4bit", None, "a/b-bnb-4bit", "of the config"),
        ("a/b-bnb-4bit", "4bit", "v1", "nf4 of c0ffee in nf4", "c0ffee"),
        ("a/b", "fp8", None, "fp8 of c0ffee in fp8", "c0ffee"),
        ("a/known", "fp8", "v1", "fp8 of c0ffee in fp8", "c0ffee"),
    ],
)
def test_the_published_4_bit_form_or_a_folder_is_loaded_and_its_commit_recorded(
    name, load_in, revision, loaded, commit, unsloth, monkeypatch, tmp_path
):
    (tmp_path / "c0ffee").mkdir()
    (tmp_path / "c0ffee" / "config.json").write_text("{}")
    monkeypatch.setattr(unsloth.weights, "at_commit", lambda *asked: tmp_path / "c0ffee")
    monkeypatch.setattr(
        unsloth.quantised,
        "cached",
        lambda folder, cache, dtype, form: f"{form.name} of {folder.name} in {cache.name}",
    )
    backend = made(unsloth, f"preset.load_in={load_in}")
    model = backend.recipe.model.model_copy(update={"name": name, "revision": revision})
    backend.recipe = backend.recipe.model_copy(update={"model": model})
    assert backend._weights(None).endswith(loaded)
    backend.model = SimpleNamespace(config=SimpleNamespace(_commit_hash="of the config"))
    assert backend._revision() == commit


def test_the_sizes_of_an_engine_are_read_as_far_as_it_has_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (3 * GIB, CARD.total_bytes))
    config = SimpleNamespace(
        cache_config=SimpleNamespace(num_gpu_blocks=1000, block_size=16),
        scheduler_config=SimpleNamespace(max_num_seqs=64, max_num_batched_tokens=2048),
    )
    runner = SimpleNamespace(model_memory_usage=2 * GIB)
    worker = SimpleNamespace(model_runner=runner, requested_memory=4 * GIB, non_torch_memory=None)
    executor = SimpleNamespace(driver_worker=SimpleNamespace(worker=worker))
    core = SimpleNamespace(engine_core=SimpleNamespace(model_executor=executor))
    llm_engine = SimpleNamespace(vllm_config=config, engine_core=core)
    assert engine.facts(SimpleNamespace(llm_engine=llm_engine)) == {
        "kv_tokens": 16_000,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "free_after_load_gib": 3.0,
        "weights_gib": 2.0,
        "requested_gib": 4.0,
    }


def test_the_memory_before_a_kv_cache_is_read_where_the_engine_counts_it_as_a_whole(monkeypatch):
    """As vLLM does from 0.27.1 on, which has no number for what lies outside torch."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (3 * GIB, CARD.total_bytes))
    config = SimpleNamespace(
        cache_config=SimpleNamespace(num_gpu_blocks=10, block_size=16, kv_cache_size_tokens=150),
        scheduler_config=SimpleNamespace(max_num_seqs=64, max_num_batched_tokens=2048),
    )
    runner = SimpleNamespace(model_memory_usage=2 * GIB)
    worker = SimpleNamespace(
        model_runner=runner, total_consumed=2.25 * GIB, peak_activation_memory=GIB / 2
    )
    core = SimpleNamespace(
        engine_core=SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))
    )
    facts = engine.facts(
        SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config, engine_core=core))
    )
    assert {key: facts.get(key) for key in ("consumed_gib", "profile_gib", "non_torch_gib")} == {
        "consumed_gib": 2.25,
        "profile_gib": 0.5,
        "non_torch_gib": None,
    }
    assert facts["kv_tokens"] == 150


def test_the_sources_that_were_read_are_of_supported_versions():
    """A version range that moves on means that what was read has to be read again."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    ranges = {r.name: r.specifier for r in map(Requirement, texts)}
    read = {name: version for name, version in packages.READ_IN.items() if name in ranges}
    assert read.keys() >= {"unsloth", "unsloth_zoo", "vllm", "trl", "transformers"}
    for name, version in read.items():
        assert version in ranges[name], name


@pytest.mark.parametrize(
    ("place", "value"), [(None, "unsloth"), ("host", "unsloth"), ("card", True)]
)
def test_where_the_inputs_of_layers_wait_can_be_chosen(monkeypatch, place, value):
    if place:
        monkeypatch.setenv(environment.CHECKPOINTS, place)
    assert environment.checkpointing() == value
    monkeypatch.setenv(environment.CHECKPOINTS, "disk")
    with pytest.raises(RunError, match="R1RECIPES_CHECKPOINTS is 'disk'"):
        environment.checkpointing()


@pytest.mark.parametrize(("asked", "rows"), [(None, "256"), ("1024", "1024"), ("", "256")])
def test_the_rows_of_a_part_of_the_logits_can_be_chosen(
    unsloth, monkeypatch, tmp_path, asked, rows
):
    plan = made(unsloth).plan
    monkeypatch.setattr(os, "environ", {} if asked is None else {environment.LOGIT_ROWS: asked})
    environment.prepare(plan, tmp_path)
    assert os.environ["UNSLOTH_GRPO_MAX_ROWS_PER_CHUNK"] == rows

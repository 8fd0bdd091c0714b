"""What of the Unsloth backend needs neither a card nor Unsloth, which is left out."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from trl import GRPOConfig, GRPOTrainer

from r1recipes import planning, recipe
from r1recipes.errors import PlanError
from r1recipes.machine.gpu import Gpu

assert GRPOConfig and GRPOTrainer  # imported while no module has the place of vLLM
CARD = Gpu(0, "NVIDIA L4", 22 * 2**30, 22 * 2**30, 8.9, "580.1")
MODULES = {
    "unsloth": {"FastLanguageModel": None},
    "unsloth.models.loader_utils": {"BAD_MAPPINGS": {}},
    "unsloth.models.mapper": {"FLOAT_TO_INT_MAPPER": {"a/known": "a/known-unsloth-bnb-4bit"}},
    "vllm": {"SamplingParams": dict},
}


@pytest.fixture
def unsloth(monkeypatch):
    """The module, with empty ones in place of what it imports."""
    for name, content in MODULES.items():
        module = ModuleType(name)
        vars(module).update(content, __spec__=ModuleSpec(name, None))
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("r1recipes.training.backends.unsloth.backend")
    del sys.modules["r1recipes.training.backends.unsloth.backend"]


def made(unsloth, *overrides: str):
    loaded = recipe.load("qwen2.5-1.5b", list(overrides))
    found = planning.make(
        loaded.recipe, planning.Target.elsewhere(CARD), base_dir=loaded.path.parent
    )
    return unsloth.UnslothBackend(found, offline=True)


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


def test_torch_is_stopped_before_the_card_is_full(unsloth, monkeypatch):
    """On a card smaller than what is outside torch it is out of memory, and no other error."""
    given = []
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", given.append)
    backend = made(unsloth)
    for size in (22 * 2**30, 2**30):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda size=size: (size, size))
        unsloth.limit_allocator(backend.plan)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (8 * 2**30, 22 * 2**30))
    unsloth.limit_allocator(backend.plan)
    assert given == [0.97 - 1 / 22, 0.0, 8 / 22]


def test_the_engines_share_is_one_of_what_is_free(unsloth, monkeypatch):
    backend = made(unsloth)
    wanted = backend.plan.preset.gpu_memory_utilization * CARD.total_bytes
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2 * wanted, CARD.total_bytes))
    assert unsloth.share_of_free(backend.plan) == 0.5
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (0.9 * wanted, CARD.total_bytes))
    with pytest.raises(PlanError, match="GiB of the card are free"):
        unsloth.share_of_free(backend.plan)


@pytest.mark.parametrize(
    ("name", "four_bit", "revision", "loaded", "commit"),
    [
        ("a/b", False, None, "a/b", "of the config"),
        ("a/b", False, "v1", "c0ffee", "c0ffee"),
        ("a/b", True, None, "nf4 of c0ffee", "c0ffee"),
        ("a/b-bnb-4bit", True, None, "a/b-bnb-4bit", "of the config"),
        ("a/b-bnb-4bit", True, "v1", "nf4 of c0ffee", "c0ffee"),
    ],
)
def test_what_is_loaded_and_whose_commit_is_noted(
    name, four_bit, revision, loaded, commit, unsloth, monkeypatch, tmp_path
):
    (tmp_path / "c0ffee").mkdir()
    (tmp_path / "c0ffee" / "config.json").write_text("{}")
    monkeypatch.setattr(unsloth, "at_commit", lambda *asked: tmp_path / "c0ffee")
    monkeypatch.setattr(unsloth.nf4, "cached", lambda folder, *rest: f"nf4 of {folder.name}")
    backend = made(unsloth, f"preset.load_in_4bit={str(four_bit).lower()}")
    model = backend.recipe.model.model_copy(update={"name": name, "revision": revision})
    backend.recipe = backend.recipe.model_copy(update={"model": model})
    assert backend._weights(None).endswith(loaded)
    backend.model = SimpleNamespace(config=SimpleNamespace(_commit_hash="of the config"))
    assert backend._revision() == commit

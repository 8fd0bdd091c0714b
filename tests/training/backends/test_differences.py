"""A plan is compared with what PEFT and TRL made of it, and with a stand-in for the engine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Phi3Config, Phi3ForCausalLM
from trl import GRPOConfig

from r1recipes import planning, recipe
from r1recipes.errors import RunError
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import out_of_memory
from r1recipes.training.backends import builtin, trainer
from r1recipes.training.backends.unsloth import differences

GIB = 2**30
CARD = Gpu(0, "NVIDIA T4", 14 * GIB, 14 * GIB, 8.0, "580.0")
TOTAL = 80 * GIB
SHARE = 0.5 * CARD.total_bytes / TOTAL


def made(*overrides: str) -> planning.Plan:
    loaded = recipe.load("qwen2.5-1.5b", ["preset.load_in_4bit=false", *overrides])
    return planning.make(
        loaded.recipe,
        planning.Target.elsewhere(CARD),
        base_dir=loaded.path.parent,
        preset="8GB",
    )


def engine(
    share: float = SHARE, sequences: int = 64, stored: str = "auto", **model: object
) -> SimpleNamespace:
    """What is read of a loaded model, with an engine of this share of the card."""
    model = {"max_model_len": 1024, "dtype": "torch.bfloat16", "quantization": None} | model
    config = SimpleNamespace(
        cache_config=SimpleNamespace(
            gpu_memory_utilization=share, num_gpu_blocks=1000, block_size=16, cache_dtype=stored
        ),
        model_config=SimpleNamespace(**model),
        scheduler_config=SimpleNamespace(max_num_seqs=sequences),
        lora_config=SimpleNamespace(max_lora_rank=32),
    )
    llm_engine = SimpleNamespace(vllm_config=config)
    return SimpleNamespace(vllm_engine=SimpleNamespace(llm_engine=llm_engine))


@pytest.fixture(autouse=True)
def card(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (TOTAL, TOTAL))


def names(rows: list[differences.Difference]) -> list[str]:
    return [name for name, *_ in rows]


def test_an_engine_that_was_loaded_again_with_less_is_out_of_memory():
    """Unsloth takes 0.85 of the share and 0.75 of the sequences, with a printed line."""
    asked = made()
    differences.refuse_second_try(engine(), asked)
    less = engine(0.85 * SHARE, 48)
    with pytest.raises(RunError, match="asked for 7.0 GiB, and Unsloth would go on with 5.9") as e:
        differences.refuse_second_try(less, asked)
    assert e.value.kind == "oom"
    assert "gpu_memory_utilization=0.4" in (e.value.problems[0].hint or "")
    assert out_of_memory.is_out_of_memory(str(e.value))


def test_another_kv_cache_than_the_one_asked_for():
    """Unsloth drops an argument that the engine does not know, with a printed line."""
    asked = made("preset.kv_cache_dtype=int8_per_token_head")
    assert names(differences.engine_differences(engine(), asked)) == ["KV cache"]
    stored = engine(stored="int8_per_token_head")
    assert differences.engine_differences(stored, asked) == []


@pytest.mark.parametrize(("bias", "rows"), [(True, ["KV cache"]), (False, [])])
def test_fp8_without_scales_is_refused_for_keys_with_a_bias_of_an_unknown_model(bias, rows):
    asked = made()
    preset = asked.preset.model_copy(update={"kv_cache_dtype": "fp8"})
    asked = asked.model_copy(update={"preset": preset})
    model = engine(stored="fp8")
    part = torch.nn.ModuleDict({"k_proj": torch.nn.Linear(2, 2, bias=bias)})
    model.named_parameters = part.named_parameters
    assert names(differences.engine_differences(model, asked)) == rows


def test_an_engine_as_asked_and_others():
    asked = made()
    assert differences.engine_differences(engine(), asked) == []
    assert names(differences.engine_differences(engine(1.5 * SHARE), asked)) == [
        "the engine's share"
    ]
    other = engine(max_model_len=512, dtype="torch.float16")
    assert names(differences.engine_differences(other, asked)) == ["max_seq_length", "dtype"]
    assert names(differences.engine_differences(object(), asked)) == ["engine"]


def test_an_adapter_as_asked_and_others():
    asked = made()
    arguments: dict[str, Any] = {
        "r": asked.preset.lora_rank,
        "lora_alpha": asked.lora_alpha,
        "target_modules": list(asked.recipe.lora.target_modules),
    }
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, []),
        ({"lora_alpha": 3}, ["lora_alpha"]),
        ({"lora_dropout": 0.1, "use_rslora": True}, ["lora_dropout", "use_rslora"]),
        ({"target_modules": ["q_proj"], "r": 4}, ["lora_rank", "target_modules"]),
    ]
    for changes, expected in cases:
        model = get_peft_model(builtin.build_model(1), LoraConfig(**arguments | changes))
        assert names(differences.adapter_differences(model, asked)) == expected


def test_layers_that_are_computed_again_against_the_plan_are_reported():
    """Unsloth marks the layers that are not, and leaves out those that it cannot mark."""
    asked = made("preset.layers_not_recomputed=2")
    targets: list[str] = list(asked.recipe.lora.target_modules)
    config = LoraConfig(r=32, lora_alpha=32, target_modules=targets)
    model: Any = get_peft_model(builtin.build_model(1), config)
    assert differences.adapter_differences(model, asked) == [("layers_not_recomputed", 2, 0)]
    for layer in model.get_base_model().model.layers[:2]:
        vars(layer)["_unsloth_skip_checkpoint"] = True
    assert differences.adapter_differences(model, asked) == []
    more_than_it_has = made("preset.layers_not_recomputed=1000")
    assert differences.adapter_differences(model, more_than_it_has) == []


def test_layers_that_a_model_does_not_have_get_no_adapter_and_are_reported():
    """Phi-3's own layout has q, k and v in one layer, and gate and up; PEFT skips them silently."""
    phi = Phi3Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=8,
        pad_token_id=0,
    )
    asked = made()
    targets: list[str] = list(asked.recipe.lora.target_modules)
    config = LoraConfig(r=32, lora_alpha=32, target_modules=targets)
    model = get_peft_model(Phi3ForCausalLM(phi), config)
    expected = ("target_modules", sorted(targets), ["down_proj", "o_proj"])
    assert differences.adapter_differences(model, asked) == [expected]


def test_every_argument_is_compared(tmp_path):
    on_cpu = {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}
    asked = trainer.arguments(made(), tmp_path) | on_cpu
    got = GRPOConfig(**asked)
    assert differences.argument_differences(asked, got) == []
    got.learning_rate, got.epsilon_high = 1.0, None
    assert names(differences.argument_differences(asked | {"no_such": 1}, got)) == [
        "learning_rate",
        "epsilon_high",
        "no_such",
    ]
    with pytest.raises(RunError, match="learning_rate: asked .*, got 1.0"):
        differences.refuse_differences(differences.argument_differences(asked, got))

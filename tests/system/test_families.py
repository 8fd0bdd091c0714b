"""Every family of models that can be planned has the parameters that transformers makes.

Limits: models of the meta device, so no weights; published sizes are those of some models only.
"""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from r1recipes.planning import architectures
from r1recipes.planning.architectures import families
from r1recipes.planning.memory import engine, predict, training
from r1recipes.planning.memory.case import ADAM_8BIT_BYTES, Case

KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
WIDE = {"head_dim": 128}
"""Heads whose size is not hidden_size / num_attention_heads."""

# Dimensions of the published config.json, without the keys that it does not have.
MODELS: dict[str, tuple[str, tuple[int | None, ...], dict[str, Any]]] = {
    "Llama-3.2-1B": ("llama", (2048, 8192, 16, 32, 8, 128256), TIED | {"head_dim": 64}),
    "Llama-3.2-3B": ("llama", (3072, 8192, 28, 24, 8, 128256), TIED | WIDE),
    "Llama-3.3-70B": ("llama", (8192, 28672, 80, 64, 8, 128256), UNTIED),
    "DeepSeek-R1-Distill-Llama-8B": ("llama", (4096, 14336, 32, 32, 8, 128256), UNTIED),
    "TinyLlama-1.1B": ("llama", (2048, 5632, 22, 32, 4, 32000), {}),
    "Yi-1.5-9B": ("llama", (4096, 11008, 48, 32, 4, 64000), UNTIED),
    "SmolLM2-135M": ("llama", (576, 1536, 30, 9, 3, 49152), TIED),
    "SmolLM2-1.7B": ("llama", (2048, 8192, 24, 32, 32, 49152), TIED),
    "Llama-2-7B": ("llama", (4096, 11008, 32, 32, None, 32000), {}),
    "Falcon3-7B": ("llama", (3072, 23040, 28, 12, 4, 131072), UNTIED | {"head_dim": 256}),
    "with every bias": (
        "llama",
        (512, 1024, 2, 8, 4, 1000),
        {"attention_bias": True, "mlp_bias": True},
    ),
    "Qwen2.5-0.5B": ("qwen2", (896, 4864, 24, 14, 2, 151936), TIED),
    "DeepSeek-R1-Distill-Qwen-1.5B": ("qwen2", (1536, 8960, 28, 12, 2, 151936), UNTIED),
    "Qwen2.5-32B": ("qwen2", (5120, 27648, 64, 40, 8, 152064), UNTIED),
    "Qwen2.5-72B": ("qwen2", (8192, 29568, 80, 64, 8, 152064), UNTIED),
    "Qwen3-0.6B": ("qwen3", (1024, 3072, 28, 16, 8, 151936), TIED | WIDE),
    "Qwen3-1.7B": ("qwen3", (2048, 6144, 28, 16, 8, 151936), TIED | WIDE),
    "Qwen3-4B": ("qwen3", (2560, 9728, 36, 32, 8, 151936), TIED),
    "Qwen3-8B": ("qwen3", (4096, 12288, 36, 32, 8, 151936), UNTIED | WIDE),
    "Qwen3-14B": ("qwen3", (5120, 17408, 40, 40, 8, 151936), UNTIED | WIDE),
    "Qwen3-32B": ("qwen3", (5120, 25600, 64, 64, 8, 151936), UNTIED | WIDE),
    "Mistral-Nemo-12B": ("mistral", (5120, 14336, 40, 32, 8, 131072), UNTIED | WIDE),
    "Mistral-Small-24B": ("mistral", (5120, 32768, 40, 32, 8, 131072), UNTIED | WIDE),
    "Mistral-7B-v0.1": (
        "mistral",
        (4096, 14336, 32, 32, 8, 32000),
        UNTIED | {"sliding_window": 4096},
    ),
    "Ministral-8B": ("mistral", (4096, 12288, 36, 32, 8, 131072), {"sliding_window": 32768}),
    "a Ministral": ("ministral", (4096, 12288, 4, 32, 8, 131072), UNTIED | WIDE),
    "Ministral-3-3B, text": ("ministral3", (3072, 9216, 26, 32, 8, 131072), TIED | WIDE),
    "Ministral-3-8B, text": ("ministral3", (4096, 14336, 34, 32, 8, 131072), UNTIED | WIDE),
    "Phi-3.5-mini": ("phi3", (3072, 8192, 32, 32, 32, 32064), UNTIED | {"sliding_window": 262144}),
    "Phi-4-mini": ("phi3", (3072, 8192, 32, 24, 8, 200064), TIED | {"partial_rotary_factor": 0.75}),
    "Gemma-2B": ("gemma", (2048, 16384, 18, 8, 1, 256000), {"head_dim": 256}),
    "Gemma-2-2B": ("gemma2", (2304, 9216, 26, 8, 4, 256000), {"sliding_window": 4096}),
    "Gemma-2-27B": ("gemma2", (4608, 36864, 46, 32, 16, 256000), WIDE),
    "Gemma-3-1B": ("gemma3_text", (1152, 6912, 26, 4, 1, 262144), {"sliding_window": 512}),
    "Gemma-3-4B, text": ("gemma3_text", (2560, 10240, 34, 8, 4, 262208), {"sliding_window": 1024}),
    "Gemma-3-12B, text": (
        "gemma3_text",
        (3840, 15360, 48, 16, 8, 262208),
        {"sliding_window": 1024, "head_dim": 256},
    ),
    "OLMo-2-7B": ("olmo2", (4096, 11008, 32, 32, 32, 100352), UNTIED),
    "OLMo-3-7B": ("olmo3", (4096, 11008, 32, 32, 32, 100278), UNTIED),
    "Granite-3.1-2B": ("granite", (2048, 8192, 40, 32, 8, 49155), TIED),
    "SmolLM3-3B": ("smollm3", (2048, 11008, 36, 16, 4, 128256), {}),
    "GLM-4-9B": ("glm", (4096, 13696, 40, 32, 2, 151552), UNTIED | {"attention_bias": True}),
}
PUBLISHED = {
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.3-70B": 70_553_706_496,
    "TinyLlama-1.1B": 1_100_048_384,
    "Llama-2-7B": 6_738_415_616,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Gemma-2-2B": 2_614_341_888,
    "Gemma-3-1B": 999_885_952,
    "Mistral-Nemo-12B": 12_247_782_400,
    "Phi-3.5-mini": 3_821_079_552,
    "Phi-4-mini": 3_836_021_760,
}
"""Parameters by the safetensors index of the Hub repository."""


def config_of(name: str) -> dict[str, Any]:
    kind, sizes, rest = MODELS[name]
    return {"model_type": kind} | dict(zip(KEYS, sizes, strict=True)) | rest


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_parameters_that_transformers_makes(name):
    config = config_of(name)
    keys = {key: value for key, value in config.items() if key != "model_type"} | {
        "pad_token_id": 0
    }
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**keys))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert architectures.of_config(config, name).shape.parameters == total
    assert total == PUBLISHED.get(name, total)


def test_every_family_has_a_model_here():
    assert {kind for kind, _, _ in MODELS.values()} == set(families.FAMILIES)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_planned(name):
    shape = architectures.of_config(config_of(name), name).shape
    case = Case(
        shape, "4bit", 1024, 768, 16, tuple(shape.projections), 8, 2, 0, False, ADAM_8BIT_BYTES
    )
    least = predict.least_share_bytes(case)
    prediction = predict.predict(Case(**vars(case) | {"engine_bytes": least}))
    assert prediction.kv_tokens >= engine.sequence_tokens(case)
    weights = shape.linear_parameters / 2 + 2 * shape.embedding_parameters
    assert weights < prediction.peak_bytes < 2 * weights + 12 * 2**30


def test_capped_scores_count_for_every_pair_of_tokens():
    """Twice the length has four times the scores, beside what grows with the tokens."""
    shape = architectures.of_config(config_of("Gemma-2-2B"), "gemma").shape
    plain = architectures.of_config(
        config_of("Gemma-2-2B") | {"model_type": "gemma"}, "gemma"
    ).shape

    def scores(length: int) -> int:
        case = Case(
            plain, "4bit", length, 16, 16, tuple(shape.projections), 8, 2, 0, False, ADAM_8BIT_BYTES
        )
        with_scores = Case(**vars(case) | {"shape": shape})
        capped, uncapped = (predict.predict(c).phases["train"] for c in (with_scores, case))
        return capped["training activations"] - uncapped["training activations"]

    assert scores(2048) == pytest.approx(4 * scores(1024), rel=1e-6)
    assert scores(1024) == pytest.approx(12 * 2 * 1024 * 1024 * 8, rel=1e-6)


class _Alive(TorchDispatchMode):
    """Bytes of the tensors that torch has made within it and not freed, without small ones."""

    def __init__(self, smallest: int):
        super().__init__()
        self.smallest, self.now, self.peak = smallest, 0, 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if size >= self.smallest and key not in self.seen:
                self.seen.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key, size)
        return result

    def _freed(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def test_the_plain_mlp_takes_the_bytes_that_are_counted():
    hidden, inner, tokens = 8, 2048, 64
    config = LlamaConfig(hidden_size=hidden, intermediate_size=inner, num_attention_heads=1)
    mlp = LlamaMLP(config).to(torch.bfloat16).requires_grad_(False)
    rows = torch.ones(tokens, hidden, dtype=torch.bfloat16, requires_grad=True)
    with _Alive(2 * tokens * inner) as alive:
        mlp(rows).sum().backward()
    assert alive.peak == training.PLAIN_MLP_BYTES * tokens * inner


def test_the_mlp_is_fused_where_unsloth_has_a_kernel_for_it():
    def trained(name: str, targets: set[str], **config) -> int:
        shape = architectures.of_config(config_of(name) | config, name).shape
        case = Case(shape, "4bit", 1024, 16, 16, tuple(targets), 8, 2, 0, False, ADAM_8BIT_BYTES)
        return predict.predict(case).phases["train"]["training activations"]

    every = {"q_proj", "k_proj", "v_proj", "o_proj", *training.MLP}
    fused = trained("Qwen3-8B", every)
    more = (training.PLAIN_MLP_BYTES - training.FUSED_MLP_BYTES) * 2 * 1024 * 12288
    assert trained("Qwen3-8B", every - {"up_proj"}) - fused == more
    assert trained("Qwen3-8B", every, model_type="olmo2") - fused == more
    attention = every - training.MLP
    assert trained("Qwen3-8B", attention) == trained("Qwen3-8B", every, model_type="olmo2") - more
    assert trained("with every bias", every) > trained("with every bias", every, mlp_bias=False)

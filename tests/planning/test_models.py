"""Facts: parameter totals against the published ones, names as people and drivers write them."""

import pytest

from r1recipes.planning import models

# safetensors totals of the Hub repositories; those of Qwen3 0.6B and 1.7B less the output head that
# they store beside the embeddings it is tied to
PUBLISHED_PARAMETERS = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    "gemma-3-1b": 999_885_952,
    "smollm2-135m": 134_515_008,
    "mistral-7b-v0.3": 7_248_023_552,
    "phi-4": 14_659_507_200,
}


def test_every_model_has_its_published_number_of_parameters():
    derived = {key: shape.parameters for key, shape in models.MODELS.items()}
    assert derived == PUBLISHED_PARAMETERS


def test_adapter_size_follows_from_the_projections():
    """`Trainable parameters = 83,886,080` in the log of the Llama 3.1 8B notebook at rank 32."""
    shape = models.MODELS["llama-3.1-8b"]
    pairs = shape.projections.values()
    assert shape.num_hidden_layers * 32 * sum(i + o for i, o in pairs) == 83_886_080


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b"),
        ("unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit", "qwen2.5-1.5b"),
        ("unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit", "qwen2.5-7b"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "qwen2.5-0.5b"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("unsloth/mistral-7b-instruct-v0.3-bnb-4bit", "mistral-7b-v0.3"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m"),
        ("unsloth/SmolLM2-135M-Instruct", "smollm2-135m"),
        ("unsloth/Phi-4", "phi-4"),
        ("microsoft/phi-4", "phi-4"),
        ("unsloth/Qwen3-4B-Instruct-2507", "qwen3-4b"),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "qwen3-8b"),
        ("Qwen/Qwen3-1.7B", "qwen3-1.7b"),
        ("unsloth/Llama-3.3-70B-Instruct-bnb-4bit", "llama-3.3-70b"),
        ("unsloth/gemma-3-1b-it", "gemma-3-1b"),
    ],
)
def test_a_model_is_found_by_its_hub_id_and_its_mirrors(name, key):
    assert models.find(name) is models.MODELS[key]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "phi-4",
        "someone/Qwen2.5-1.5B-Instruct",
        "Qwen/Qwen2.5-Math-1.5B",
        "Qwen/Llama-3.1-8B",
        "./Qwen2.5-1.5B",
        "builtin:tiny",
    ],
)
def test_another_name_is_not_taken_for_a_known_model(name):
    assert models.find(name) is None

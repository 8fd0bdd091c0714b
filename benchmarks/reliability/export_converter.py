"""llama.cpp's own converter on a model with Qwen2.5's vocabulary: exported, loaded, answered.

    LLAMA_CPP_DIR=... python -m benchmarks.reliability.export_converter

Builds a Qwen2 model of 41M random weights with the tokenizer of llama.cpp's
models/ggml-vocab-qwen2.gguf, so that the converter recognises it. Makes a run with an adapter of
random weights, which tests a conversion as well as a trained one does, and exports it. Writes
benchmarks/reliability/results/export_converter.json. Limits: needs the extra `gguf` and a checkout
of llama.cpp; random answers say nothing about quality.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from benchmarks import about
from r1recipes.runs.record import Run

FORMS = ("lora", "merged_16bit", "gguf:f16,q8_0,q6_k,q5_k_m,q4_k_m", "ollama")
RESULT = Path(__file__).parent / "results" / "export_converter.json"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2.5 splits text before BPE (published, its tokenizer.json)."""
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RECIPE = """
format = 1
description = "a random Qwen2 with the vocabulary of Qwen2.5"
[model]
name = "model"
[data]
name = "builtin:arithmetic"
size = 40
eval_size = 12
[prompt]
system = "Add."
[rewards]
correctness = 1.0
[train]
max_steps = 1
save_steps = 1
[eval]
samples = 1
[preset.cpu]
max_seq_length = 64
max_completion_length = 16
lora_rank = 16
num_generations = 2
prompts_per_step = 1
"""


def tokenizer(vocabulary: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file that has a vocabulary alone."""
    fields = GGUFReader(vocabulary).fields

    def texts(key: str) -> list[str]:
        field = fields[f"tokenizer.ggml.{key}"]
        return [bytes(field.parts[index]).decode() for index in field.data]

    types = [
        int(fields["tokenizer.ggml.token_type"].parts[i][0])
        for i in fields["tokenizer.ggml.token_type"].data
    ]
    words = texts("tokens")
    normal = {word: i for i, (word, kind) in enumerate(zip(words, types, strict=True)) if kind == 1}
    merges = [(first, second) for first, second in map(str.split, texts("merges"))]
    core = Tokenizer(BPE(normal, merges))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, types, strict=True) if kind == 3]
    core.add_special_tokens([AddedToken(word, normalized=False) for word in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_max_length=1024,
    )


def build(folder: Path, vocabulary: Path) -> None:
    """Write the model, the tokenizer of a vocabulary, and a recipe of both."""
    qwen2 = tokenizer(vocabulary)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=256,  # the k types need blocks of 256
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=qwen2.eos_token_id,
        pad_token_id=qwen2.pad_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    qwen2.save_pretrained(folder / "model")
    (folder / "recipe.toml").write_text(RECIPE)


def randomise(run: Run) -> None:
    """Give the adapter an effect, and mark the evaluation after training as not done."""
    path = run.adapter / "adapter_model.safetensors"
    torch.manual_seed(1)
    weights = {
        name: 0.05 * torch.randn_like(weight) if "lora_B" in name else weight
        for name, weight in load_file(path).items()
    }
    save_file(weights, path, {"format": "pt"})
    evaluation = run.read()["evaluation"]
    run.update(status="stopped", evaluation={"before": evaluation["before"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.parse_args()
    vocabulary = Path(os.environ.get("LLAMA_CPP_DIR", "."), "models", "ggml-vocab-qwen2.gguf")
    if not vocabulary.is_file():
        parser.error(f"{vocabulary} is missing: set LLAMA_CPP_DIR to a checkout of llama.cpp")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, vocabulary)
        line = [sys.executable, "-m", "r1recipes"]
        run = folder / "run"
        recipe = folder / "recipe.toml"
        subprocess.run([*line, "run", recipe, "--run-dir", run, "--offline", "--force"], check=True)
        randomise(Run(run))
        subprocess.run([*line, "run", "--resume", run, "--offline", "--force"], check=True)
        forms = [part for form in FORMS for part in ("--to", form)]
        subprocess.run([*line, "export", run, *forms, "--offline"], check=True)
        exports = {
            path.parent.name: json.loads(path.read_text())
            for path in sorted((run / "export").glob("*/export.json"))
        }
        result = {
            "forms": {
                form: {key: export[key] for key in ("dtype", "files", "checks")}
                for form, export in exports.items()
            },
            "modelfile": (run / "export" / "ollama" / "Modelfile").read_text(),
        }
    about.write(RESULT, result, "gguf", "llama-cpp-python")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

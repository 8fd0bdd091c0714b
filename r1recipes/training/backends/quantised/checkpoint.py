"""A 16-bit checkpoint -> one whose linear layers are stored in another form: `nf4` or `fp8`.

Left alone, Unsloth quantises a local 16-bit folder to fp4 with single quantisation, which is larger
and less exact than NF4, and to FP8 only on cards from compute capability 9.0 on (measured and read
with the versions of `packages.READ_IN`). Weights are converted one at a time, so this takes the
memory of the largest one. Limits: dense decoders only; slow without a GPU.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from r1recipes.errors import RecipeError, full_disk
from r1recipes.machine import OTHER_CACHE, files

SHARD_BYTES = 4 * 2**30
_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn|mlp)\.\w+\.weight$")
_OTHER_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
"""Files of a checkpoint that are copied: configuration, tokenizer, chat template."""


@dataclass(frozen=True)
class Form:
    """How the linear layers of a checkpoint are stored."""

    name: str
    """Also of the folder that such checkpoints are kept in."""
    linear: Callable[[str, torch.Tensor], Iterator[tuple[str, torch.Tensor]]]
    """Name and weight of a layer -> the tensors in its place, under names that loaders expect."""
    config: Callable[[torch.dtype], dict[str, Any]]
    """The entry of config.json for such weights."""


def is_quantised(folder: Path) -> bool:
    """Whether the config of a checkpoint says so. Raises: RecipeError if it has no config."""
    try:
        return "quantization_config" in json.loads((folder / "config.json").read_text())
    except OSError as error:
        raise RecipeError(
            f"`{folder}` has no config.json", hint="name the model's folder"
        ) from error


def cached(folder: Path, cache_dir: Path, dtype: torch.dtype, form: Form) -> Path:
    """The other form of a 16-bit checkpoint folder, made once and kept until the folder changes.

    Raises: RecipeError without weights in safetensors; RunError when the disk is full.
    """
    stats = files.stamps(_weights(folder))
    digest = hashlib.sha256(repr((str(folder.resolve()), stats, str(dtype))).encode()).hexdigest()
    target = cache_dir / f"{folder.resolve().name}-{digest[:16]}"
    if not target.exists():
        files.clear_drafts(cache_dir, files.OLDER_DRAFTS)
        with full_disk(cache_dir, OTHER_CACHE), files.draft(target, taken="keep") as draft:
            write_checkpoint(folder, draft, dtype, form)
    return target


def _weights(folder: Path) -> list[Path]:
    weights = sorted(folder.glob("model*.safetensors"))  # not the same weights in other forms
    if not weights:
        raise RecipeError(
            f"`{folder}` has no model*.safetensors files", hint="save the model with safetensors"
        )
    return weights


def write_checkpoint(folder: Path, draft: Path, dtype: torch.dtype, form: Form) -> None:
    """Write the other form of a 16-bit checkpoint folder to a new folder. Raises: RecipeError."""
    write(draft, _quantised(_weights(folder), dtype, form))
    for pattern in _OTHER_FILES:
        for file in folder.glob(pattern):
            if not file.name.endswith(".index.json"):
                shutil.copy(file, draft)
    config = json.loads((folder / "config.json").read_text()) | form.config(dtype)
    config.pop("torch_dtype", None)  # the older name, which would contradict `dtype`
    config["dtype"] = str(dtype).removeprefix("torch.")
    (draft / "config.json").write_text(json.dumps(config, indent=1))
    torch.cuda.empty_cache()


def _quantised(
    weights: list[Path], dtype: torch.dtype, form: Form
) -> Iterator[tuple[str, torch.Tensor]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for file in weights:
        with safe_open(file, "pt", device=device) as tensors:
            for name in tensors.keys():
                tensor = tensors.get_tensor(name).to(dtype)
                if _LINEAR.search(name) and tensor.dim() == 2:
                    yield from form.linear(name, tensor)
                else:
                    yield name, tensor


def write(folder: Path, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Write tensors in shards of about 4 GiB with their index."""
    folder.mkdir(parents=True)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if size > SHARD_BYTES:
            _save(shard, folder, index)
            size = 0
        shard[name] = tensor.cpu().contiguous()
        size += tensor.numel() * tensor.element_size()
    _save(shard, folder, index)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )


def _save(shard: dict[str, torch.Tensor], folder: Path, index: dict[str, str]) -> None:
    name = f"model-{len(set(index.values())) + 1:05}.safetensors"
    save_file(shard, folder / name, metadata={"format": "pt"})
    index.update(dict.fromkeys(shard, name))
    shard.clear()

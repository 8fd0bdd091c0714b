"""Weights and tokenizers by name: which repository, which commit, and how they are loaded."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from r1recipes.errors import PlanError
from r1recipes.machine import hub
from r1recipes.planning.disk import CHECKPOINT_REST_BYTES
from r1recipes.recipe.schema import BUILTIN_MODELS, Model
from r1recipes.training.backends import builtin


def checkpoint_bytes(model: Any) -> int:
    """Weight and two moments of the optimiser, all in float32; and some MB for the tokenizer."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return 12 * trainable + CHECKPOINT_REST_BYTES


def resolve_name(name: str, base_dir: Path) -> str:
    """A local folder, meant from the recipe's folder, as an absolute path; else the Hub id."""
    folder = base_dir / name
    return str(folder.absolute()) if folder.is_dir() else name


WEIGHTS = ("*.json", "*.txt", "*.jinja", "*.model", "model*.safetensors")
"""Files of a repository that a model is loaded from; others hold the same weights once more."""


def at_commit(name: str, revision: str | None, offline: bool) -> Path:
    """The Hub's cached folder of a model at a revision, named after its commit; downloads it.

    For a loader that takes the default branch whatever it is asked for. Raises: PlanError.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, local_files_only=offline, allow_patterns=list(WEIGHTS)
        )
    except (OSError, ValueError) as error:
        what = f"`{name}` at revision `{revision}`" if revision else f"`{name}`"
        fault = hub.explain(error, offline=offline)
        hint = fault.hint or "check [model]; without network the commit must be in the Hub's cache"
        raise PlanError(f"{what} {fault.predicate}", hint=hint) from error
    return Path(folder)


def load_tokenizer(model: Model, base_dir: Path, offline: bool) -> Any:
    """The tokenizer of a model; pads on the left, as generation needs.

    A built-in model's folder is not left to AutoTokenizer: it gives every Qwen2 model that model's
    splitting into words, which drops spaces and newlines here (transformers 5.17,
    tokenization_auto.py, MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS).

    Raises: PlanError when it cannot be loaded.
    """
    if model.name in BUILTIN_MODELS:
        return builtin.build_tokenizer()
    name = resolve_name(model.name, base_dir)
    options = {
        "revision": model.revision,
        "local_files_only": offline,
        "trust_remote_code": False,
        "padding_side": "left",
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        if builtin.is_own(tokenizer):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        fault = hub.explain(error, offline=offline)
        hint = fault.hint or "check `model.name`"
        raise PlanError(
            f"the tokenizer of `{model.name}` {fault.predicate}",
            hint=f"{hint}; or give a local folder",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _nf4(dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )

"""Weights and tokenizers by name: which repository, which commit, and how they are loaded.

Limits: transformers and the Hub's cache only; Unsloth loads its weights by itself.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from r1recipes.data.local import model as local_model
from r1recipes.data.tokenizer import chat_template
from r1recipes.errors import PlanError
from r1recipes.machine import hub
from r1recipes.planning import architectures, disk
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.recipe.schema import BUILTIN_MODELS, Model
from r1recipes.training.backends import builtin


def checkpoint_bytes(model: Any) -> int:
    """Bytes of a checkpoint of the weights of a model that are trained."""
    return disk.checkpoint_bytes(sum(p.numel() for p in model.parameters() if p.requires_grad))


def resolve_name(name: str, base_dir: Path) -> str:
    """The absolute path of a local folder, relative to the recipe's folder; else the Hub id."""
    folder = base_dir / name
    return str(folder.absolute()) if folder.is_dir() else name


def refuse_unsafe(name: str) -> None:
    """Raises: RecipeError for a local folder with pickled weights, or with code of its own."""
    if Path(name).is_dir():
        local_model.refuse_unsafe(Path(name))


def try_template(template: str, plan: Plan) -> None:
    """Try the chat template of a run's folder, which may be a stranger's, where it can be stopped.

    Raises: RecipeError.
    """
    if template != builtin.CHAT_TEMPLATE:
        chat_template.attempt(template, plan.recipe.prompt.system)


WEIGHTS = ("*.json", "*.txt", "*.jinja", "*.model", "model*.safetensors")
"""Files of a repository that a model is loaded from; others hold the same weights once more."""


def at_commit(name: str, revision: str | None, offline: bool) -> Path:
    """The Hub's cached folder of a model at a revision, named after its commit; downloads it.

    For a loader that takes the default branch whatever revision it is given. Raises: PlanError.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, local_files_only=offline, allow_patterns=list(WEIGHTS)
        )
    except (OSError, ValueError) as error:
        model = f"`{name}` at revision `{revision}`" if revision else f"`{name}`"
        fault = hub.explain(error, offline=offline)
        hint = fault.hint or "check [model]; without network the commit must be in the Hub's cache"
        raise PlanError(f"{model} {fault.predicate}", hint=hint) from error
    return Path(folder)


def commit(model: Any) -> str | None:
    """The commit that a model was loaded from; None for a model that is not from the Hub."""
    return getattr(model.config, "_commit_hash", None)


def load_base(
    plan: Plan, folder: Path | None, *, offline: bool, is_trainable: bool = False
) -> PreTrainedModel:
    """The base model of a plan in the plan's precision, from `folder` after a cold start.

    `is_trainable`: for training all weights, so neither quantised nor in float16, whose gradients
    cannot be unscaled. Raises: OSError, ValueError from transformers.
    """
    model = plan.recipe.model
    if folder is None and model.name in BUILTIN_MODELS:
        return builtin.build_model(plan.recipe.seed, model.name)
    options: dict[str, Any] = {"dtype": getattr(torch, plan.dtype)}
    if is_trainable and plan.dtype == "float16":
        options["dtype"] = torch.float32
    if plan.preset.weights == "4bit" and not is_trainable:
        options["quantization_config"] = _nf4(plan.dtype)
    name = str(folder) if folder else resolve_name(model.name, plan.base_dir)
    refuse_unsafe(name)
    return AutoModelForCausalLM.from_pretrained(
        name,
        revision=None if folder else model.revision,
        local_files_only=offline,
        trust_remote_code=False,  # left open, transformers would ask at the terminal
        device_map={"": plan.device},
        **options,
    )


def load_stored(name: str, revision: str | None, *, offline: bool) -> PreTrainedModel:
    """A model in the precision that it is stored in, on the CPU, to merge an adapter into it.

    Raises: PlanError when it cannot be loaded or is quantised; RecipeError as `refuse_unsafe`.
    """
    refuse_unsafe(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            local_files_only=offline,
            trust_remote_code=False,  # left open, transformers would ask at the terminal
            dtype="auto",
        )
    except (OSError, ValueError, ImportError) as error:
        raise PlanError(
            f"the base `{name}` in 16 bits {hub.explain(error, offline=offline).predicate}",
            hint="give its 16-bit weights with `--base ID_OR_FOLDER`",
        ) from error
    if getattr(model.config, "quantization_config", None):
        plain = references.without_4bit(name)
        raise PlanError(
            f"the base `{name}` is quantised; merging into it would round the adapter away",
            hint=f"give its 16-bit weights, such as `--base {plain}`"
            if plain != name
            else "give its 16-bit weights with `--base ID_OR_FOLDER`",
        )
    return model


def switched(model: Any, adapter: bool) -> contextlib.AbstractContextManager[None]:
    """Within it a PEFT model has its adapter, or is the base alone."""
    return contextlib.nullcontext() if adapter else model.disable_adapter()


def tokenizer_of(plan: Plan, offline: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of the model that a plan trains. Raises: PlanError."""
    model = plan.recipe.model
    if plan.origin:
        source = {"name": plan.origin.tokenizer, "revision": plan.origin.revision}
        model = model.model_copy(update=source)
    return load_tokenizer(model, plan.base_dir, offline)


def load_tokenizer(model: Model, base_dir: Path, offline: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; pads on the left, as generation needs.

    The folder of a built-in model is not left to AutoTokenizer: it gives every Qwen2 model the
    splitting of the original Qwen2, which drops spaces and newlines here (transformers,
    tokenization_auto.py, MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS).

    Raises: PlanError when it cannot be loaded.
    """
    if model.name in BUILTIN_MODELS:
        return builtin.build_tokenizer()
    name = resolve_name(model.name, base_dir)
    if Path(name).is_dir():
        local_model.refuse_code(Path(name))
    else:
        architectures.refuse_adapter(name, model.revision, offline=offline)
    options: dict[str, Any] = {
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


def _nf4(dtype: str) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )

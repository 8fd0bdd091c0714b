"""The shape of any model that can be planned: from the catalogue, a local folder, or the Hub.

Only config.json is read, some kB. Limits: dense decoders whose blocks are Llama's (see FAMILIES);
mixtures of experts, models that see or hear, and anything unknown are refused by name.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes import catalog
from r1recipes.catalog import ModelShape
from r1recipes.errors import PlanError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3")
"""`model_type` of config.json: grouped-query attention, gated MLP, two norms a block."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_SENSES = ("vision_config", "audio_config", "vision_tower", "image_token_id")


@dataclass(frozen=True)
class Checkpoint:
    """What a model's files hold."""

    shape: ModelShape
    quantised: bool
    """Stored as bitsandbytes 4-bit already."""


def find(name: str, base_dir: Path, *, revision: str | None = None, offline: bool) -> Checkpoint:
    """The checkpoint behind a Hub id or a local folder.

    Raises: PlanError when it cannot be read, or is of a kind that is not planned for.
    """
    if name in catalog.BUILTIN:
        return Checkpoint(catalog.BUILTIN[name], quantised=False)
    folder = base_dir / name
    if folder.is_dir():
        return of_config(_read(folder / "config.json"), name)
    known = catalog.find(name)
    if known:
        return Checkpoint(known, name.lower().endswith("-bnb-4bit"))
    return of_config(_read(_fetch(name, revision, offline)), name)


def of_config(config: dict[str, Any], name: str) -> Checkpoint:
    """The checkpoint that a config.json describes. Raises: PlanError."""
    kind = config.get("model_type", "without a model_type")
    if any(config.get(key) for key in _EXPERTS):
        raise PlanError(
            f"`{name}` is a mixture of experts ({kind}), which is not supported", hint=_HINT
        )
    if any(config.get(key) is not None for key in _SENSES) or "text_config" in config:
        raise PlanError(
            f"`{name}` takes more than text ({kind}), which is not supported", hint=_HINT
        )
    if kind not in FAMILIES:
        raise PlanError(f"`{name}` is of the unknown architecture `{kind}`", hint=_HINT)
    quantisation = config.get("quantization_config") or {}
    method = quantisation.get("quant_method")
    if quantisation and not (method == "bitsandbytes" and quantisation.get("load_in_4bit")):
        raise PlanError(
            f"`{name}` is quantised with {method or 'an unknown method'}, which cannot be trained",
            hint="take the 16-bit checkpoint, or one in bitsandbytes 4-bit",
        )
    return Checkpoint(_shape(config, name), bool(quantisation))


_HINT = "plannable are dense models of the families " + ", ".join(FAMILIES)


def _shape(config: dict[str, Any], name: str) -> ModelShape:
    heads = _number(config, "num_attention_heads", name)
    hidden = _number(config, "hidden_size", name)
    kind = config["model_type"]
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return ModelShape(
        owner="",
        repositories=(),
        hidden_size=hidden,
        intermediate_size=_number(config, "intermediate_size", name),
        num_hidden_layers=_number(config, "num_hidden_layers", name),
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocab_size=_number(config, "vocab_size", name),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bool(config.get("attention_bias", kind == "qwen2")),
        sliding_window=window,
    )


def _number(config: dict[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise PlanError(
            f"config.json of `{name}` has no `{key}`", hint="check `model.name`: is it a model?"
        )
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PlanError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise PlanError(f"`{path}` is not a model's configuration")
    return config


def _fetch(name: str, revision: str | None, offline: bool) -> Path:
    """config.json from the Hub, or from its cache; the import costs more than the arithmetic."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(name, "config.json", revision=revision, local_files_only=offline)
        )
    except HFValidationError:
        raise PlanError(
            f"`{name}` is neither a folder nor a name on the Hub", hint="check `model.name`"
        ) from None
    except LocalEntryNotFoundError:
        why = "there is no network" if not offline else "this is offline"
        raise PlanError(
            f"the shape of `{name}` is not known: {why}, and its config.json is not in the cache",
            hint="give a local folder with its config.json, or run once with network",
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PlanError(
            f"config.json of `{name}` cannot be had: {reason}",
            hint="check `model.name`; for a gated model set HF_TOKEN",
        ) from error

"""Disk that a run folder will take, from the model's configuration: before any weight is read.

Limits: the arithmetic is that of dense decoders of the Llama family. Of any other model nothing is
said here; the checkpoints of all are measured and checked again before training.
"""

from typing import Any

from r1recipes.backends.trl import CHECKPOINT_REST_BYTES, resolve_name
from r1recipes.catalog import ModelShape
from r1recipes.plan import Plan
from r1recipes.schema import BUILTIN_MODELS


def run_bytes(plan: Plan, num_checkpoints: int, *, offline: bool) -> int:
    """Bytes of the base after a cold start and of the checkpoints; 0 for an unknown model."""
    shape = _shape(_config(plan, offline))
    if shape is None:
        return 0
    checkpoint = 12 * adapter_parameters(shape, plan) + CHECKPOINT_REST_BYTES
    per_weight = 4 if plan.dtype == "float32" or plan.recipe.model.name in BUILTIN_MODELS else 2
    base = per_weight * shape.parameters if plan.recipe.cold_start else 0
    return base + num_checkpoints * checkpoint


def adapter_parameters(shape: ModelShape, plan: Plan) -> int:
    """Trainable parameters: two matrices of lora_rank for each target module of each layer."""
    sides = shape.projections
    targets = [sides[name] for name in plan.recipe.lora.target_modules if name in sides]
    return plan.preset.lora_rank * shape.num_hidden_layers * sum(map(sum, targets))


def _config(plan: Plan, offline: bool) -> dict[str, Any]:
    """The model's config.json; empty when it cannot be had, which loading will explain."""
    model = plan.recipe.model
    if model.name in BUILTIN_MODELS:
        from r1recipes.backends import tiny

        return tiny.build_config(model.name).to_dict()
    from transformers import PreTrainedConfig

    name = resolve_name(model.name, plan.base_dir)
    try:
        options = {"revision": model.revision, "local_files_only": offline}
        return PreTrainedConfig.get_config_dict(name, **options)[0]
    except (OSError, ValueError):
        return {}


def _shape(config: dict[str, Any]) -> ModelShape | None:
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return ModelShape(
            owner="",
            repositories=(),
            hidden_size=hidden,
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab_size=config["vocab_size"],
            tie_word_embeddings=bool(config.get("tie_word_embeddings")),
            attention_bias=config.get("model_type") == "qwen2",
        )
    except KeyError:
        return None

"""Disk that a download and a run folder take, by arithmetic: before any weight is read.

Limits: the models whose shape is known (`shapes`). Of any other nothing is said here; the
checkpoints of all models are measured and checked again before training.
"""

from r1recipes import shapes
from r1recipes.catalog import ModelShape
from r1recipes.errors import PlanError
from r1recipes.plan import Plan
from r1recipes.schema import BUILTIN_MODELS

NUM_CHECKPOINTS = 4
"""Two are kept, one is being written, and the adapter at the end is no larger than one."""
CHECKPOINT_REST_BYTES = 8 * 2**20
"""Tokenizer and state of the trainer; assumed, 4 MB for a vocabulary of 150,000."""
NF4_BYTES = 0.516
"""A weight in NF4 with double quantisation (2305.14314, section 3): 4 bits and 0.127."""


def run_bytes(plan: Plan, shape: ModelShape | None) -> int:
    """Bytes of the base after a cold start and of the checkpoints; 0 for an unknown model."""
    if shape is None:
        return 0
    in_float32 = plan.dtype != "bfloat16" or plan.recipe.model.name in BUILTIN_MODELS
    base = 0
    if plan.recipe.cold_start:
        base = (4 if in_float32 else 2) * shape.parameters
        base += download_bytes(shape, four_bit=True) if plan.preset.load_in_4bit else 0
    checkpoint = 12 * adapter_parameters(shape, plan) + CHECKPOINT_REST_BYTES
    return base + NUM_CHECKPOINTS * checkpoint


def adapter_parameters(shape: ModelShape, plan: Plan) -> int:
    """Trainable parameters: two matrices of lora_rank for each target module of each layer."""
    sides = shape.projections
    targets = [sides[name] for name in plan.recipe.lora.target_modules if name in sides]
    return plan.preset.lora_rank * shape.num_hidden_layers * sum(map(sum, targets))


def download_bytes(shape: ModelShape, *, four_bit: bool) -> int:
    """Weights as they are published: 16 bits, or the linear layers in NF4."""
    linear = shape.linear_parameters
    return round(2 * (shape.parameters - linear) + (NF4_BYTES if four_bit else 2) * linear)


def shape_of(plan: Plan, *, offline: bool) -> ModelShape | None:
    """The model's shape; None when it is not known or cannot be had, which loading will explain."""
    model = plan.recipe.model
    try:
        return shapes.find(
            model.name, plan.base_dir, revision=model.revision, offline=offline
        ).shape
    except PlanError:
        return None

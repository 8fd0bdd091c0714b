"""Checkpoints whose linear layers are stored as a preset loads them, made of 16-bit ones.

checkpoint  reads and writes them      nf4, fp8  the form of a linear layer
"""

from r1recipes.algorithms.base import LoadIn
from r1recipes.training.backends.quantised import fp8, nf4
from r1recipes.training.backends.quantised.checkpoint import (
    Form,
    cached,
    is_quantised,
    write,
    write_checkpoint,
)

FORMS: dict[LoadIn, Form] = {"4bit": nf4.FORM, "fp8": fp8.FORM}
"""What a preset loads -> the form of the weights; without one they stay as they are."""

__all__ = ["FORMS", "Form", "cached", "is_quantised", "write", "write_checkpoint"]

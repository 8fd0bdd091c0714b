"""Rows, prompts and chat templates, and what is checked of them before a weight is loaded."""

from r1recipes.data.gym import check
from r1recipes.data.splits import Splits, load

__all__ = ["Splits", "check", "load"]

"""Recipes and rows for the tests of data, and the text of what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1recipes import data
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe

PRESET = {
    "max_seq_length": 128,
    "max_completion_length": 40,
    "lora_rank": 8,
    "num_generations": 4,
    "prompts_per_step": 4,
}
GSM8K = "Janet has 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $18.\n#### 1,{:03d}"


def make(
    seed: int = 1, system: str = "Think.", start: dict[str, Any] | None = None, **keys: Any
) -> Recipe:
    """A recipe with these keys in [data], and with `start` as [cold_start]."""
    sections: dict[str, Any] = {
        "format": 1,
        "seed": seed,
        "model": {"name": "some/model"},
        "data": {"name": "rows.jsonl", "eval_size": 2} | keys,
        "prompt": {"system": system},
        "rewards": {"correctness": 1.0},
        "preset": {"cpu": PRESET},
    }
    if start:
        sections["cold_start"] = start
    if sections["data"]["name"] == "builtin:countdown":
        sections |= {"rewards": {"countdown": 1.0}, "eval": {"reward": "countdown"}}
    return Recipe.model_validate(sections)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(count: int, first: int = 0) -> list[dict[str, Any]]:
    numbers = range(first, first + count)
    return [{"question": f"What is {i}?", "answer": i, "id": f"r{i}"} for i in numbers]


def refused(recipe: Recipe, folder: Path, offline: bool = False) -> str:
    """Place, message and hint of each problem of data that must be refused."""
    with pytest.raises(RecipeError) as caught:
        data.load(recipe, folder, offline=offline)
    return "\n".join(f"{p.where} {p.message} {p.hint}" for p in caught.value.problems)

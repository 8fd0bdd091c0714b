"""What an algorithm does not take: checks of sections that are not its own.

Every check returns its problems as `(key, message, hint)`, the key seen from the section.
"""

import math
from collections.abc import Mapping
from typing import Any

from r1recipes.algorithms.base import Algorithm
from r1recipes.config.section import KeyProblems


def of_group(algorithm: Algorithm, table: Mapping[str, Any]) -> KeyProblems:
    """Another number of completions of a prompt than the algorithm takes. `table` has the keys of a
    preset, also broken ones: the schema says what is no number above 0."""
    size, number = algorithm.group_size, table.get("num_generations")
    if size is None or type(number) is not int or number in (size, 0) or number < 0:
        return []
    message = f"{algorithm.title} takes {size} completions of a prompt, not {number}"
    hint, prompts = f"set `num_generations = {size}`", table.get("prompts_per_step")
    if type(prompts) is int and prompts > 0:
        as_many = math.ceil(prompts * number / size)
        hint += f" and, for as many completions a step, `prompts_per_step = {as_many}`"
    return [("num_generations", message, hint)]


def of_dropout(algorithm: Algorithm | None, lora: Any) -> KeyProblems:
    """Dropout where the trainer of the algorithm has none, under its key from the top of a recipe.
    `lora` is None where it is not valid itself."""
    if algorithm is None or algorithm.has_dropout or lora is None or not lora.lora_dropout:
        return []
    message = f"{algorithm.title} is trained without dropout"
    return [("/lora.lora_dropout", message, "remove this line")]

"""What an algorithm does not take: checks of sections that are not its own, and of batches.

Every check returns its problems as `(key, message, hint)`, the key seen from the section.
"""

import math
from collections.abc import Mapping
from typing import Any

from r1recipes.algorithms.base import Algorithm, Preset
from r1recipes.config.section import MAX_COUNT, KeyProblems


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


def of_batches(algorithm: Algorithm, table: Mapping[str, Any]) -> KeyProblems:
    """Passes that do not divide a step of the algorithm, as `(key, message, hint)`.

    `table` has the keys of a preset, also broken ones; there, a count may be "auto". Nothing where
    a count is missing, none at all, or so large that its divisors take long: the schema says so.
    """
    keys = ("prompts_per_step", "num_generations", "per_device_train_batch_size")
    counts: dict[str, Any] = {key: table.get(key) for key in keys}
    present = [n for key, n in counts.items() if n or key != keys[-1]]
    if not all(type(n) is int and 0 < n <= MAX_COUNT for n in present):
        return []
    preset = Preset.model_construct(**counts)
    step = algorithm.step(preset)
    if step.is_whole:
        return []
    fitting = step.batches()
    below = max((n for n in fitting if n < step.batch), default=None)
    above = min((n for n in fitting if n > step.batch), default=None)
    first, *more = [size for size in (below, above) if size]
    hint = f"set `{keys[-1]} = {first}`" + "".join(f" or {size}" for size in more)
    message = f"{algorithm.step_in_words(preset)} do not divide into batches of {step.batch}"
    return [(keys[-1], message, hint)]

"""Completions of given lengths from the engine, for a rehearsal.

Imports neither Unsloth nor vLLM. Limits: a completion that the model ends by itself is shorter.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def ended(trainer: Any, lengths: Callable[[int], list[int]] | None) -> Iterator[None]:
    """End each completion of a step at a length that `lengths` gives; see `Hooks.lengths`.

    TRL passes one SamplingParams for all prompts of a step (trl/generation/vllm_generation.py,
    `generate`); vLLM takes one for each (vllm/entrypoints/llm.py, `generate`). Unsloth wraps the
    same method of the engine for the time of a call, around this one, and puts it back.
    """
    if lengths is None:
        yield
        return
    has_own = hasattr(trainer, "vllm_generation")  # not that of online DPO
    engine = trainer.vllm_generation.llm if has_own else trainer.model.vllm_engine
    generate = engine.generate

    def varied(prompts: Any, sampling_params: Any = None, **options: Any) -> Any:
        each = [sampling_params.clone() for _ in prompts]
        for params, length in zip(each, lengths(len(prompts)), strict=True):
            params.max_tokens = length
        return generate(prompts, sampling_params=each, **options)

    engine.generate = varied
    try:
        yield
    finally:
        del engine.generate

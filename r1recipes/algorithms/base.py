"""A preset: what depends on the card's memory, and the size that its name stands for."""

import math
import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from r1recipes.algorithms import base
from r1recipes.config.section import AutoBool, AutoCount, AutoShare, Found, Section, refuse


class Preset(Section):
    """What depends on the card's memory. Values that may be "auto" are chosen by the planner."""

    load_in_4bit: AutoBool = False
    """Base weights as 4-bit NF4; a memory tool: 16-bit is faster where it fits."""
    max_seq_length: Annotated[int, Field(ge=16, le=1_000_000, examples=[2048])]
    """Tokens of prompt and completion together at most."""
    max_completion_length: Annotated[int, Field(ge=1, le=1_000_000, examples=[768])]
    """Tokens of a completion at most; the prompt gets the rest of max_seq_length."""
    lora_rank: Annotated[int, Field(ge=1, le=512, examples=[32])]
    """Rank of the adapter."""
    num_generations: Annotated[int, Field(ge=2, le=1024, examples=[8])]
    """Completions for each prompt, that is, the size of a group."""
    prompts_per_step: Annotated[AutoCount, Field(examples=[4])]
    """Prompts in an optimiser step; a step has prompts_per_step x num_generations completions."""
    per_device_train_batch_size: Annotated[AutoCount | None, Field(examples=[8])] = None
    """Completions in one forward and backward pass; without it num_generations."""
    gpu_memory_utilization: Annotated[AutoShare | None, Field(examples=[0.5])] = None
    """Share of the card's usable memory that the vLLM engine may take."""
    standby: AutoBool = False
    """Give the engine's KV cache back while training; saves memory, costs time in each step."""
    num_threads: Annotated[int | None, Field(ge=1, le=1024, examples=[1])] = None
    """CPU threads, for the preset `cpu`; without it one a core. The last digits depend on it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(base.of_preset(self))
        return self


def preset_bytes(name: str) -> int:
    """Marketing size of a preset's card in bytes; 0 for the CPU. `8GB` is 8 GiB of memory chips."""
    match = re.fullmatch(r"(\d+)GB", name)
    return int(match[1]) * 2**30 if match else 0


GPU_ONLY = ("gpu_memory_utilization", "load_in_4bit", "standby")
CPU_ONLY = ("num_threads",)
AUTO_ON_GPU = ("prompts_per_step", "per_device_train_batch_size")


def of_preset(preset: Any) -> Found:
    """Batches that divide a step, and room for a prompt."""
    found: Found = []
    batch = preset.per_device_train_batch_size or preset.num_generations
    is_open = "auto" in (batch, preset.prompts_per_step)
    completions = 0 if is_open else preset.prompts_per_step * preset.num_generations
    if not is_open and completions % batch:
        fitting = divisors(completions)
        below = max(n for n in fitting if n < batch)
        above = min((n for n in fitting if n > batch), default=None)
        found.append(
            (
                "per_device_train_batch_size",
                f"{preset.prompts_per_step} prompts x {preset.num_generations} generations = "
                f"{completions} completions a step do not divide into batches of {batch}",
                f"set `per_device_train_batch_size = {below}`" + (f" or {above}" if above else ""),
            )
        )
    if preset.max_completion_length >= preset.max_seq_length:
        found.append(
            (
                "max_completion_length",
                f"`max_completion_length` {preset.max_completion_length} leaves no room for a "
                f"prompt in `max_seq_length` {preset.max_seq_length}",
                f"set `max_seq_length = {preset.max_completion_length + 256}`",
            )
        )
    return found


def divisors(number: int) -> list[int]:
    """All whole numbers that divide `number`; by pairs, so that 10**8 takes 10**4 steps."""
    low = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return low + [number // n for n in low]

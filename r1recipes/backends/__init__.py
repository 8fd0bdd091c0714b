"""The ways to train a plan, behind one protocol: Unsloth with vLLM, or plain TRL.

A backend turns a plan into a model and an adapter, samples from both, and trains the adapter. It
never names files of the run folder, never prints, and never reads a recipe file.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from r1recipes import machine
from r1recipes.errors import PlanError
from r1recipes.evaluate import Sample
from r1recipes.plan import Plan
from r1recipes.rewards import Reward

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Hooks:
    """What the caller wants to know while a backend trains."""

    on_progress: Callable[[int, int], None]
    """(done, total) steps of a cold start or completions of an evaluation."""
    on_step: Callable[[dict[str, Any], list[dict[str, Any]]], None]
    """Metrics of an optimiser step under TRL's names, and its sampled completions."""
    on_checkpoint: Callable[[Path], None]
    """A checkpoint folder was written to its end."""
    should_stop: Callable[[], bool]
    """Whether to save a checkpoint and stop after the current step."""


class Backend(Protocol):
    """Plan -> model, adapter, samples, trained adapter. Methods are called in this order."""

    def tokenizer(self) -> Any:
        """The tokenizer, without loading weights."""

    def cold_start(self, rows: list[dict[str, Any]], folder: Path, hooks: Hooks) -> str | None:
        """Train all weights on demonstrations and save model and tokenizer to `folder`.

        Returns the commit of the weights that it began with, if they came from the Hub.
        """

    def load(self, base: Path | None, adapter: Path | None) -> str | None:
        """Load the model, from `base` after a cold start, with a saved adapter or a fresh one.

        Returns the commit of the weights, if they came from the Hub.
        """

    def checkpoint_bytes(self) -> int:
        """Size of one training checkpoint on disk at most."""

    def generate(
        self, prompts: list[Messages], num_samples: int, greedy: bool, adapter: bool, hooks: Hooks
    ) -> list[list[Sample]]:
        """Sample from the base (`adapter` False) or from base and adapter; seeded by the recipe."""

    def train(
        self,
        rows: Any,
        rewards: dict[str, Reward],
        output_dir: Path,
        resume_from: Path | None,
        hooks: Hooks,
    ) -> None:
        """Train the adapter on a datasets.Dataset of rows, from a checkpoint if one is given."""

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in PEFT's format."""

    def reset(self, plan: Plan) -> None:
        """Go back to just before `load`, but keep the base model and its engine for `plan`.

        The plan must need the same engine (`warm.engine_key`); adapter and trainer are dropped, and
        `load` then adds a fresh adapter as it would to a model just loaded.
        """

    def held_bytes(self) -> int:
        """Memory that the process holds now; grows from reset to reset only if something leaks."""

    def close(self) -> None:
        """End what runs beside the model. Nothing can be called after it."""


def prepare_environment(plan: Plan, cache_dir: Path) -> None:
    """Settings that must stand before torch is imported; what the user has set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it warns at each child process
    # Waiting threads that spin made a run of 30 s take 290 s beside one other busy process
    # (measured, 2 cores, 2026-11-21); that sleep cost nothing that could be seen.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # TRL tells the Hub of every trainer that is made, also when model and data are local.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if plan.device == "cuda":
        machine.take_gpu()
    if plan.backend == "unsloth":
        _prepare_unsloth(plan, cache_dir)


def _prepare_unsloth(plan: Plan, cache_dir: Path) -> None:
    # Standby picks the allocator when unsloth is imported; without the override it replaces the
    # recipe's gpu_memory_utilization by a table of its own (unsloth_zoo/vllm_utils.py, load_vllm).
    os.environ["UNSLOTH_VLLM_STANDBY"] = "1" if plan.preset.standby else "0"
    os.environ["UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE"] = "1"
    # The logits of a pass are made 256 rows at a time, and again in the backward pass in place of
    # being kept: a pass of 8 completions of Qwen2.5-1.5B fits 8 GB, and the first step compiles a
    # loop body in place of an unrolled loop, 9 to 18 s in place of 21 to 50 (H200, 2026-11-21).
    os.environ["UNSLOTH_GRPO_LOGPROB_RECOMPUTE"] = "1"
    os.environ["UNSLOTH_GRPO_MAX_ROWS_PER_CHUNK"] = "256"
    # Neither counts its users from here: Unsloth by files of the Hub, vLLM by its own server.
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")  # its one process meets nobody else
    # What is compiled is kept between runs: the second start does not wait for it again. The source
    # that Unsloth writes depends on the card's name, and two processes would rewrite each other's.
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "any")
    for name, folder in {
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton",
        "VLLM_CACHE_ROOT": "vllm",
        "UNSLOTH_COMPILE_LOCATION": f"unsloth/{card}",
    }.items():
        os.environ.setdefault(name, str(cache_dir / folder))


def create(plan: Plan, *, offline: bool) -> Backend:
    """The backend of a plan; imports torch.

    Raises: PlanError when Unsloth cannot be imported, or torch cannot use the card.
    """
    if plan.backend == "unsloth":
        try:
            from r1recipes.backends.unsloth import UnslothBackend
        except Exception as error:  # also what Unsloth raises without a card, a driver, a version
            reason = (str(error).strip().splitlines() or [""])[0]
            message = f"Unsloth cannot be imported: {type(error).__name__}: {reason}"
            raise PlanError(message, hint=_DOCTOR) from error
        return UnslothBackend(plan, offline=offline)
    import torch

    if plan.device == "cuda" and not torch.cuda.is_available():  # before what takes seconds
        raise PlanError("torch cannot use the GPU of this machine", hint=_DOCTOR)
    from r1recipes.backends.trl import TrlBackend

    return TrlBackend(plan, offline=offline)


_DOCTOR = "`python -m r1recipes doctor` says what is missing and the command that mends it"

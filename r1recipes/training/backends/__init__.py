"""The ways to train a plan, behind one protocol: Unsloth with vLLM, or plain TRL.

A backend turns a plan into a model and an adapter, samples from both, and trains the adapter. It
never names files of the run folder, never prints, and never reads a recipe file.
"""

import os
from pathlib import Path

from r1recipes.errors import PlanError
from r1recipes.machine import gpu
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import Backend
from r1recipes.training.backends.unsloth.environment import prepare


def prepare_environment(plan: Plan, cache_dir: Path) -> None:
    """Settings that must stand before torch is imported; what the user has set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it warns at each child process
    # Waiting threads that spin made a run of 30 s take 290 s beside one other busy process
    # (measured, 2 cores, 2026-11-21); that sleep cost nothing that could be seen.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # TRL tells the Hub of every trainer that is made, also when model and data are local.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if plan.device == "cuda":
        gpu.take()
    if plan.backend == "unsloth":
        prepare(plan, cache_dir)


def create(plan: Plan, *, offline: bool) -> Backend:
    """The backend of a plan; imports torch.

    Raises: PlanError when Unsloth cannot be imported, or torch cannot use the card.
    """
    if plan.backend == "unsloth":
        try:
            from r1recipes.training.backends.unsloth.backend import UnslothBackend
        except Exception as error:  # also what Unsloth raises without a card, a driver, a version
            reason = (str(error).strip().splitlines() or [""])[0]
            message = f"Unsloth cannot be imported: {type(error).__name__}: {reason}"
            raise PlanError(message, hint=_DOCTOR) from error
        return UnslothBackend(plan, offline=offline)
    import torch

    if plan.device == "cuda" and not torch.cuda.is_available():  # before what takes seconds
        raise PlanError("torch cannot use the GPU of this machine", hint=_DOCTOR)
    from r1recipes.training.backends.trl import TrlBackend

    return TrlBackend(plan, offline=offline)


_DOCTOR = "`python -m r1recipes doctor` says what is missing and the command that mends it"

"""The ways to train a plan, behind one protocol: Unsloth with vLLM, or plain TRL.

A backend turns a plan into a model and an adapter, samples from both, and trains the adapter. It
never names files of the run folder, never prints, and never reads a recipe file.
"""

import hashlib
import os
from pathlib import Path

from r1recipes.errors import PlanError, full_disk
from r1recipes.machine import files, gpu
from r1recipes.planning import disk
from r1recipes.planning.architectures import Origin
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


def merged(plan: Plan, cache_dir: Path, *, offline: bool) -> tuple[Path, str | None]:
    """The folder of the model that a plan starts from, with its adapter merged, made once; and the
    commit of the base, if it came from the Hub.

    Where Unsloth has patched this process, another one merges. Raises: PlanError; RunError when the
    disk is full.
    """
    from r1recipes.training.backends import weights

    origin = plan.origin
    assert origin is not None, "only an adapter is merged"
    base = origin.base or weights.at_commit(origin.model, origin.revision, offline)
    commit = None if origin.base else base.name
    target = cache_dir / "merged" / f"{base.name}-{_merge_key(origin, base)}"
    if not target.is_dir():
        size = sum(file.stat().st_size for file in base.glob("model*.safetensors"))
        disk.check(disk.Need(cache_dir, size, "R1RECIPES_CACHE_DIR"))
        hint = "set R1RECIPES_CACHE_DIR to another folder"
        with full_disk(cache_dir, hint), files.draft(target, taken="keep") as draft:
            draft.mkdir()
            if plan.backend == "unsloth":
                from r1recipes.training.backends.unsloth import child

                child.merge(origin, base, draft)
            else:
                from r1recipes.training.backends import merge

                merge.write_origin(origin, base, draft)
    return target, commit


def _merge_key(origin: Origin, base: Path) -> str:
    """Everything that the merged weights depend on; a folder's files by size and time."""
    stats = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(base.glob("*.safetensors"))
    ]
    content = repr((origin.sha256, origin.tokenizer, str(base.resolve()), stats))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


_DOCTOR = "`python -m r1recipes doctor` says what is missing and the command that mends it"

"""The ways to train a plan, behind one protocol: Unsloth with vLLM, or plain TRL.

A backend turns a plan into a model and an adapter, samples from both, and trains the adapter. It
never names files of the run folder, never prints, and never reads a recipe file.
"""

import hashlib
import os
from pathlib import Path

from r1recipes.errors import PlanError, command, full_disk
from r1recipes.machine import OTHER_CACHE, files, gpu
from r1recipes.planning import disk
from r1recipes.planning.architectures import Origin
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import Backend, BackendSpec
from r1recipes.training.backends.unsloth import environment

_DOCTOR = f"`{command('doctor')}` says what is missing and the command that mends it"


def prepare_environment(plan: Plan, cache_dir: Path) -> None:
    """Settings that must be in place before torch is imported; what the user has set stays."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it warns at each child process
    # Waiting threads that spin made a run of 30 s take 290 s beside one other busy process
    # (measured, 2 cores, 2026-11-21); letting them sleep had no cost that could be measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # TRL reports every trainer to the Hub, also when model and data are local.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if plan.device == "cuda":
        gpu.take()
    if plan.backend == "unsloth":
        environment.prepare(plan, cache_dir)


def create(plan: Plan, *, offline: bool) -> Backend:
    """The first backend that serves a plan; imports torch.

    Raises: PlanError when none does, Unsloth cannot be imported, or torch cannot use the GPU.
    """
    reasons = []
    for backend in BACKENDS:
        reason = backend.serves(plan)
        if reason is None:
            return backend.create(plan, offline)
        reasons.append(f"{backend.name}: {reason}")
    raise PlanError(f"no backend can carry out this plan ({'; '.join(reasons)})", hint=_DOCTOR)


def _unsloth_serves(plan: Plan) -> str | None:
    if plan.backend != "unsloth":
        return f"the plan was made for `{plan.backend}`"
    return None if plan.device == "cuda" else f"it needs an NVIDIA GPU, not `{plan.device}`"


def _create_unsloth(plan: Plan, offline: bool) -> Backend:
    try:
        from r1recipes.training.backends.unsloth.backend import UnslothBackend
    except Exception as error:  # also what Unsloth raises without a GPU, a driver, a version
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"Unsloth cannot be imported: {type(error).__name__}: {reason}"
        raise PlanError(message, hint=_DOCTOR) from error
    return UnslothBackend(plan, offline=offline)


def _trl_serves(plan: Plan) -> str | None:
    if plan.preset.weights == "fp8":
        return '`load_in = "fp8"` needs Unsloth; set `load_in = "16bit"` or "4bit"'
    if plan.preset.layers_not_recomputed:
        return "`layers_not_recomputed` needs Unsloth; remove it from the preset"
    return None if plan.backend == "trl" else f"the plan was made for `{plan.backend}`"


def _create_trl(plan: Plan, offline: bool) -> Backend:
    import torch

    if plan.device == "cuda" and not torch.cuda.is_available():  # before imports of some seconds
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
        with full_disk(cache_dir, OTHER_CACHE), files.draft(target, taken="keep") as draft:
            draft.mkdir()
            if plan.backend == "unsloth":
                from r1recipes.training.backends.unsloth import cold_start

                cold_start.merge_in_child(origin, base, draft)
            else:
                from r1recipes.training.backends import merge

                merge.write_origin(origin, base, draft)
    return target, commit


def _merge_key(origin: Origin, base: Path) -> str:
    """Everything that the merged weights depend on; a folder's files by size and time."""
    stats = files.stamps(sorted(base.glob("*.safetensors")))
    content = repr((origin.sha256, origin.tokenizer, str(base.resolve()), stats))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


BACKENDS = (
    BackendSpec("unsloth", _unsloth_serves, _create_unsloth),
    BackendSpec("trl", _trl_serves, _create_trl),
)
"""All backends, the preferred one first. An algorithm names those that it can be trained on."""

"""The cold start by plain TRL, and the merging by PEFT, in another process.

The process of the run itself has TRL and PEFT as Unsloth patched them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1recipes.planning.architectures import Origin
from r1recipes.planning.plan import Plan
from r1recipes.training.backends import merge
from r1recipes.training.backends.base import ColdStarted, Hooks
from r1recipes.training.backends.child import ChildFailed, Send, run_in_child
from r1recipes.training.backends.trl import TrlBackend


def in_child(
    plan: Plan,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    start: Path | None,
    checkpoints: Path,
    resume_from: Path | None,
    hooks: Hooks,
    *,
    offline: bool,
) -> ColdStarted:
    """Train all weights and save model and tokenizer to `folder`; see `base.Backend`.

    `template` is the chat template that preflight has checked. Raises: RuntimeError with the error
    of the process.
    """

    def on_message(message: tuple[int, int] | float | Path) -> None:
        if isinstance(message, Path):
            hooks.on_checkpoint(message)
        elif isinstance(message, float):
            hooks.on_loss(message)
        else:
            hooks.on_progress(*message)

    work = (plan.model_dump_json(), template, rows, folder, start, checkpoints, resume_from)
    try:
        end: ColdStarted = run_in_child(
            _cold_start, *work, offline, on_message=on_message, should_stop=hooks.should_stop
        )
    except ChildFailed as failed:
        message = failed.reason or f"the cold start ended with code {failed.exit_code}"
        raise RuntimeError(message) from failed
    return end


def _cold_start(
    plan_json: str,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    start: Path | None,
    checkpoints: Path,
    resume_from: Path | None,
    offline: bool,
    send: Send,
    should_stop: Callable[[], bool],
) -> ColdStarted:
    """In the process: sends (done, total) steps, their losses and a checkpoint, and returns how it
    ended."""
    hooks = Hooks(
        on_progress=lambda done, total: send((done, total)),
        on_loss=send,
        on_checkpoint=send,
        should_stop=should_stop,
    )
    backend = TrlBackend(Plan.model_validate_json(plan_json), offline=offline)
    backend.tokenizer().chat_template = template
    return backend.cold_start(rows, folder, start, checkpoints, resume_from, hooks)


def merge_in_child(origin: Origin, base: Path, folder: Path) -> None:
    """Write base + adapter as one model; see `merge.write_origin`. Raises: RuntimeError."""
    try:
        run_in_child(_merge, origin.model_dump_json(), base, folder, on_message=lambda _: None)
    except ChildFailed as failed:
        message = failed.reason or f"the merging ended with code {failed.exit_code}"
        raise RuntimeError(message) from failed


def _merge(origin_json: str, base: Path, folder: Path, send: Send) -> None:
    merge.write_origin(Origin.model_validate_json(origin_json), base, folder)

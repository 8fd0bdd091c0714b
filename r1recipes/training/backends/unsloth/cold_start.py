"""The cold start by plain TRL in a process of its own, where Unsloth has patched this one."""

from pathlib import Path
from typing import Any

from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.child import ChildFailed, Send, run_in_child
from r1recipes.training.backends.trl import TrlBackend


def in_child(
    plan: Plan,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    hooks: Hooks,
    *,
    offline: bool,
) -> str | None:
    """Train all weights and save model and tokenizer to `folder`; see `base.Backend`.

    `template` is the chat template that preflight has checked.

    Returns the commit of the weights that it began with, if they came from the Hub. Raises:
    RuntimeError with the error of the process.
    """
    arguments = (plan.model_dump_json(), template, rows, folder, offline)
    try:
        commit: str | None = run_in_child(
            _cold_start, *arguments, on_message=lambda progress: hooks.on_progress(*progress)
        )
    except ChildFailed as failed:
        message = failed.reason or f"the cold start ended with code {failed.exit_code}"
        raise RuntimeError(message) from failed
    return commit


def _cold_start(
    plan_json: str,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    offline: bool,
    send: Send,
) -> str | None:
    """In the process: sends (done, total) steps, and returns the commit."""
    hooks = Hooks(on_progress=lambda done, total: send((done, total)))
    backend = TrlBackend(Plan.model_validate_json(plan_json), offline=offline)
    backend.tokenizer().chat_template = template
    return backend.cold_start(rows, folder, hooks)

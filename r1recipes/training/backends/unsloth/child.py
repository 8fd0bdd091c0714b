"""The cold start by plain TRL in a process of its own, where Unsloth has patched this one.

The child sends its steps, its checkpoint and its end through a pipe. Ctrl-C is the parent's: it
tells the child to save and stop by an event, and kills it when it is interrupted itself.
"""

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from r1recipes.machine.processes import obey_parent
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import ColdStarted, Hooks
from r1recipes.training.backends.trl import TrlBackend

POLL_S = 0.1
"""Seconds between two questions whether to stop; assumed, far below the time of a step."""


def in_child(
    plan: Plan,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    checkpoints: Path,
    resume_from: Path | None,
    hooks: Hooks,
    *,
    offline: bool,
) -> ColdStarted:
    """Train all weights and save model and tokenizer to `folder`; see `backends.Backend`.

    `template` is the chat template that preflight has checked.

    Raises: RuntimeError with the child's error.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    stop = context.Event()
    work = (plan.model_dump_json(), template, rows, folder, checkpoints, resume_from)
    child = context.Process(target=_cold_start, args=(*work, offline, send, stop))
    child.start()
    send.close()
    result: ColdStarted | str | None = None
    try:
        while True:
            while not receive.poll(POLL_S):
                if hooks.should_stop():
                    stop.set()
            match receive.recv():
                case Path() as checkpoint:
                    hooks.on_checkpoint(checkpoint)
                case ColdStarted() | str() as end:
                    result = end
                case done, total:
                    hooks.on_progress(done, total)
    except EOFError:  # it has ended
        pass
    except BaseException:  # Ctrl-C
        child.kill()
        raise
    child.join()
    if child.exitcode or not isinstance(result, ColdStarted):
        raise RuntimeError(result or f"the cold start ended with code {child.exitcode}")
    return result


def _cold_start(
    plan: str,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    checkpoints: Path,
    resume_from: Path | None,
    offline: bool,
    send: Connection,
    stop: Event,
) -> None:
    """Sends (done, total) steps and a checkpoint to its parent, at its end how it ended, or the
    text of its error."""
    hooks = Hooks(
        on_progress=lambda done, total: send.send((done, total)),
        on_step=lambda row, samples: None,
        on_checkpoint=send.send,
        should_stop=stop.is_set,
    )
    obey_parent()
    backend = TrlBackend(Plan.model_validate_json(plan), offline=offline)
    try:
        backend.tokenizer().chat_template = template
        send.send(backend.cold_start(rows, folder, checkpoints, resume_from, hooks))
    except Exception as error:
        send.send(f"{type(error).__name__}: {error}")
        raise

"""The cold start and the merging by plain TRL and PEFT in a process of their own, where Unsloth has
patched this one.

The child sends its steps, its checkpoint and its end through a pipe. Ctrl-C is the parent's: it
tells the child to save and stop by an event, and kills it when it is interrupted itself.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from r1recipes.machine.processes import obey_parent
from r1recipes.planning.architectures import Origin
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import ColdStarted, Hooks
from r1recipes.training.backends.merge import write_origin
from r1recipes.training.backends.trl import TrlBackend

POLL_S = 0.1
"""Seconds between two questions whether to stop; assumed, far below the time of a step."""


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
    """Train all weights and save model and tokenizer to `folder`; see `backends.Backend`.

    `template` is the chat template that preflight has checked.

    Raises: RuntimeError with the child's error.
    """
    work = (plan.model_dump_json(), template, rows, folder, start, checkpoints, resume_from)
    end = _run(_cold_start, (*work, offline), hooks)
    assert isinstance(end, ColdStarted), "a child that did not fail says how it ended"
    return end


def merge(origin: Origin, base: Path, folder: Path) -> None:
    """Write base + adapter as one model; see `merge.write_origin`. Raises: RuntimeError."""
    hooks = Hooks(
        on_progress=lambda done, total: None,
        on_step=lambda row, samples: None,
        on_checkpoint=lambda path: None,
        should_stop=lambda: False,
    )
    _run(_merge, (origin.model_dump_json(), base, folder), hooks)


def _run(work: Callable[..., None], arguments: tuple[Any, ...], hooks: Hooks) -> object:
    """Call `work` in a child, with a pipe and an event after its arguments. Returns what it sent
    last that is no progress. Raises: RuntimeError with its error."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    stop = context.Event()
    child = context.Process(target=work, args=(*arguments, send, stop))
    child.start()
    send.close()
    result: object = None
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
        child.join()
        raise
    child.join()
    if child.exitcode:
        raise RuntimeError(result or f"the child ended with code {child.exitcode}")
    return result


def _cold_start(
    plan: str,
    template: str,
    rows: list[dict[str, Any]],
    folder: Path,
    start: Path | None,
    checkpoints: Path,
    resume_from: Path | None,
    offline: bool,
    send: Connection,
    stop: Event,
) -> None:
    """Sends (done, total) steps and a checkpoint to its parent, and at its end how it ended."""
    hooks = Hooks(
        on_progress=lambda done, total: send.send((done, total)),
        on_step=lambda row, samples: None,
        on_checkpoint=send.send,
        should_stop=stop.is_set,
    )
    obey_parent()
    with _sent_errors(send):
        backend = TrlBackend(Plan.model_validate_json(plan), offline=offline)
        backend.tokenizer().chat_template = template
        send.send(backend.cold_start(rows, folder, start, checkpoints, resume_from, hooks))


def _merge(origin: str, base: Path, folder: Path, send: Connection, stop: Event) -> None:
    obey_parent()
    with _sent_errors(send):
        write_origin(Origin.model_validate_json(origin), base, folder)


@contextmanager
def _sent_errors(send: Connection) -> Iterator[None]:
    """The text of an error goes to the parent; the traceback to the log."""
    try:
        yield
    except Exception as error:
        send.send(f"{type(error).__name__}: {error}")
        raise

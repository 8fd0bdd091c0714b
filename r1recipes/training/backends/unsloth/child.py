"""The cold start by plain TRL in a process of its own, where Unsloth has patched this one."""

import multiprocessing
from pathlib import Path
from typing import Any

from r1recipes.machine.processes import obey_parent
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import Hooks
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
    """Train all weights and save model and tokenizer to `folder`; see `backends.Backend`.

    `template` is the chat template that preflight has checked.

    Returns the commit of the weights that it began with, if they came from the Hub. Raises:
    RuntimeError with what it failed of.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    arguments = (plan.model_dump_json(), template, rows, folder, offline, send)
    child = context.Process(target=_cold_start, args=arguments)
    child.start()
    send.close()
    found = {"failure": "", "commit": None}
    try:
        while True:
            match receive.recv():
                case done, total:
                    hooks.on_progress(done, total)
                case dict() as said:
                    found |= said
    except EOFError:  # it has ended
        pass
    except BaseException:  # Ctrl-C
        child.kill()
        raise
    child.join()
    if child.exitcode:
        raise RuntimeError(found["failure"] or f"the cold start ended with code {child.exitcode}")
    return found["commit"]


def _cold_start(
    plan: str, template: str, rows: list[dict[str, Any]], folder: Path, offline: bool, send: Any
) -> None:
    """Sends (done, total) steps to its parent, and at its end the commit or what it failed of."""
    hooks = Hooks(
        on_progress=lambda done, total: send.send((done, total)),
        on_step=lambda row, samples: None,
        on_checkpoint=lambda path: None,
        should_stop=lambda: False,
    )
    obey_parent()
    backend = TrlBackend(Plan.model_validate_json(plan), offline=offline)
    try:
        backend.tokenizer().chat_template = template
        send.send({"commit": backend.cold_start(rows, folder, hooks)})
    except Exception as error:
        send.send({"failure": f"{type(error).__name__}: {error}"})
        raise

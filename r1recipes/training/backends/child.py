"""A function that runs in a spawned process of its own and reports to this one over a pipe.

The process ends with this one, leaves Ctrl-C and stdout to it, and imports nothing before the
function's own module. Limits: function, arguments and messages must be picklable; nothing is sent
to the process after its start but a request to stop, and there is no time limit. See
`machine.processes` for calls that may hang.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from r1recipes.machine.processes import obey_parent

POLL_S = 0.1
"""Seconds between two questions whether to stop; assumed, far below the time of a step."""
Send = Callable[[Any], None]
"""What the function gets as its last argument: sends one message."""


class ChildFailed(Exception):
    """The process ended before the function returned."""

    def __init__(self, exit_code: int | None, reason: str | None):
        super().__init__(reason or f"the process died, exit code {exit_code}")
        self.exit_code = exit_code
        self.reason = reason
        """The exception that the function raised; None if the process was killed."""


def run_in_child(
    function: Callable[..., Any],
    *arguments: Any,
    on_message: Callable[[Any], None],
    should_stop: Callable[[], bool] | None = None,
) -> Any:
    """The result of `function(*arguments, send)`; `on_message` gets each message that it sends.

    With `should_stop` the function gets a last argument, which says whether that was ever true
    here. Whatever ends the wait here, such as Ctrl-C, kills the process. Raises: ChildFailed.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    stop = context.Event() if should_stop else None
    process = context.Process(target=_run, args=(function, arguments, send, stop))
    process.start()
    send.close()  # or the death of the process would not end the wait for it
    outcome: dict[str, Any] = {}
    try:
        while True:
            if should_stop and stop and not stop.is_set():
                if should_stop():
                    stop.set()
                elif not receive.poll(POLL_S):
                    continue
            kind, value = receive.recv()
            if kind == "message":
                on_message(value)
            else:
                outcome[kind] = value
    except EOFError:  # the process has ended
        pass
    except BaseException:  # also Ctrl-C and errors of the caller: no child outlives this call
        process.kill()
        raise
    finally:
        process.join()
    if "returned" not in outcome:
        raise ChildFailed(process.exitcode, outcome.get("raised"))
    return outcome["returned"]


def _run(
    function: Callable[..., Any], arguments: tuple[Any, ...], send: Connection, stop: Event | None
) -> None:
    """In the process: call the function, and send what it returns or raises."""
    obey_parent()
    try:
        more = (stop.is_set,) if stop else ()
        returned = function(*arguments, lambda message: send.send(("message", message)), *more)
        send.send(("returned", returned))
    except Exception as error:  # whatever it is, the parent must learn of it
        send.send(("raised", f"{type(error).__name__}: {error}"))
        raise  # its traceback goes to stderr

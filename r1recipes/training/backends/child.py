"""A function that runs in a spawned process of its own and reports to this one over a pipe.

The process ends with this one, leaves Ctrl-C and stdout to it, and imports nothing before the
function's own module. Limits: function, arguments and messages must be picklable; nothing is sent
to the process after its start, and there is no time limit. See `machine.processes` for calls that
may hang.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from r1recipes.machine.processes import obey_parent

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
    function: Callable[..., Any], *arguments: Any, on_message: Callable[[Any], None]
) -> Any:
    """The result of `function(*arguments, send)`; `on_message` gets each message that it sends.

    Whatever ends the wait here, such as Ctrl-C, kills the process. Raises: ChildFailed.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, arguments, send))
    process.start()
    send.close()  # or the death of the process would not end the wait for it
    outcome: dict[str, Any] = {}
    try:
        while True:
            kind, value = receive.recv()
            if kind == "message":
                on_message(value)
            else:
                outcome[kind] = value
    except EOFError:  # the process has ended
        pass
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
    if "returned" not in outcome:
        raise ChildFailed(process.exitcode, outcome.get("raised"))
    return outcome["returned"]


def _run(function: Callable[..., Any], arguments: tuple[Any, ...], send: Connection) -> None:
    """In the process: call the function, and send what it returns or raises."""
    obey_parent()
    try:
        returned = function(*arguments, lambda message: send.send(("message", message)))
        send.send(("returned", returned))
    except Exception as error:
        send.send(("raised", f"{type(error).__name__}: {error}"))
        raise  # its traceback goes to stderr

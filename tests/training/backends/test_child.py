"""A function in a process of its own: its messages, its result, and every way in which it ends."""

import os
import signal
import time

import pytest

from r1recipes.training.backends.child import Child, ChildFailed, Send
from tests.helpers import is_running


def count(end: int, send: Send) -> str:
    for number in range(end):
        send(number)
    return f"counted to {end}"


def fail(send: Send) -> None:
    send("begun")
    raise ValueError("no such thing")


def kill_itself(send: Send) -> None:
    send("begun")
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(send: Send) -> None:
    send("begun")
    time.sleep(600)


def test_messages_come_in_order_and_then_the_result():
    messages: list[int] = []
    assert Child(count, 3).wait(messages.append) == "counted to 3"
    assert messages == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "message", "exit_code"),
    [
        (fail, "ValueError: no such thing", 1),
        (kill_itself, "the process died, exit code -9", -signal.SIGKILL),
    ],
)
def test_a_failure_is_raised_after_the_messages(function, message, exit_code):
    messages: list[str] = []
    with pytest.raises(ChildFailed, match=message) as failed:
        Child(function).wait(messages.append)
    assert messages == ["begun"] and failed.value.exit_code == exit_code


def test_an_error_of_the_listener_ends_the_process():
    def refuse(message: str) -> None:
        raise KeyboardInterrupt

    child = Child(wait_for_ever)
    with pytest.raises(KeyboardInterrupt):
        child.wait(refuse)
    assert child.pid is not None and not is_running(child.pid)

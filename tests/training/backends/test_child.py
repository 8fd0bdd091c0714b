"""A function in a process of its own: its messages, its result, and every way in which it ends."""

import multiprocessing
import os
import signal
import time

import pytest

from r1recipes.training.backends.child import ChildFailed, Send, run_in_child


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
    assert run_in_child(count, 3, on_message=messages.append) == "counted to 3"
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
        run_in_child(function, on_message=messages.append)
    assert messages == ["begun"] and failed.value.exit_code == exit_code


def test_an_error_of_the_listener_ends_the_process():
    def refuse(message: str) -> None:
        raise KeyboardInterrupt

    before = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        run_in_child(wait_for_ever, on_message=refuse)
    assert set(multiprocessing.active_children()) <= set(before)

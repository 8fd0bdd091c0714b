"""Ctrl-C is answered at once, and what hangs says where."""

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from r1recipes.machine.terminal import (
    AFTER_STEP,
    AT_ONCE,
    ONE_PRESS_S,
    Interrupts,
    warned_when_slow,
)

ROUNDS = 10_000_000
"""Some seconds, long enough for another thread to be heard on a busy machine."""


def interrupt_in(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def work_in_c() -> None:
    """As long as this runs, Python calls no signal handler."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", ROUNDS)


def test_a_stop_is_answered_while_a_step_is_in_c() -> None:
    answers: list[tuple[float, str]] = []
    with Interrupts(lambda text: answers.append((time.monotonic(), text))) as interrupts:
        with interrupts.after_this_step():
            interrupt_in(0.1)
            work_in_c()
            ended = time.monotonic()
            assert interrupts.requested and interrupts.asked() and interrupts.asked()
            time.sleep(ONE_PRESS_S)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
    assert [text for _, text in answers] == [AFTER_STEP, AT_ONCE]
    assert answers[0][0] < ended - 0.1


def test_a_stage_that_saves_nothing_stops_at_once_with_an_answer() -> None:
    answers: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with Interrupts(answers.append):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
    assert answers == [AT_ONCE]


@pytest.mark.parametrize("is_graceful", [True, False])
def test_a_signal_that_a_launcher_passes_on_is_no_second_request(is_graceful: bool) -> None:
    """`timeout` signals the process, then its group; nothing may interrupt what is saved."""
    answers: list[str] = []
    num_interrupts = 0
    with Interrupts(answers.append) as interrupts:
        interrupts._graceful = is_graceful
        for _ in range(5):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
            except KeyboardInterrupt:
                num_interrupts += 1
        assert interrupts.requested == is_graceful
    assert num_interrupts == (0 if is_graceful else 1)
    assert answers == [AFTER_STEP if is_graceful else AT_ONCE]


def test_signals_and_the_wakeup_descriptor_are_as_before() -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    descriptors = len(os.listdir("/proc/self/fd"))
    with Interrupts(print):
        assert signal.getsignal(signal.SIGINT) != handlers[signal.SIGINT]
    assert handlers == {number: signal.getsignal(number) for number in handlers}
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_what_a_library_keeps_from_the_thread_is_answered_at_the_next_question() -> None:
    answers: list[str] = []
    with Interrupts(answers.append) as interrupts, interrupts.after_this_step():
        taken = signal.set_wakeup_fd(-1)  # as an event loop does
        os.kill(os.getpid(), signal.SIGINT)
        assert answers == [] and interrupts.asked() and answers == [AFTER_STEP]
        signal.set_wakeup_fd(taken)


def test_what_hangs_says_where(tmp_path: Path) -> None:
    warned, notes, log = threading.Event(), [], tmp_path / "train.log"

    def say(text: str) -> None:
        notes.append(text)
        warned.set()

    with warned_when_slow(0.05, log, say, "loading"):
        assert warned.wait(10)
    assert "loading has taken" in notes[0] and "it hangs" in notes[0] and str(log) in notes[0]
    (*others, main) = log.read_text().split("\nThread ")[1:]
    assert main.startswith("MainThread") and "in test_what_hangs_says_where" in main and others
    with warned_when_slow(0.05, log, say, "loading"):
        pass
    time.sleep(0.2)
    assert len(notes) == 1


def test_the_main_thread_is_in_a_crowd(tmp_path: Path) -> None:
    """An engine and its pools have hundreds of threads."""
    warned, done, log = threading.Event(), threading.Event(), tmp_path / "train.log"
    crowd = [threading.Thread(target=done.wait, daemon=True) for _ in range(150)]
    for thread in crowd:
        thread.start()
    with warned_when_slow(0.05, log, lambda text: warned.set(), "loading"):
        assert warned.wait(10)
    done.set()
    for thread in crowd:
        thread.join()
    threads = log.read_text().split("\nThread ")[1:]
    assert len(threads) > 150 and "in test_the_main_thread_is_in_a_crowd" in threads[-1]

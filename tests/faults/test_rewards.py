"""A reward of a user's file that does what it should not costs its row, and nothing else."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r1recipes import rewards
from r1recipes.rewards.reward import Reward
from tests.helpers import is_running
from tests.user_code import train

CODE = """
import os, signal, subprocess, sys, time

def killed(completion, row):  # as the kernel does to a process that takes all memory
    if completion == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0

def fills_memory(completion, row):
    if completion == "bad":
        import resource
        size = 2**30 + os.sysconf("SC_PAGE_SIZE") * int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        parts = []
        while True:
            parts.append(bytearray(2**26))
    return 1.0

def leaves(completion, row):
    if completion == "bad":
        os._exit(7)
    return 1.0

def closes_python(completion, row):
    sys.stdout.close()
    return 1.0

def closes_all(completion, row):
    if completion == "bad":
        os.closerange(0, 1000)
    return 1.0

def closes(completion, row):
    os.closerange(0, 3)
    return 1.0

def raises_base(completion, row):
    if completion == "bad":
        raise KeyboardInterrupt
    return 1.0

def stops_itself(completion, row):
    if completion == "bad":
        os.kill(os.getpid(), signal.SIGSTOP)
    return 1.0

def ignores_signals(completion, row):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while completion == "bad":
        time.sleep(1)
    return 1.0

def moves(completion, row):
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()
    return 1.0

def forks(completion, row):
    if completion == "bad" and os.fork() == 0:
        time.sleep(1)  # and then goes on as a second child would
    return 1.0

def deep(completion, row):
    return deep(completion, row)

def huge(completions, **columns):
    return [10**400 if "bad" in c[-1]["content"] else 1.0 for c in completions]

def never_picklable(completions, **columns):
    class Odd(float):
        def __reduce__(self):
            raise RuntimeError("no")
    return [Odd(1.0) for c in completions]

def prints(completion, row):
    text = "x" * 99 + "\\n"
    for _ in range(1_000_000):
        print(text, end="")
    return 1.0

def prints_below(completion, row):
    for number in (1, 2):
        for _ in range(50):
            os.write(number, b"x" * 999_999 + b"\\n")
    return 1.0

def daemonises(completion, row):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(row["pids"], "a") as file:
                print(os.getpid(), file=file)
            time.sleep(120)
        os._exit(0)
    os.wait()
    while not os.path.exists(row["pids"]) or not open(row["pids"]).read().endswith("\\n"):
        time.sleep(0.01)
    if completion == "leave":
        os._exit(0)
    while completion == "hang":
        time.sleep(1)
    return 1.0
"""
PAID: dict[str, list[float]] = {
    "killed": [1, 0, 1],
    "fills_memory": [1, 0, 1],
    "leaves": [1, 0, 1],
    "closes_python": [1, 1, 1],
    "closes_all": [1, 0, 1],
    "closes": [1, 1, 1],
    "raises_base": [1, 0, 1],
    "stops_itself": [1, 0, 1],
    "ignores_signals": [1, 0, 1],
    "moves": [1, 1, 1],
    "forks": [1, 1, 1],
    "deep": [0, 0, 0],
    "huge": [1, 0, 1],
    "never_picklable": [1, 1, 1],
}
"""Reward -> what three rows are paid, of which the second is bad."""


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Reward]]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "evil.py").write_text(CODE)
    loaded: list[Reward] = []

    def one(name: str) -> Reward:
        loaded.extend(
            rewards.load([f"evil.py:{name}"], base_dir=folder, allow_code=True, time_limit_s=1.0)
        )
        return loaded[-1]

    yield one
    for reward in loaded:
        reward.close()


@pytest.mark.parametrize("name", PAID)
def test_a_row_that_does_harm_is_paid_nothing_and_the_others_are_paid(name, load, capfd):
    reward, before = load(name), (os.getcwd(), dict(os.environ))
    began = time.monotonic()
    assert train(reward, "good", "bad", "good") == PAID[name]
    assert train(reward, "good") == [PAID[name][0]]
    assert time.monotonic() - began < 60
    assert capfd.readouterr().out == "" and (os.getcwd(), dict(os.environ)) == before
    assert sum(reward.failures.values()) == PAID[name].count(0) + (PAID[name][0] == 0)


@pytest.mark.parametrize("name", ["prints", "prints_below"])
def test_what_a_reward_prints_is_not_on_stdout_and_python_prints_little(name, load, capfd):
    reward = load(name)
    for _ in range(2):
        assert train(reward, "a") == [1.0]
        out, err = capfd.readouterr()
        assert not out and err
        assert name == "prints_below" or (len(err) < 70_000 and "is left out" in err)


@pytest.mark.parametrize("text", ["good", "hang", "leave"])
def test_a_daemon_of_a_reward_ends_with_it(
    text: str, load: Callable[[str], Reward], tmp_path: Path
):
    reward = load("daemonises")
    train(reward, text, pids=str(tmp_path / "pids"))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert pids
    reward.close()
    end = time.monotonic() + 5
    while any(map(is_running, pids)):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.05)

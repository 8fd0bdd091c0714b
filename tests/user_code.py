"""A user's file of rewards, good and bad, and helpers that load and call them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1recipes import rewards
from r1recipes.rewards.reward import Reward

USER_CODE = """
import os, sys, time

CALLS = []

def short(completion, row):
    print("goes to stderr")
    return 1.0 if len(completion) < row["most"] else 0.0

def trl_form(prompts, completions, answer, **kwargs):
    assert "trainer_state" not in kwargs and len(prompts) == len(completions)
    return [float(c[-1]["content"].count(a)) for c, a in zip(completions, answer)]

def without_kwargs(completions, answer):
    return [0.5 * (a == "42") for a in answer]

def calls(completion):
    CALLS.append(completion)
    return len(CALLS)

def raises(completions, **kwargs):
    return [float(c[-1]["content"]) for c in completions]

def hangs(completions, **kwargs):
    while any("hang" in c[-1]["content"] for c in completions):
        pass
    return [1.0] * len(completions)

def hangs_on_empty(completion, row):
    while not completion:
        time.sleep(1)
    return float("wrong" in completion)

def one_for_all(completions, **kwargs):
    return [1.0]

def skips(completions, **kwargs):
    return [1.0 for c in completions if c[-1]["content"]]

def scalar(completions, **kwargs):
    return 1.0

def text(completion, row):
    return "good"

def nan_for_empty(completion, row):
    return 1.0 if completion else float("nan")

def no_opinion(completion, row):
    return None if not completion else 1

def constant(completion, row):
    return 0.25

def likes_nothing(completion, row):
    return 1.0 / (1 + len(completion))

def leaves(completion, row):
    if not completion:
        os._exit(3)
    return 1.0

def leaves_with_0(completion, row):
    if not completion:
        os._exit(0)
    return 1.0

def waits_for_a_fork(completion, row):
    pid = os.fork()
    if not pid:
        os._exit(0)
    return float(os.waitpid(pid, 0)[1] == 0)

def starts_others(completion, row):
    import subprocess
    pids = [subprocess.Popen(["sleep", "60"]).pid, os.fork()]
    while not pids[1]:
        time.sleep(1)
    with open(row["pids"], "w") as file:
        print(*pids, file=file)
    while completion == "hang":
        time.sleep(1)
    if completion == "leave":
        os._exit(0)
    return 1.0

def exits(completion, row):
    sys.exit("bye")

def group(completion, row):
    return os.getpgrp()

def own_column(completion, row):
    return row["self"]

def needs(completions, solution, **kwargs):
    return [1.0] * len(completions)

def odd(text):
    return 1.0
"""


class Loader:
    """Loads functions of the file mine.py in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.loaded: list[Reward] = []
        (folder / "mine.py").write_text(USER_CODE)

    def __call__(self, name: str, time_limit_s: float = 10.0) -> Reward:
        self.loaded += rewards.load(
            [f"mine.py:{name}"], base_dir=self.folder, allow_code=True, time_limit_s=time_limit_s
        )
        return self.loaded[-1]


@contextmanager
def loader(folder: Path) -> Iterator[Loader]:
    """A loader of the functions above; their processes end with this context."""
    load = Loader(folder)
    yield load
    for reward in load.loaded:
        reward.close()


def train(reward: Reward, *texts: str, **columns: Any) -> list[float | None]:
    """Call a reward as TRL 1.12 does; each column has the same value in every row."""
    n = len(texts)
    return reward(
        prompts=[[{"role": "user", "content": "?"}]] * n,
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[1, 2]] * n,
        answer=["42"] * n,
        trainer_state=object(),
        log_extra=lambda column, values: None,
        log_metric=lambda name, value: None,
        **{key: [value] * n for key, value in columns.items()},
    )

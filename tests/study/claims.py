"""Claims of trials in tests, where there must be one to start."""

from typing import Any

from optuna.trial import Trial

from r1recipes.study.trials import Trials

WORKER: dict[str, Any] = {"host": "here", "pid": 1, "started": "0", "name": None}
"""A worker of another machine: its process is not looked at."""


def claim(trials: Trials, worker: dict[str, Any] = WORKER) -> Trial:
    """A trial for a worker. Raises: AssertionError when there is none to start."""
    trial = trials.claim(worker)
    assert trial is not None
    return trial

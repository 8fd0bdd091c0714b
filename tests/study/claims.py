"""The trials of a cell in tests, and claims of them, where there must be one to start."""

from typing import Any

from optuna.trial import Trial

from r1recipes.study import database, trials
from r1recipes.study.cell import Cell
from r1recipes.study.trials import Trials

WORKER: dict[str, Any] = {"host": "here", "pid": 1, "started": "0", "name": None}
"""A worker of another machine: its process is not looked at."""


def make(url: str, cell: Cell) -> Trials:
    """The trials of a cell in the database at `url`, which is made where it is not there."""
    return trials.create_cell(database.open_storage(url), cell)


def claim(cell: Trials, worker: dict[str, Any] = WORKER) -> Trial:
    """A trial for a worker. Raises: AssertionError when there is none to start."""
    trial = cell.claim(worker)
    assert trial is not None
    return trial

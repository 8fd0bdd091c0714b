"""Start r1recipes as a user does, or in this process where that saves seconds.

Limits: in this process torch and its libraries keep their state from one test to the next.
"""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.console import Console

from r1recipes import cli, planning, recipe, training
from r1recipes.errors import R1RecipesError
from r1recipes.machine import settings
from r1recipes.planning import models
from r1recipes.planning.models import ModelShape
from r1recipes.report.run import Live
from r1recipes.runs import Run
from r1recipes.training import Observer
from r1recipes.training.trackers import Trackers
from r1recipes.training.view import View


def command(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m r1recipes ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "r1recipes", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def in_process(*arguments: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def run_in_process(
    path: Path, runs_dir: Path, *overrides: str, observers: Sequence[Observer] | None = None
) -> Run:
    """Train a recipe here, observed as by the command `run`, and return its run."""
    loaded = recipe.load(path, list(overrides))
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=path.parent)
    machine = settings.Settings(runs_dir=runs_dir, offline=True)
    if observers is None:
        view = quiet_view()
        observers = [view, Trackers(view.note), Live()]
    return training.start(loaded, plan, observers, machine)


def quiet_view() -> View:
    """A view that nobody sees."""
    return View(Console(file=io.StringIO()), live=False)


@contextmanager
def answered_in_time(limit_s: float = 10.0) -> Iterator[None]:
    """Within it no more CPU time may be spent, here and in children that have ended.

    Wall time depends on what else runs on the machine; it may be at most six times as long.
    """
    began, cpu = time.monotonic(), sum(os.times()[:4])
    yield
    spent = sum(os.times()[:4]) - cpu
    assert spent < limit_s and time.monotonic() - began < 6 * limit_s, f"{spent:.1f} s"


def hint(raised: pytest.ExceptionInfo[R1RecipesError]) -> str:
    """The hint of an error's first problem, which must have one."""
    text = raised.value.problems[0].hint
    assert text is not None
    return text


def shape(name: str) -> ModelShape:
    """The shape of a model of the catalogue."""
    known = models.find(name)
    assert known is not None, name
    return known


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # it has ended, but its new parent has not waited for it

"""The driver of a study: it creates the study in the database and keeps its workers alive.

The driver never imports torch. Workers are child processes in sessions of their own; they die with
the driver (PR_SET_PDEATHSIG), so that a new `sweep` finds the machine free. A worker that dies is
replaced and its trial goes back into the queue.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

from optuna.trial import FrozenTrial, TrialState

from r1recipes.errors import PlanError, Problem, RecipeError, RunError, command
from r1recipes.machine import files, gpu, host
from r1recipes.planning import DoesNotFit
from r1recipes.recipe import scaffold
from r1recipes.recipe.references import references_in
from r1recipes.study.cell import Cell, plan_trial
from r1recipes.study.database import open_storage, trial_id
from r1recipes.study.loading import LoadedStudy
from r1recipes.study.trials import (
    RESTART,
    Trials,
    create_cell,
    finished_trials,
    has_dead_local_worker,
    refuse_removed_cells,
)

POLL_S = 0.5
"""Pause between two looks at the workers."""
NAMELESS_S = 60
"""A running trial without a worker's name after so long was claimed by a worker that died at once.
Assumed."""
MAX_DEATHS_IN_A_ROW = 5
"""A study is given up after so many deaths of workers with no trial finished in between."""
MAX_FAILURES_AT_FIRST = 5
"""A study is given up when so many trials failed and none is complete: the values of the trials
are not to blame then."""
STOP_S = 120
"""Time that a worker has to save a checkpoint when the study is stopped; assumed."""


class Launcher(Protocol):
    """What starts the workers of a study, here or on a cluster, and replaces those that die."""

    num_workers: int
    deaths: int
    """Workers that died since a trial was last finished."""
    ended_workers: set[str]
    """Names of workers that ended, where the driver cannot look at their processes."""

    @property
    def say(self) -> Callable[[str], None]:
        """Prints a line for the user."""

    @property
    def children(self) -> Mapping[Any, Any]:
        """The workers that run."""

    def start(self) -> None:
        """Start all workers."""

    def look(self) -> int:
        """Replace workers that ended early. Returns how many died. Raises: RunError."""

    def stop(self) -> None:
        """Ask the workers to save and stop, wait, and end those that do not."""


@dataclass
class Child:
    """A worker's process and where its output goes."""

    index: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def close(self) -> None:
        """End what the worker has left running, such as processes of its rewards."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


@dataclass
class Supervisor:
    """Keeps `num_workers` processes of `command` running until each says that nothing is left."""

    command: list[str]
    num_workers: int
    log_dir: Path
    environment: dict[str, str]
    gpus: list[int]
    """One worker is pinned to each, or there are none."""
    say: Callable[[str], None]
    log_name: str = "worker"
    deaths: int = 0
    children: dict[int, Child] = field(default_factory=dict)
    ended_workers: set[str] = field(default_factory=set)
    """Always empty: the processes of this machine are looked at instead."""

    def start(self) -> None:
        for index in range(self.num_workers):
            self._start(index)

    def _start(self, index: int) -> None:
        environment = os.environ | self.environment
        if self.gpus:
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
            environment["CUDA_VISIBLE_DEVICES"] = str(self.gpus[index])
        log = open(self.log_dir / f"{self.log_name}-{index}.log", "ab")
        process = subprocess.Popen(
            [*self.command, "--child", f"{index}/{self.num_workers}", "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver, which asks its workers to stop
        )
        self.children[index] = Child(index, process, log)

    def look(self) -> int:
        """Replace workers that ended early. Returns how many died. Raises: RunError."""
        num_died = 0
        for index, child in list(self.children.items()):
            code = child.process.poll()
            if code is None:
                continue
            child.close()
            del self.children[index]
            if code == 0:
                continue
            if code == 2:
                raise RunError(
                    f"worker {index} cannot go on: {last_error(Path(child.log.name))}",
                    hint=f"all of its output is in {child.log.name}; no trial is lost",
                )
            if code != RESTART:
                num_died += 1
                self.deaths += 1
                self.say(f"worker {index} died ({describe_exit(code)}) and is replaced")
                if self.deaths >= MAX_DEATHS_IN_A_ROW:
                    raise RunError(
                        f"{self.deaths} workers died with no trial finished in between",
                        hint=f"the last one's output is in {child.log.name}",
                    )
            self._start(index)
        return num_died

    def stop(self) -> None:
        """Ask the workers to save and stop, wait, and end those that do not."""
        for child in self.children.values():
            child.process.terminate()
        end = time.monotonic() + STOP_S
        try:
            for child in self.children.values():
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, end - time.monotonic()))
        finally:  # also when the user does not want to wait
            for child in self.children.values():
                child.close()
                child.process.wait()
            self.children = {}


def last_error(log: Path) -> str:
    """The last error message in a worker's output, or else its last line."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")] or lines
    return errors[-1].removeprefix("error: ") if errors else "it printed nothing"


def describe_exit(code: int) -> str:
    """An exit code in words, such as `exit code 1` or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


class DeathCheck:
    """Whether a running trial's worker is dead.

    It is when its process was one of this machine and is gone, when its launcher saw it end, or
    when the trial has run for NAMELESS_S without the name of a worker.
    """

    def __init__(self, ended_workers: set[str]) -> None:
        self.ended_workers = ended_workers
        self._nameless_since: dict[int, float] = {}

    def __call__(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker:
            self._nameless_since.pop(trial_id(trial), None)
            return worker["name"] in self.ended_workers or has_dead_local_worker(trial)
        since = self._nameless_since.setdefault(trial_id(trial), time.monotonic())
        return time.monotonic() - since > NAMELESS_S


def create_cells(loaded: LoadedStudy, folder: Path, url: str) -> list[Trials]:
    """Create the study's folder, and its cells in the database where they are not there yet.

    Raises: RecipeError when a study of that name searches something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(url)
    refuse_removed_cells(storage, loaded.name, loaded.cells)
    cells = [create_cell(storage, cell) for cell in loaded.cells]
    files.write_text(folder / "study.toml", scaffold.with_schema_of(loaded.text, folder))
    return cells


def check_machine(cells: list[Cell], *, offline: bool, must_fit: bool = True) -> None:
    """Raises: PlanError when a recipe itself cannot run here, before any trial is touched.

    With `must_fit` also when it needs more memory than is free now.
    """
    problems: list[Problem] = []
    card = gpu.current()
    for cell in {cell.recipe_path: cell for cell in cells}.values():
        loaded = cell.load()
        for reference in references_in(loaded.recipe.model_dump()):
            if not reference.may_be_hub and not (loaded.path.parent / reference.name).exists():
                hint = f"the study's recipe is `{loaded.path}`: its files are needed here too"
                problems.append(Problem(f"there is no `{reference.name}`", hint=hint))
        try:
            plan_trial(cell, loaded, host.cores(), card, offline=offline)
        except (PlanError, RecipeError) as error:
            if must_fit or not isinstance(error, DoesNotFit):
                problems += error.problems
    if problems:
        raise PlanError(problems=problems)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold a study's folder. Raises: RecipeError when another driver on this machine does; RunError
    when nothing can be written there."""
    files.check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".driver", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecipeError(
                f"another `sweep` drives the study in {folder}",
                hint=f"`{command('worker', folder.name)}` adds a worker to it",
            ) from error
        yield


def drive(cells: Sequence[Trials], launcher: Launcher, look: Callable[[], None]) -> None:
    """Run workers until every cell has its trials. `look` is called every half second.

    Raises: RunError when workers or trials only fail; KeyboardInterrupt after a stop.
    """
    is_dead = DeathCheck(launcher.ended_workers)
    for trials in cells:
        trials.requeue_dead(is_dead)
    if all(trials.is_done() for trials in cells):
        return
    num_finished = len(finished_trials(cells))
    for number in (signal.SIGTERM, signal.SIGHUP):  # Slurm before it kills; a terminal that closes
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` asks for
            signal.signal(number, _interrupt)
    launcher.start()
    try:
        while launcher.children:
            time.sleep(POLL_S)
            launcher.look()
            for trials in cells:
                if not trials.is_done():
                    trials.requeue_dead(is_dead)
            finished = finished_trials(cells)
            if len(finished) > num_finished:
                num_finished, launcher.deaths = len(finished), 0
                refuse_hopeless(finished, cells[0].cell)
            look()
    except KeyboardInterrupt:
        launcher.say("stopping: trials save a checkpoint first; Ctrl-C again ends them at once")
        raise
    finally:
        launcher.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def refuse_hopeless(finished: Sequence[FrozenTrial], cell: Cell) -> None:
    """Raises: RunError when every trial so far failed."""
    if len(finished) >= MAX_FAILURES_AT_FIRST and all(
        trial.state == TrialState.FAIL for trial in finished
    ):
        error = finished[-1].user_attrs["error"]
        raise RunError(
            f"all of {len(finished)} trials failed; the last one: {error['message']}",
            kind=error["kind"],
            hint=f"try the recipe alone first: `{command('run', cell.recipe_path)}`",
        )

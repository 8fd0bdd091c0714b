"""The driver of a study: makes it in the database, keeps its workers alive, and says what came out.

The driver never imports torch. Workers are child processes in sessions of their own; they die with
the driver (PR_SET_PDEATHSIG), so that a new `sweep` finds the machine free. A worker that dies is
replaced and its trial goes back into the queue.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from optuna.trial import FrozenTrial, TrialState

from r1recipes.errors import PlanError, Problem, RecipeError, RunError
from r1recipes.machine import files, gpu, host
from r1recipes.planning import DoesNotFit
from r1recipes.recipe import references
from r1recipes.study import database, trials
from r1recipes.study.cell import Cell, resolve
from r1recipes.study.loading import LoadedStudy
from r1recipes.study.trials import RESTART, Trials

POLL_S = 0.5
NAMELESS_S = 60
"""A running trial that names no worker after so long was asked for by one that died at once."""
MAX_DEATHS_IN_A_ROW = 5
"""Workers that die with no trial finished in between before a study is given up."""
MAX_FAILURES_AT_FIRST = 5
"""Trials that fail with none complete before a study is given up: it is not their values."""
STOP_S = 120
"""Time that a worker has to save a checkpoint when the study is stopped."""


@dataclass
class Child:
    """A worker's process and where its output goes."""

    index: int
    process: subprocess.Popen
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
    gone: set[str] = field(default_factory=set)
    """Names of workers that ended; those of this machine are looked at instead."""

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
        died = 0
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
                    f"worker {index} cannot go on: {last_words(Path(child.log.name))}",
                    hint=f"all of its output is in {child.log.name}; no trial is lost",
                )
            if code != RESTART:
                died += 1
                self.deaths += 1
                self.say(f"worker {index} died ({how(code)}) and is replaced")
                if self.deaths >= MAX_DEATHS_IN_A_ROW:
                    raise RunError(
                        f"{self.deaths} workers died with no trial finished in between",
                        hint=f"the last one's output is in {child.log.name}",
                    )
            self._start(index)
        return died

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


def last_words(log: Path) -> str:
    """The last error message of a worker's output."""
    lines = log.read_text(errors="replace").splitlines()
    found = [line for line in lines if line.startswith("error: ")] or lines or ["nothing"]
    return found[-1].removeprefix("error: ")


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


class Dead:
    """Whether a running trial's worker is gone: a process of this machine, one of a task that the
    launcher saw end, or one that died before it could write its name down."""

    def __init__(self, gone: set[str]) -> None:
        self.gone = gone
        self.nameless: dict[int, float] = {}

    def __call__(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker:
            self.nameless.pop(trial._trial_id, None)
            return worker["name"] in self.gone or trials.is_dead_here(trial)
        first = self.nameless.setdefault(trial._trial_id, time.monotonic())
        return time.monotonic() - first > NAMELESS_S


def make(loaded: LoadedStudy, folder: Path, url: str) -> list[Trials]:
    """The study's cells in the database, made or found again, and the study's folder.

    Raises: RecipeError when a study of that name searches something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    storage = database.open_storage(url)
    trials.refuse_removed(storage, loaded.name, loaded.cells)
    cells = [trials.create(storage, cell) for cell in loaded.cells]
    files.write_text(folder / "study.toml", loaded.text)
    return cells


def check_machine(cells: list[Cell], *, offline: bool, refuse: bool = True) -> None:
    """Raises: PlanError when a recipe itself cannot run here, before any trial is touched.

    With `refuse` also where its memory does not fit into what is free now.
    """
    problems, card = [], gpu.current()
    for cell in {cell.recipe_path: cell for cell in cells}.values():
        loaded = cell.load()
        for value in references.named(loaded.recipe.model_dump()):
            if not value.may_be_hub and not (loaded.path.parent / value.name).exists():
                hint = f"the study's recipe is `{loaded.path}`: its files are needed here too"
                problems.append(Problem(f"there is no `{value.name}`", hint=hint))
        try:
            resolve(cell, loaded, host.cores(), card, offline=offline)
        except (PlanError, RecipeError) as error:
            if refuse or not isinstance(error, DoesNotFit):
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
                hint="`r1recipes worker` adds workers to it",
            ) from error
        yield


def drive(cells: list[Trials], supervisor: Any, look: Callable[[], None]) -> None:
    """Run workers until every cell has its trials. `look` is called every half second.

    Raises: RunError when workers or trials only fail; KeyboardInterrupt after a stop.
    """
    is_dead = Dead(supervisor.gone)
    for cell in cells:
        cell.bury(is_dead)
    if all(cell.is_done() for cell in cells):
        return
    finished = num_finished(cells)
    for number in (signal.SIGTERM, signal.SIGHUP):  # Slurm before it kills; a terminal that closes
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` asks for
            signal.signal(number, _interrupt)
    supervisor.start()
    try:
        while supervisor.children:
            time.sleep(POLL_S)
            supervisor.look()
            for cell in cells:
                if not cell.is_done():
                    cell.bury(is_dead)
            if num_finished(cells) > finished:
                finished, supervisor.deaths = num_finished(cells), 0
                refuse_hopeless(cells)
            look()
    except KeyboardInterrupt:
        supervisor.say("stopping: trials save a checkpoint first; Ctrl-C again ends them at once")
        raise
    finally:
        supervisor.stop()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def num_finished(cells: list[Trials]) -> int:
    return sum(trials.is_finished(trial) for cell in cells for trial in cell.all())


def refuse_hopeless(cells: list[Trials]) -> None:
    """Raises: RunError when every trial so far failed."""
    found = [t for cell in cells for t in cell.all() if trials.is_finished(t)]
    if len(found) >= MAX_FAILURES_AT_FIRST and all(t.state == TrialState.FAIL for t in found):
        last = found[-1].user_attrs["error"]
        raise RunError(
            f"all of {len(found)} trials failed; the last one: {last['message']}",
            kind=last["kind"],
            hint=f"try the recipe alone first: `r1recipes run {cells[0].cell.recipe_path}`",
        )

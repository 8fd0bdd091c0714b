"""One worker: it claims trials of a study and runs them; the base model stays loaded in between.

A worker is a separate process, on one GPU or on a share of the cores. It ends with the exit code
    0        nothing is left to do
    RESTART  the next trial needs a fresh process: another engine, or memory that was not given back
and the command that started it (`sweep` or `worker`) starts the next one. A trial is a run folder
like any other, `<runs>/<study>/<cell>-<number>-<fingerprint>`.
"""

import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from optuna.trial import Trial
from rich.console import Console

from r1recipes import recipe, training
from r1recipes.errors import PlanError, R1RecipesError, RecipeError, Stopped
from r1recipes.machine import files, gpu
from r1recipes.machine.settings import Settings
from r1recipes.planning import DoesNotFit, Plan
from r1recipes.recipe.loading import Loaded
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.study import search
from r1recipes.study.cell import plan_trial
from r1recipes.study.database import HEARTBEAT_S
from r1recipes.study.trials import RESTART, Lost, Trials, this_worker
from r1recipes.training.observers import Observer, Pruned
from r1recipes.training.prepared import Options
from r1recipes.training.view import View
from r1recipes.training.warm import OtherEngine, Warm

IDLE_S = 2.0
"""Pause between two attempts to claim a trial while others run the last ones: one of them may die.
"""
DRIFT_BYTES = 2**30
"""Memory counts as leaked when it has grown by more since the first trial; assumed."""
UNSAFE_FAILURES = ("oom", "memory", "crash")
"""Kinds of failures that may leave the process damaged: the next trial gets a fresh one."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs: its settings, its share of the machine, and what the user allowed."""

    settings: Settings
    num_cores: int
    options: Options
    observers: Callable[[Callable[[str], None]], list[Observer]] = lambda note: []
    """Makes what else observes each trial; `note` prints a line to the worker's log."""


class Pruning(Observer):
    """Reports a run's progress to its trial, and ends the run of a hopeless or lost trial."""

    name: ClassVar[str] = "the study"
    decides: ClassVar[bool] = True

    def __init__(self, trials: Trials, trial: Trial):
        self.trials, self.trial = trials, trial
        self.lost = False
        self.run: Run | None = None
        self.plan: Plan | None = None
        self.rows: list[Row] = []

    def begin(self, run: Run, plan: Plan) -> None:
        self.plan = plan
        cell, self.run = self.trials.cell, run
        about = {"name": cell.study, "cell": cell.name, "trial": self.trial.number}
        run.update(study=about | {"params": self.trial.params})
        steps, prompts = plan.recipe.train.max_steps, plan.preset.prompts_per_step
        self.trials.note_run(self.trial, run.folder, steps)
        self.pruner = search.pruner(cell, steps, prompts, plan.eval_problems)

    def resume_at(self, rows: Sequence[Row]) -> None:
        """Report the values of the steps before a resume: other trials are compared with them."""
        self.rows = list(rows)
        for number in range(1, len(rows) + 1):
            self.report(rows[:number])

    def step(self, row: Row) -> None:
        """Report a step. Raises: Lost, Pruned."""
        self.rows.append(row)
        if self.lost:
            raise Lost()
        if self.report(self.rows):
            raise Pruned(f"pruned at step {row['step']}")

    def clear(self) -> None:
        """Delete the checkpoints of a trial that is over; those of all would fill the disk."""
        if self.run:
            shutil.rmtree(self.run.checkpoints, ignore_errors=True)

    def report(self, rows: Sequence[Row]) -> bool:
        """Report the value that is due after these rows. Returns whether the trial is hopeless."""
        assert self.plan is not None
        max_steps = self.plan.recipe.train.max_steps
        value = search.intermediate_value(rows, max_steps, self.plan.eval_problems)
        if value is None or rows[-1]["step"] >= max_steps:
            return False
        return self.trials.report(self.trial, rows[-1]["step"], value, self.pruner)


class Worker:
    """Runs trials until none is left. Used by one process, for one study."""

    def __init__(self, cells: list[Trials], place: Place):
        self.cells, self.place = cells, place
        self.warm = Warm()
        self.gpu = gpu.current()
        """The card before the engine took its share of the memory; later that share would count as
        taken by another process."""
        self.first_bytes: int | None = None

    def work(self) -> int:
        """Run trials. Returns the exit code. Raises: KeyboardInterrupt when asked to stop."""
        identity = this_worker()
        while True:
            for trials in self.cells:
                trial = trials.claim(identity)
                if trial is not None:
                    break
            else:
                if all(trials.is_done() for trials in self.cells):
                    return 0
                time.sleep(IDLE_S)
                continue
            if self.run_trial(trials, trial):
                return RESTART

    def run_trial(self, trials: Trials, trial: Trial) -> bool:
        """Run one trial and write down its result. Returns whether a fresh process is needed."""
        try:
            loaded = trials.cell.load(trial.params)
            plan = self.plan(trials, trial, loaded)
        except (RecipeError, PlanError) as error:
            trials.mark_infeasible(trial, str(error))
            return False
        pruning = Pruning(trials, trial)
        try:
            with heartbeats(trials, trial, pruning):
                run = self.execute(trials, trial, loaded, plan, pruning)
            trials.complete(trial, objective_values(run, trials.cell.settings.metrics))
            pruning.clear()
        except Pruned:
            trials.prune(trial)
            pruning.clear()
        except Lost:
            print(f"trial {trial.number} was given to another worker")
        except OtherEngine:
            trials.hand_back(trial)
            return True
        except (Stopped, KeyboardInterrupt):
            trials.hand_back(trial)
            raise KeyboardInterrupt from None
        except Exception as error:
            return self.handle_failure(trials, trial, error)
        return self.has_drifted()

    def plan(self, trials: Trials, trial: Trial, loaded: Loaded) -> Plan:
        """The trial's plan. Its memory is written down, so that the sampler learns what fits.

        Raises: PlanError when it cannot run here.
        """
        cores, offline = self.place.num_cores, self.place.settings.offline
        try:
            plan = plan_trial(trials.cell, loaded, cores, self.gpu, offline=offline)
        except DoesNotFit as error:
            trials.note_memory(trial, error.predicted)
            raise
        if plan.predicted:
            trials.note_memory(trial, plan.predicted)
        return plan

    def execute(
        self, trials: Trials, trial: Trial, loaded: Loaded, plan: Plan, pruning: Pruning
    ) -> Run:
        """The run of a trial: the run of its dead worker goes on if it is here, or a new one."""
        settings = self.place.settings
        log = View(Console(file=sys.stdout, width=200), live=False)
        observers = [log, *self.place.observers(log.note), pruning]
        shared: dict[str, Any] = {"options": self.place.options, "warm": self.warm}
        earlier = trial.user_attrs.get("run")
        if earlier and (run := Run(Path(earlier))).record.exists():
            with suppress(RecipeError):  # damaged, changed, or still in use: begin anew
                return training.resume(run, observers, settings, **shared)
        folder = run_folder(trials, trial, loaded, settings)
        return training.start(loaded, plan, observers, settings, folder=folder, **shared)

    def handle_failure(self, trials: Trials, trial: Trial, error: Exception) -> bool:
        """Write down why the trial failed. Returns whether the next one needs a fresh process.

        Raises: PlanError when the disk is full, for which the trial is not to blame.
        """
        kind = getattr(error, "kind", "input" if isinstance(error, R1RecipesError) else "crash")
        if kind == "disk":
            trials.hand_back(trial)
            raise PlanError(str(error), hint="make room, and `sweep` again goes on") from error
        if not isinstance(error, R1RecipesError):
            traceback.print_exc()
        with suppress(Lost):
            trials.fail(trial, kind, str(error))
        on_gpu = self.warm.backend is not None and gpu.current() is not None
        if not on_gpu:
            self.warm = Warm()
        return on_gpu and kind in UNSAFE_FAILURES

    def has_drifted(self) -> bool:
        """Whether clearly more memory is held than after the first trial."""
        if self.warm.backend is None:
            return False
        held = self.warm.backend.held_bytes()
        self.first_bytes = self.first_bytes or held
        return held - self.first_bytes > max(DRIFT_BYTES, 0.1 * self.first_bytes)


def run_folder(trials: Trials, trial: Trial, loaded: Loaded, settings: Settings) -> Path:
    """A free name such as `runs/tiny/lr=0.1-0007-1a2b3c4d`."""
    cell = trials.cell
    stem = "-".join(
        part
        for part in (cell.name, f"{trial.number:04}", recipe.fingerprint(loaded.recipe)[:8])
        if part
    )
    return files.free_name(settings.runs_dir.absolute() / cell.study, stem)


def objective_values(run: Run, metrics: list[str]) -> list[float]:
    """The values of the study's metrics, from the record's evaluation after training."""
    after = run.read()["evaluation"]["after"]
    return [float(after[metric.removeprefix("eval/")]) for metric in metrics]


@contextmanager
def heartbeats(trials: Trials, trial: Trial, pruning: Pruning) -> Iterator[None]:
    """Send heartbeats from a thread while a trial runs, and notice when it was taken away."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_S):
            with suppress(R1RecipesError):  # a database that is away too long ends the trial itself
                trials.beat(trial)
                pruning.lost = trials.is_taken(trial)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def main(cells: list[Trials], place: Place) -> int:
    """Work on a study until nothing is left. Returns the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    worker = Worker(cells, place)
    try:
        return worker.work()
    finally:
        worker.warm.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

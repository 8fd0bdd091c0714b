"""The trials of a cell in the study's database: claimed, reported, ended, queued again.

The database is all that workers and the driver share; nothing here starts a process or trains.
Which trials count towards the number that was asked for:

    COMPLETE, RUNNING, WAITING     yes
    PRUNED                         yes, unless it could not start (`infeasible`)
    FAIL                           yes if it failed by itself, with the reason in `error`; a trial
                                   whose worker died or that was one too many does not count

A trial of a dead worker is queued again once, with its values and its run folder. Two workers that
ask at the same moment may make one trial too many; the later one sees the other and steps back.
"""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from r1recipes.errors import RecipeError, RunError
from r1recipes.machine.units import GIB
from r1recipes.planning.memory.predicted import Predicted
from r1recipes.study import search
from r1recipes.study.cell import Cell, differences
from r1recipes.study.database import Storage

RESTART = 75
"""Exit code by which a worker asks for a fresh process (EX_TEMPFAIL of sysexits.h)."""
MAX_DEATHS = 1
"""A trial whose workers died more often is not queued again; another trial takes its place."""
INFEASIBLE_PER_TRIAL = 10
"""Proposals that cannot start, for each trial that counts, before they count too."""


class Lost(RunError):
    """This trial was taken for dead and given to another worker."""

    def __init__(self) -> None:
        super().__init__("the trial was given to another worker", kind="lost")


class Trials:
    """The trials of one cell. Raises: RecipeError when the storage has no such cell."""

    def __init__(self, storage: Storage, name: str):
        self.storage = storage
        try:
            self.study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            raise RecipeError(
                f"the database has no study `{name}`",
                hint="`sweep` with the study's file makes it",
            ) from error
        self.cell = self.read_cell()

    def read_cell(self) -> Cell:
        """The cell as it is now in the database; its number of trials may be raised."""
        try:
            return Cell.model_validate(self.study.user_attrs["cell"])
        except (KeyError, ValueError) as error:
            raise RecipeError(
                f"study `{self.study.study_name}` was not made by this version of r1recipes",
                hint="use the version that made it, or another `--name`",
            ) from error

    def all(self) -> list[FrozenTrial]:
        """Every trial in the order of its number; the objects are shared and must not change."""
        return self.study.get_trials(deepcopy=False)

    def num_startable(self) -> int:
        """Trials that can be started now."""
        self.cell = self.read_cell()
        trials = self.all()
        num_waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        return num_waiting + max(0, self.cell.num_trials - sum(map(is_counted, trials)))

    def is_done(self) -> bool:
        """Whether as many trials have ended as were asked for."""
        return sum(map(is_finished, self.all())) >= self.cell.num_trials

    def claim(self, worker: dict[str, Any]) -> Trial | None:
        """A trial for this worker with all its values, or None when there is none to start."""
        if not self.num_startable():
            return None
        trial = self.study.ask()
        self.beat(trial)  # first: the last heartbeat of one that was handed back is old
        trial.set_user_attr("worker", worker)
        earlier = [t for t in self.all() if t.number < trial.number and is_counted(t)]
        if len(earlier) >= self.cell.num_trials:
            self._note(trial, excess=True)
            self._end(trial, TrialState.FAIL)
            return None
        # The relative search runs when the first value is asked for: seeded by the trial's number,
        # so that neither a resumed study nor several workers repeat a draw.
        self.study.sampler = search.sampler(self.cell, trial.number)
        for key, distribution in search.distributions(self.cell).items():
            search.suggest(trial, key, distribution)
        return trial

    def beat(self, trial: Trial) -> None:
        """Write down that the trial's worker lives."""
        self.storage.beat(trial)

    def is_taken(self, trial: Trial) -> bool:
        """Whether the trial was taken for dead."""
        return self.storage.read(trial).state != TrialState.RUNNING

    def report(
        self, trial: Trial, step: int, value: float, pruner: optuna.pruners.BasePruner
    ) -> bool:
        """Write an intermediate value. Returns whether the trial is hopeless. Raises: Lost."""
        if not self.cell.settings.is_accuracy:
            return False  # the accuracy while training says nothing about it
        self.study.pruner = pruner
        try:
            trial.report(value, step)
        except UpdateFinishedTrialError as error:
            raise Lost() from error
        return trial.should_prune()

    def complete(self, trial: Trial, values: list[float]) -> None:
        """The trial ran to its end with these values of the metrics. Raises: Lost."""
        self._end(trial, TrialState.COMPLETE, values)

    def prune(self, trial: Trial) -> None:
        """The trial was ended early as hopeless. Raises: Lost."""
        self._end(trial, TrialState.PRUNED)

    def fail(self, trial: Trial, kind: str, message: str) -> None:
        """The trial failed by itself. The study goes on. Raises: Lost."""
        self._note(trial, error={"kind": kind, "message": message})
        self._end(trial, TrialState.FAIL)

    def mark_infeasible(self, trial: Trial, message: str) -> None:
        """The trial's values cannot run here. It counts, as failed, only where nothing else can.

        Raises: Lost.
        """
        num_infeasible = sum("infeasible" in other.user_attrs for other in self.all())
        limit = INFEASIBLE_PER_TRIAL * self.cell.num_trials
        if not self.cell.search or num_infeasible >= limit:
            self.fail(trial, "plan", message)
            return
        self._note(trial, infeasible=message)
        if not any(value > 0 for value in trial.constraints.values()):  # not memory: no measure
            trial.set_constraint("valid", 1.0)
        self._end(trial, TrialState.PRUNED)

    def hand_back(self, trial: Trial) -> None:
        """Queue a trial as it is, for this or another worker."""
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr("worker", None)
            self.storage.set_state(trial, TrialState.WAITING)

    def note_run(self, trial: Trial, folder: Path, max_steps: int) -> None:
        """Write down the trial's run folder, and the steps of which pruning may save some."""
        self._note(trial, run=str(folder), max_steps=max_steps)

    def note_memory(self, trial: Trial, predicted: Predicted) -> None:
        """Write down the memory that a trial will take, and as a constraint what is too much."""
        memory = {"peak_bytes": predicted.peak_bytes, "available_bytes": predicted.available_bytes}
        self._note(trial, predicted=memory)
        if not trial.constraints:  # a trial that was handed back has it
            trial.set_constraint("excess_gib", predicted.excess_bytes / GIB)

    def _note(self, trial: Trial, **attributes: Any) -> None:
        try:
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
        except UpdateFinishedTrialError as error:
            raise Lost() from error

    def _end(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        try:
            ended = self.study.tell(trial, values, state=state, skip_if_finished=True)
        except UpdateFinishedTrialError:  # by us, with the connection lost, or by another one
            ended = self.storage.read(trial)
        if ended.state != state:
            raise Lost()

    def requeue_dead(self, is_dead: Callable[[FrozenTrial], bool] | None = None) -> list[int]:
        """End running trials whose worker is dead and queue each again once. Returns numbers.

        Trials whose worker sent no heartbeat for long are found by the database's clock, those of
        which `is_dead` is true at once.
        """
        dead = {trial.number: trial for trial in self._stale_trials()}
        for trial in self.all() if is_dead else ():
            if trial.state == TrialState.RUNNING and is_dead and is_dead(trial):
                dead[trial.number] = trial
        ended = []
        for number, trial in dead.items():
            with suppress(UpdateFinishedTrialError):  # another one was faster
                self.storage.set_state(trial, TrialState.FAIL)
                _queue_again(self.study, self.storage.read(trial))
                ended.append(number)
        return ended

    def _stale_trials(self) -> list[FrozenTrial]:
        """Trials that are dead by the clock. Those that only seem so get a heartbeat: processes of
        this machine, after it was suspended, and a trial that was handed back and is being claimed
        right now."""
        stale = []
        for trial in self.storage.stale_trials(self.study):
            worker = trial.user_attrs.get("worker")
            is_here = worker is not None and worker["host"] == this_host()
            if worker is None or (is_here and not has_dead_local_worker(trial)):
                self.storage.beat(trial)
            else:
                stale.append(trial)
        return stale


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a dead trial's values once more, with its run folder."""
    deaths = trial.user_attrs.get("deaths", 0) + 1
    fixed = {k: v for k, v in trial.system_attrs.items() if k == "fixed_params"}
    run = {key: trial.user_attrs[key] for key in ("run",) if key in trial.user_attrs}
    has_ended = trial.user_attrs.keys() & {"error", "infeasible", "excess"}
    if not has_ended and deaths <= MAX_DEATHS and (trial.params or fixed or run):
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=run | {"deaths": deaths, "retry_of": trial.number},
            system_attrs=fixed,
        )
        study.add_trial(again)


def create_cell(storage: Storage, cell: Cell) -> Trials:
    """Make the cell's study, or open it when it is there and searches the same.

    Raises: RecipeError with every difference to what is there.
    """
    study = optuna.create_study(
        study_name=cell.full_name,
        storage=storage,
        directions=cell.settings.directions,
        load_if_exists=True,
    )
    if "cell" in study.user_attrs:
        if changes := differences(Trials(storage, cell.full_name).cell, cell):
            raise RecipeError(
                f"study `{cell.full_name}` is there and searches something else:\n  "
                + "\n  ".join(changes),
                hint="put it back as it was, or begin another study with `--name NAME`",
            )
    elif cell.search and cell.settings.baseline:
        study.enqueue_trial(cell.own_values(), skip_if_exists=True)
    study.set_user_attr("cell", cell.model_dump(mode="json", exclude_unset=True))
    return Trials(storage, cell.full_name)


def load_cells(storage: Storage, study: str) -> list[Trials]:
    """The trials of all cells of a study, in their order. Raises: RecipeError when it has none."""
    names = optuna.get_all_study_names(storage=storage)
    cells = [Trials(storage, name) for name in _names_of_cells(names, study)]
    if not cells:
        others = ", ".join(dict.fromkeys(name.split("/")[0] for name in names)) or "none"
        raise RecipeError(f"the database has no study `{study}`", hint=f"it has: {others}")
    return sorted(cells, key=lambda trials: trials.cell.index)


def refuse_removed_cells(storage: Storage, study: str, cells: Sequence[Cell]) -> None:
    """Raises: RecipeError when the study has cells in the database that are not among `cells`:
    workers would run them, and tables show them."""
    present = {cell.full_name for cell in cells}
    names = _names_of_cells(optuna.get_all_study_names(storage=storage), study)
    removed = [name.partition("/")[2] for name in names if name not in present]
    if removed:
        listed = ", ".join(name or "the one without a matrix" for name in removed)
        raise RecipeError(
            f"study `{study}` has cells that are not in the file any more: {listed}",
            hint="put them back, or begin another study with `--name NAME`; cells can be added",
        )


def _names_of_cells(names: Iterable[str], study: str) -> list[str]:
    """The names of a study's cells, `STUDY` or `STUDY/CELL`, among those of a database."""
    return [name for name in names if f"{name}/".startswith(f"{study}/")]


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for; see the module."""
    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state != TrialState.PRUNED or "infeasible" not in trial.user_attrs


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial that counts has ended."""
    return trial.state.is_finished() and is_counted(trial)


def finished_trials(cells: Iterable[Trials]) -> list[FrozenTrial]:
    """The trials of all cells that count and have ended."""
    return [trial for trials in cells for trial in trials.all() if is_finished(trial)]


def this_worker() -> dict[str, Any]:
    """What tells this process from every other: its machine, its process id, the time at which it
    started, and the name that a launcher gave it."""
    pid, name = os.getpid(), os.environ.get("R1RECIPES_WORKER")
    return {"host": this_host(), "pid": pid, "started": _start_time(pid), "name": name}


def this_host() -> str:
    """This machine; containers that share a name have process ids of their own."""
    with suppress(OSError):
        return f"{platform.node()}/{os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def has_dead_local_worker(trial: FrozenTrial) -> bool:
    """Whether the trial's worker was a process of this machine that is gone."""
    worker = trial.user_attrs.get("worker")
    if worker is None or worker["host"] != this_host():
        return False
    return _start_time(worker["pid"]) != worker["started"]


def _start_time(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]

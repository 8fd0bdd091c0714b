"""The trials of a cell in Optuna's storage: claim, report, tell, and bury those of dead workers.

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from r1recipes.errors import RecipeError, RunError
from r1recipes.machine.units import GIB
from r1recipes.planning.verdict import Predicted
from r1recipes.study import search
from r1recipes.study.cell import Cell, differences
from r1recipes.study.database import patiently

RESTART = 75
"""Exit code by which a worker asks for a fresh process (EX_TEMPFAIL of sysexits.h)."""
MAX_DEATHS = 1
"""Deaths after which a trial is queued again; after more, another trial takes its place."""
INFEASIBLE_PER_TRIAL = 10
"""Proposals that cannot start, for each trial that counts, before they count too."""


class Lost(RunError):
    """This trial was taken for dead and given to another worker."""

    def __init__(self) -> None:
        super().__init__("the trial was given to another worker", kind="lost")


class Trials:
    """The trials of one cell. Raises: RecipeError when the storage has no such cell."""

    def __init__(self, storage: optuna.storages.RDBStorage, name: str):
        self.storage = storage
        try:
            self.study = patiently(lambda: optuna.load_study(study_name=name, storage=storage))
        except KeyError as error:
            raise RecipeError(
                f"the database has no study `{name}`", hint="`r1recipes sweep FILE` makes it"
            ) from error
        self.cell = self.read_cell()

    def read_cell(self) -> Cell:
        """The cell as it is now in the database; its number of trials may be raised."""
        attributes = patiently(lambda: self.study.user_attrs)
        try:
            return Cell.model_validate(attributes["cell"])
        except (KeyError, ValueError) as error:
            raise RecipeError(
                f"study `{self.study.study_name}` was not made by this version of r1recipes",
                hint="use the version that made it, or another `--name`",
            ) from error

    def all(self) -> list[FrozenTrial]:
        return patiently(lambda: self.study.get_trials(deepcopy=False))

    def open_places(self) -> int:
        """Trials that can be started now."""
        self.cell = self.read_cell()
        trials = self.all()
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        return waiting + max(0, self.cell.num_trials - sum(map(counts, trials)))

    def is_done(self) -> bool:
        return sum(is_finished(trial) for trial in self.all()) >= self.cell.num_trials

    def claim(self, worker: dict[str, Any]) -> Trial | None:
        """A trial for this worker with all its values, or None when there is none to start."""
        if not self.open_places():
            return None
        trial = patiently(self.study.ask)
        self.beat(trial)  # first: one that was handed back has beaten long ago
        patiently(lambda: trial.set_user_attr("worker", worker))
        earlier = [other for other in self.all() if other.number < trial.number and counts(other)]
        if len(earlier) >= self.cell.num_trials:
            self._note(trial, excess=True)
            self._end(trial, TrialState.FAIL)
            return None
        # The relative search runs when the first value is asked for: seeded by the trial's number,
        # so that neither a resumed study nor several workers repeat a draw.
        self.study.sampler = search.sampler(self.cell, trial.number)
        for key, distribution in search.distributions(self.cell).items():
            patiently(lambda k=key, d=distribution: search.suggest(trial, k, d))
        return trial

    def beat(self, trial: Trial) -> None:
        """Say that the trial's worker lives."""
        patiently(lambda: self.storage.record_heartbeat(trial._trial_id))

    def is_taken(self, trial: Trial) -> bool:
        """Whether the trial was taken for dead."""
        frozen = patiently(lambda: self.storage.get_trial(trial._trial_id))
        return frozen.state != TrialState.RUNNING

    def report(self, trial: Trial, step: int, value: float, pruner: optuna.pruners.BasePruner):
        """Write an intermediate value; whether the trial is hopeless. Raises: Lost."""
        if not self.cell.settings.is_accuracy:
            return False  # the accuracy in training says nothing about it
        self.study.pruner = pruner
        try:
            patiently(lambda: trial.report(value, step))
        except UpdateFinishedTrialError as error:
            raise Lost() from error
        return patiently(trial.should_prune)

    def complete(self, trial: Trial, values: list[float]) -> None:
        self._end(trial, TrialState.COMPLETE, values)

    def prune(self, trial: Trial) -> None:
        self._end(trial, TrialState.PRUNED)

    def fail(self, trial: Trial, kind: str, message: str) -> None:
        """The trial failed by itself. The study goes on."""
        self._note(trial, error={"kind": kind, "message": message})
        self._end(trial, TrialState.FAIL)

    def refuse(self, trial: Trial, message: str) -> None:
        """Its values cannot run here: told as infeasible, or as failed where nothing else can."""
        tried = sum("infeasible" in other.user_attrs for other in self.all())
        if not self.cell.search or tried >= INFEASIBLE_PER_TRIAL * self.cell.num_trials:
            self.fail(trial, "plan", message)
            return
        self._note(trial, infeasible=message)
        if not any(value > 0 for value in trial.constraints.values()):  # not memory: no measure
            patiently(lambda: trial.set_constraint("valid", 1.0))
        self._end(trial, TrialState.PRUNED)

    def hand_back(self, trial: Trial) -> None:
        """Queue a trial as it is, for this or another worker."""
        with suppress(UpdateFinishedTrialError):
            patiently(lambda: trial.set_user_attr("worker", None))
            patiently(
                lambda: self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            )

    def note_run(self, trial: Trial, folder: Path, max_steps: int) -> None:
        """Write down the trial's run folder, and the steps of which pruning may save some."""
        self._note(trial, run=str(folder), max_steps=max_steps)

    def note_memory(self, trial: Trial, predicted: Predicted) -> None:
        """Write down the memory that a trial will take, and as a constraint what is too much."""
        room = {"peak_bytes": predicted.peak_bytes, "available_bytes": predicted.available_bytes}
        self._note(trial, predicted=room)
        if not trial.constraints:  # a trial that was handed back has it
            excess = predicted.excess_bytes / GIB
            patiently(lambda: trial.set_constraint("excess_gib", excess))

    def _note(self, trial: Trial, **attributes: Any) -> None:
        try:
            for key, value in attributes.items():
                patiently(lambda k=key, v=value: trial.set_user_attr(k, v))
        except UpdateFinishedTrialError as error:
            raise Lost() from error

    def _end(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        def tell() -> None:
            frozen = self.study.tell(trial, values, state=state, skip_if_finished=True)
            if frozen.state != state:
                raise Lost()

        patiently(tell)

    def bury(self, is_dead: Callable[[FrozenTrial], bool] | None = None) -> list[int]:
        """End running trials whose worker is dead and queue each again once. Returns numbers.

        Trials of workers that beat no more are found by the database's own clock, those that
        `is_dead` knows of at once.
        """
        self._excuse()
        buried: list[int] = []
        self.storage.heartbeat_stale_trial_callback = lambda _, trial: buried.append(
            queue_again(self.study, trial)
        )
        patiently(lambda: optuna.storages.fail_stale_trials(self.study))
        for trial in self.all() if is_dead else ():
            if trial.state == TrialState.RUNNING and is_dead(trial):
                with suppress(UpdateFinishedTrialError):  # another one was faster
                    patiently(
                        lambda t=trial: self.storage.set_trial_state_values(
                            t._trial_id, TrialState.FAIL
                        )
                    )
                    buried.append(queue_again(self.study, trial))
        return buried

    def _excuse(self) -> None:
        """Beat for those that seem dead by the clock alone: processes of this machine, after it
        was suspended, and a trial that was handed back and is being claimed right now."""
        for trial_id in patiently(lambda: self.storage._get_stale_trial_ids(self.study._study_id)):
            trial = patiently(lambda i=trial_id: self.storage.get_trial(i))
            worker = trial.user_attrs.get("worker")
            if worker is None or (worker["host"] == this_host() and not is_dead_here(trial)):
                patiently(lambda i=trial_id: self.storage.record_heartbeat(i))


def queue_again(study: optuna.Study, trial: FrozenTrial) -> int:
    """Queue a dead trial's values once more, with its run folder. Returns its number."""
    deaths = trial.user_attrs.get("deaths", 0) + 1
    fixed = {k: v for k, v in trial.system_attrs.items() if k == "fixed_params"}
    kept = {key: trial.user_attrs[key] for key in ("run",) if key in trial.user_attrs}
    has_ended = trial.user_attrs.keys() & {"error", "infeasible", "excess"}
    if not has_ended and deaths <= MAX_DEATHS and (trial.params or fixed or kept):
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=kept | {"deaths": deaths, "retry_of": trial.number},
            system_attrs=fixed,
        )
        patiently(lambda: study.add_trial(again))
    return trial.number


def create(storage: optuna.storages.RDBStorage, cell: Cell) -> Trials:
    """Make the cell's study, or open it when it is there and searches the same.

    Raises: RecipeError with every difference to what is there.
    """
    made = patiently(
        lambda: optuna.create_study(
            study_name=cell.full_name,
            storage=storage,
            directions=cell.settings.directions,
            load_if_exists=True,
        )
    )
    attributes = made.user_attrs
    if "cell" in attributes:
        found = differences(Trials(storage, cell.full_name).cell, cell)
        if found:
            raise RecipeError(
                f"study `{cell.full_name}` is there and searches something else:\n  "
                + "\n  ".join(found),
                hint="put it back as it was, or begin another study with `--name NAME`",
            )
    elif cell.search and cell.settings.baseline:
        patiently(lambda: made.enqueue_trial(cell.own_values(), skip_if_exists=True))
    patiently(lambda: made.set_user_attr("cell", cell.model_dump(mode="json", exclude_unset=True)))
    return Trials(storage, cell.full_name)


def cells(storage: optuna.storages.RDBStorage, name: str) -> list[Trials]:
    """All cells of a study in their order. Raises: RecipeError when there is none."""
    known = patiently(lambda: optuna.get_all_study_names(storage=storage))
    found = [Trials(storage, full_name) for full_name in of_study(known, name)]
    if not found:
        others = ", ".join(dict.fromkeys(n.split("/")[0] for n in known)) or "none"
        raise RecipeError(f"the database has no study `{name}`", hint=f"it has: {others}")
    return sorted(found, key=lambda trials: trials.cell.index)


def refuse_removed(storage: optuna.storages.RDBStorage, name: str, cells: list[Cell]) -> None:
    """Raises: RecipeError when the study has cells in the database that are not among `cells`:
    workers would run them, and tables show them."""
    known = patiently(lambda: optuna.get_all_study_names(storage=storage))
    kept = {cell.full_name for cell in cells}
    if removed := [
        n.partition("/")[2] or "the one of no matrix"
        for n in of_study(known, name)
        if n not in kept
    ]:
        raise RecipeError(
            f"study `{name}` is there with cells that the file has no more: {', '.join(removed)}",
            hint="put them back, or begin another study with `--name NAME`; cells can be added",
        )


def of_study(known: list[str], name: str) -> list[str]:
    """The names of a study's cells among those of a database."""
    return [full_name for full_name in known if f"{full_name}/".startswith(f"{name}/")]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for; see the module."""
    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state != TrialState.PRUNED or "infeasible" not in trial.user_attrs


def is_finished(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and counts(trial)


def this_worker() -> dict[str, Any]:
    """What tells this process from every other: machine, process id, and when it was started; and
    the name that a launcher gave it."""
    pid, name = os.getpid(), os.environ.get("R1RECIPES_WORKER")
    return {"host": this_host(), "pid": pid, "started": _started(pid), "name": name}


def this_host() -> str:
    """This machine; containers that share a name have their own process numbers."""
    with suppress(OSError):
        return f"{platform.node()}/{os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def is_dead_here(trial: FrozenTrial) -> bool:
    """Whether its worker was a process of this machine and is gone; one of another may live."""
    worker = trial.user_attrs.get("worker")
    if worker is None or worker["host"] != this_host():
        return False
    return _started(worker["pid"]) != worker["started"]


def _started(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]

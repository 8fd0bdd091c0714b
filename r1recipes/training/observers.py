"""Everything that watches a run: a screen, trackers, a report page, a study that prunes its trials.

The command hands in a list of observers, and `Observers` passes each event on to all of them. An
observer that fails is dropped with one warning and the run goes on, unless it `decides`: then
whatever it raises ends the run. Limits: observers are called in the thread that trains, so an
observer that may wait for something needs a thread of its own.
"""

import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import ClassVar

from r1recipes.errors import R1RecipesError
from r1recipes.planning.plan import Plan
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run


class Pruned(R1RecipesError):
    """A study ended this run early: it was too far behind the other trials."""


class Observer:
    """Base class of all observers. Every method does nothing until a subclass overrides it."""

    name: ClassVar[str] = "an observer"
    """What a warning calls it."""
    decides: ClassVar[bool] = False
    """Whether it may end the run, by raising `Pruned` or any other error."""
    sees_stages: ClassVar[bool] = False
    """Whether it hears of the steps and evaluations of the stages before the last training too."""

    def phase(self, title: str) -> None:
        """A stage begins."""

    def note(self, text: str) -> None:
        """A line that the user should see. May be called from another thread."""

    def begin(self, run: Run, plan: Plan) -> None:
        """The run folder exists, and its first stage is about to begin."""

    def stage(self, title: str, plan: Plan, *, is_last: bool) -> None:
        """A stage of the recipe begins, such as "1-sft": the steps from here on are those of its
        plan. `is_last`: it is the training that the stages come before."""

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` steps or completions of the current stage are done."""

    def loss(self, value: float) -> None:
        """The step of the cold start of which `progress` has just told had this loss."""

    def resume_at(self, rows: Sequence[Row]) -> None:
        """Training begins after these steps of an earlier attempt; none in a new run."""

    def step(self, row: Row) -> None:
        """An optimiser step is done, and its metrics are on the disk."""

    def trained(self) -> None:
        """Training ended, was stopped, or failed."""

    def evaluated(self, when: str, evaluation: Row) -> None:
        """An evaluation is done; `evaluation` is its summary."""

    def end(self, run: Run) -> None:
        """The run is over, however it ended, and its record is final."""


class Observers(Observer):
    """Passes each event on to every observer, and drops those that fail.

    Observers that decide come last, so that all others have seen the step at which a run ends. The
    end itself is passed on in reverse order, as contexts are closed.
    """

    def __init__(self, observers: Iterable[Observer]):
        self._observers = sorted(observers, key=lambda observer: observer.decides)
        self._is_earlier = False

    def phase(self, title: str) -> None:
        self._call(lambda observer: observer.phase(title))

    def note(self, text: str) -> None:
        self._call(lambda observer: observer.note(text))

    def begin(self, run: Run, plan: Plan) -> None:
        self._call(lambda observer: observer.begin(run, plan))

    def stage(self, title: str, plan: Plan, *, is_last: bool) -> None:
        self._is_earlier = not is_last
        self._call(lambda observer: observer.stage(title, plan, is_last=is_last))

    def progress(self, done: int, total: int) -> None:
        self._call(lambda observer: observer.progress(done, total))

    def loss(self, value: float) -> None:
        self._call(lambda observer: observer.loss(value))

    def resume_at(self, rows: Sequence[Row]) -> None:
        self._tell(lambda observer: observer.resume_at(rows))

    def step(self, row: Row) -> None:
        self._tell(lambda observer: observer.step(row))

    def trained(self) -> None:
        self._tell(lambda observer: observer.trained())

    def evaluated(self, when: str, evaluation: Row) -> None:
        self._tell(lambda observer: observer.evaluated(when, evaluation))

    def end(self, run: Run) -> None:
        self._call(lambda observer: observer.end(run), reverse=True)

    def _tell(self, event: Callable[[Observer], None]) -> None:
        """Pass an event of a training on to those who want to hear of it."""
        if not self._is_earlier:
            self._call(event)
            return
        self._call(lambda observer: event(observer) if observer.sees_stages else None)

    def _call(self, event: Callable[[Observer], None], *, reverse: bool = False) -> None:
        for observer in self._observers[::-1] if reverse else self._observers[:]:
            try:
                event(observer)
            except Exception as error:  # no observer may stop hours of training by its own fault
                if observer.decides:
                    raise
                self._drop(observer, error)

    def _drop(self, observer: Observer, error: Exception) -> None:
        """Leave an observer out from here on, and warn of it through the others."""
        with suppress(OSError):  # the log may be on a full disk
            traceback.print_exception(error)
        self._observers = [other for other in self._observers if other is not observer]
        lines = str(error).strip().splitlines()
        reason = ": ".join([type(error).__name__, *lines[:1]])
        self.note(f"warning: {observer.name} stopped: {reason}; the run goes on without it")

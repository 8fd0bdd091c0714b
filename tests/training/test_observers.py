"""Observers: which of them may end a run, and what becomes of one that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import Stopped
from r1recipes.machine import files
from r1recipes.runs import record
from r1recipes.runs.record import Run
from r1recipes.training import Observer
from r1recipes.training.observers import Observers, Pruned
from tests.helpers import run_in_process
from tests.training.test_run import comparable

EVENTS = "phase note begin progress resume_at step trained evaluated end".split()


class Diary(Observer):
    """Writes down the name of each event, and every note."""

    name = "a diary"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.notes: list[str] = []

    def note(self, text):
        self.notes.append(text)

    def __getattribute__(self, name):
        if name in EVENTS:
            self.events.append(name)
        return super().__getattribute__(name)


class Failing(Observer):
    """Raises at each call of one event."""

    name = "a failing observer"

    def __init__(self, event: str, error: BaseException):
        self.calls = 0
        self._error = error
        setattr(self, event, self._fail)

    def _fail(self, *arguments):
        self.calls += 1
        raise self._error


class Judge(Observer):
    """Ends a run after two steps, and looks whether they are on the disk by then."""

    decides = True

    def begin(self, run, plan):
        self.run = run

    def step(self, row):
        assert files.read_lines(self.run.metrics)[-1] == row
        if row["step"] == 2:
            raise Pruned("pruned at step 2")


@pytest.mark.parametrize("event", EVENTS)
def test_an_observer_that_fails_is_dropped_with_one_warning(event, small, capsys):
    loaded = recipe.load(small)
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=small.parent)
    failing, diary = Failing(event, OSError("no route to host\nmore")), Diary()
    watching = Observers([failing, diary])
    for _ in range(2):
        watching.phase("Training")
        watching.note("a line")
        watching.begin(Run(Path("x")), plan)
        watching.progress(1, 2)
        watching.resume_at([])
        watching.step({"step": 1})
        watching.trained()
        watching.evaluated("after", {})
        watching.end(Run(Path("x")))
    assert failing.calls == 1
    warning = "warning: a failing observer stopped: OSError: no route to host; "
    assert diary.notes.count(warning + "the run goes on without it") == 1
    assert [diary.events.count(name) for name in EVENTS if name != "note"] == [2] * 8
    assert "Traceback" in capsys.readouterr().err


def test_an_observer_that_fails_alone_has_nobody_to_warn(capsys):
    Observers([Failing("note", ValueError())]).note("a line")
    assert "ValueError" in capsys.readouterr().err


def test_what_a_deciding_observer_raises_comes_through_after_the_others_have_seen_the_step():
    class Strict(Failing):
        decides = True

    judge, diary = Strict("step", Pruned("hopeless")), Diary()
    with pytest.raises(Pruned, match="hopeless"):
        Observers([judge, diary]).step({"step": 1})
    assert "step" in diary.events


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_a_stop_within_an_observer_stops(error):
    with pytest.raises(type(error)):
        Observers([Failing("step", error)]).step({"step": 1})


def test_the_end_goes_round_in_reverse_order():
    order = []

    class Last(Observer):
        def __init__(self, number):
            self.number = number

        def end(self, run):
            order.append(self.number)

    Observers([Last(1), Last(2), Last(3)]).end(Run(Path("x")))
    assert order == [3, 2, 1]


@pytest.mark.slow
def test_a_run_completes_without_observers_that_fail(finished, small, tmp_path):
    events = ("begin", "evaluated", "step", "end")  # in the order of a run
    failing = [Failing(event, OSError(f"no route to {event}")) for event in events]
    diary = Diary()
    run = run_in_process(small, tmp_path / "runs", observers=[*failing, diary])
    assert [observer.calls for observer in failing] == [1] * 4
    warnings = [note for note in diary.notes if "a failing observer stopped" in note]
    assert run.read()["status"] == "complete" and len(warnings) == 4
    log = run.log.read_text()
    for event, warning in zip(events, warnings, strict=True):
        assert f"no route to {event}" in warning and f"no route to {event}" in log
    assert comparable(run) == comparable(finished)


@pytest.mark.slow
def test_an_observer_that_decides_prunes_a_run(small, tmp_path):
    diary = Diary()
    with pytest.raises(Pruned, match="at step 2"):
        run_in_process(small, tmp_path / "runs", observers=[Judge(), diary])
    (run,) = record.all_runs(tmp_path / "runs")
    assert run.read()["status"] == "pruned" and run.read()["finished"]
    assert [row["step"] for row in files.read_lines(run.metrics)] == [1, 2]
    assert diary.events.count("step") == 2 and diary.events[-2:] == ["trained", "end"]


@pytest.mark.slow
def test_ctrl_c_within_an_observer_stops_the_run_as_anywhere(small, tmp_path):
    with pytest.raises(Stopped, match="the cold start is done and saved"):
        run_in_process(
            small, tmp_path / "runs", observers=[Failing("evaluated", KeyboardInterrupt())]
        )
    assert record.all_runs(tmp_path / "runs")[0].read()["status"] == "stopped"


def test_training_imports_neither_a_screen_nor_the_report():
    code = (
        "import sys, r1recipes.training.run, r1recipes.training.stages\n"
        "print(*[n for n in sys.modules if n.startswith(('rich', 'r1recipes.report', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

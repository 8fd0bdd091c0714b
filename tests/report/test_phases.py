"""Where the time of a run went: the parts add up to the time of the command, however it ended."""

import shutil
import signal
import time
from collections.abc import Callable

import pytest

from r1recipes import training
from r1recipes.errors import Stopped
from r1recipes.machine import files, settings
from r1recipes.machine.units import duration
from r1recipes.report import curves, phases
from r1recipes.report import run as report_run
from r1recipes.runs import reading
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training import Observer
from tests.helpers import command, in_process, quiet_view, run_in_process

TOLERANCE = 0.02
"""Share of the measured time by which the sum of the parts may differ from it."""
SLACK_S = 0.15
"""Seconds of a few file reads on a busy machine; a run here takes 4."""
IN_A_RUN = {
    "imports",
    "data and rewards",
    "cold start",
    "loading the model",
    "evaluation before",
    "first step",
    "generation",
    "rewards",
    "training pass",
    "rest of the steps",
    "checkpoints",
    "evaluation after",
    "report and trackers",
    "other",
}
MAY_BE_0 = {"imports"}
"""In a process that has imported everything."""


def parts_of(run: Run) -> dict[str, float]:
    return phases.of(reading.read(run))


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_the_parts_add_up_to_the_time_of_the_run(small, tmp_path):
    made: list[Run] = []
    wall_s = timed(lambda: made.append(run_in_process(small, tmp_path / "runs")))
    parts = parts_of(made[0])
    assert parts.keys() | MAY_BE_0 == IN_A_RUN and min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(wall_s, rel=TOLERANCE, abs=SLACK_S)
    assert made[0].read()["time"]["total"] == pytest.approx(wall_s, rel=TOLERANCE, abs=SLACK_S)
    assert parts["other"] < 0.2 * wall_s


def test_evaluations_while_training_are_a_part(finished, tmp_path):
    """They are no part of the time of their step (`training.evaluation.while_training`)."""
    run, before = Run(shutil.copytree(finished.folder, tmp_path / "evaluated")), parts_of(finished)
    rows = files.read_lines(run.metrics)
    rows[2]["time/evaluation_s"] = rows[4]["time/evaluation_s"] = before["other"] / 4
    run.metrics.unlink()
    files.append_line(run.metrics, *rows)
    parts = parts_of(run)
    assert parts["held-out evaluation"] == pytest.approx(before["other"] / 2)
    assert parts["other"] == pytest.approx(before["other"] / 2)


def test_the_command_says_where_its_time_went(small, tmp_path):
    """Imports are those of its own process; what is left is the start and the end of Python."""
    ended = []
    wall_s = timed(lambda: ended.append(command("run", "small.toml", cwd=tmp_path)))
    (done,) = ended
    assert done.returncode == 0, done.stderr
    run = Run(next(tmp_path.glob("runs/*/*")))
    total = run.read()["time"]["total"]
    assert 0.6 * wall_s < total <= wall_s and run.read()["time"]["imports"] > 0.3
    assert f"Done in {duration(total)}:" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Time: ")]
    assert line == phases.sentence(parts_of(run)) and "imports" in line and "generation" in line


class Stop(Observer):
    """Sends Ctrl-C at the third step."""

    def step(self, row: Row) -> None:
        if row["step"] == 3:
            signal.raise_signal(signal.SIGINT)


def test_a_resumed_run_has_the_time_of_both_attempts(small, tmp_path):
    def first() -> None:
        with pytest.raises(Stopped):
            run_in_process(small, tmp_path / "runs", observers=[quiet_view(), Stop()])

    wall_s = timed(first)
    (folder,) = (tmp_path / "runs").glob("*/*")
    run = Run(folder)
    assert run.read()["time"]["total"] == pytest.approx(wall_s, rel=TOLERANCE, abs=SLACK_S)
    machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
    wall_s += timed(lambda: training.resume(run, [quiet_view()], machine))
    assert run.read()["time"]["total"] == pytest.approx(wall_s, rel=TOLERANCE, abs=SLACK_S)
    assert sum(parts_of(run).values()) == pytest.approx(wall_s, rel=TOLERANCE, abs=SLACK_S)


def test_a_page_shows_the_parts_and_their_data(finished):
    (chart,) = [c for c in curves.cost([reading.read(finished)]) if c.key == "stages"]
    labels = [row[0] for row in chart.table()[1:]]
    assert chart.title == "Where the time went" and {*labels} | MAY_BE_0 == IN_A_RUN
    assert "Where the time went" in report_run.html([finished])


def test_runs_of_older_versions_have_stages_alone(finished, tmp_path):
    recorded = finished.read()
    del recorded["time"]
    older = Run(tmp_path / "older")
    older.folder.mkdir()
    files.write_json(older.record, recorded)
    read = reading.read(older)
    assert phases.of(read) == {} and phases.sentence({}) == ""
    assert read.duration_s == pytest.approx(sum(recorded["duration_s"].values()))
    (chart,) = [c for c in curves.cost([read]) if c.key == "stages"]
    assert chart.title == "Time of each stage"
    recorded["time"] = finished.read()["time"]
    files.write_json(older.record, recorded)  # without metrics, training is one part
    parts = phases.of(reading.read(older))
    assert parts["training"] > 0 and "generation" not in parts
    assert sum(parts.values()) == pytest.approx(
        recorded["time"]["total"], rel=TOLERANCE, abs=SLACK_S
    )


def test_small_parts_are_summed_in_the_sentence():
    parts = {"imports": 0.4, "generation": 79.6, "training pass": 19.5, "other": 0.5}
    assert phases.sentence(parts) == "Time: generation 80%, training pass 20%, other 1%"


def test_list_says_the_time_of_the_whole_run(finished, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(finished.folder.parents[1]))
    total = finished.read()["time"]["total"]
    assert f"{total:.0f} s" in in_process("list", "runs")[1]

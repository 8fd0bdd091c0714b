"""What the trials of a study do, how long it will take, and what of it is shown."""

import io
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from r1recipes.machine import files
from r1recipes.study.leaderboard import running
from r1recipes.study.leaderboard.live import Board
from tests.study.claims import claim, make


def run_folder(folder: Path, stage: str | None, steps: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"name": stage, "began_s": 1.0} if stage else None
    files.write_json(folder / "record.json", {"status": "running", "stage": about})
    files.append_line(folder / "metrics.jsonl", *({"step": n + 1} for n in range(steps)))
    return folder


@pytest.mark.parametrize(
    ("name", "steps", "text"),
    [
        ("cold_start", 0, "cold start"),
        ("evaluate_before", 0, "evaluation before"),
        ("train", 0, "training"),
        ("train", 3, "training, step 3 of 8"),
        (None, 3, ""),
    ],
)
def test_the_stage_of_a_trial_is_that_of_its_run(url, cell, tmp_path, name, steps, text):
    made = make(url, cell)
    trial = claim(made)
    made.note_run(trial, run_folder(tmp_path / "0000-aaaa", name, steps), 8)
    assert running.stage(made.all()[0]) == text


def test_a_trial_whose_run_is_not_here_has_no_stage(url, cell, tmp_path):
    made = make(url, cell)
    trial = claim(made)
    assert running.stage(made.all()[0]) == ""
    made.note_run(trial, tmp_path / "elsewhere", 8)
    assert running.stage(made.all()[0]) == ""


def test_the_time_left_is_the_mean_of_what_ended_for_what_has_not(url, cell, monkeypatch):
    made = make(url, cell)
    began = datetime(2026, 1, 1)
    complete = [ended(number, began, seconds) for number, seconds in enumerate((100, 300))]
    running_one = ended(2, began, None)
    assert running.seconds_left([made], began) is None
    monkeypatch.setattr(made, "all", lambda: [*complete, running_one])
    left = cell.num_trials - 2
    assert running.seconds_left([made], began) == pytest.approx(200 * left)
    later = began + timedelta(seconds=50)
    assert running.seconds_left([made], later) == pytest.approx(200 * left - 50)
    late = began + timedelta(seconds=5000)  # longer than the mean: it is about to end
    assert running.seconds_left([made], late) == pytest.approx(200 * (left - 1))
    monkeypatch.setattr(made, "all", lambda: [*complete, running_one, running_one])
    assert running.seconds_left([made], began) == pytest.approx(200 * left / 2)


def ended(number: int, began: datetime, seconds: float | None) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState.RUNNING if seconds is None else TrialState.COMPLETE,
        value=None if seconds is None else 0.5,
        datetime_start=began,
        datetime_complete=None if seconds is None else began + timedelta(seconds=seconds),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


def test_stages_are_lines_without_a_terminal(url, cell, tmp_path):
    made = make(url, cell)
    out = io.StringIO()
    with Board(Console(file=out, width=200), [made]) as board:
        trial = claim(made)
        board.look()
        folder = tmp_path / "0000-aaaa"
        made.note_run(trial, folder, 8)
        for stage, steps in (("cold_start", 0), (None, 0), ("train", 0), ("train", 2), (None, 0)):
            run_folder(folder, stage, steps)
            board.look()
        made.complete(trial, [0.5])
        board.look()
    first = "trial 0  starting\ntrial 0  cold start\ntrial 0  training\ntrial 0  complete  accuracy"
    assert out.getvalue().startswith(first)
    assert re.search(rf"\n  1 of {cell.num_trials} trials, about \d+ s left\n", out.getvalue())


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_a_terminal_shows_the_stages_within_its_width(url, cell, tmp_path, width):
    made = make(url, cell)
    made.complete(claim(made), [0.5])
    trial = claim(made)
    made.note_run(trial, run_folder(tmp_path / "0001-aaaa", "train", 3), 8)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    board = Board(console, [made])
    board.look()
    console.print(board.render())
    text = out.getvalue()
    assert "trial 1: training, step 3 of 8" in text and " left" in text
    assert all(len(line) <= width for line in text.splitlines())

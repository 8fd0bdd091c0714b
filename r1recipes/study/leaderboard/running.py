"""What the trials of a study do now, and how long they will take.

The stage of a trial is that of its run folder. Limits: a folder of another machine that is not
mounted here shows no stage; the time left is a mean, and trials that are pruned are shorter.
"""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from r1recipes.errors import RecipeError
from r1recipes.runs import reading
from r1recipes.runs.record import Run
from r1recipes.study.trials import Trials, finished_trials, is_finished

STAGES = reading.STAGES | {"merge": "merging the adapter", "evaluate": "evaluation"}
"""Name of a stage of a trial -> as people read it."""


def stage(trial: FrozenTrial) -> str:
    """What a running trial does: `cold start`, or `training, step 4 of 8`; empty where its run
    folder does not tell."""
    folder = trial.user_attrs.get("run")
    with suppress(RecipeError, OSError):  # it is of another machine, or about to be written
        run = Run(Path(folder)) if folder else None
        record = run.read() if run else {}
        name = (record.get("stage") or {}).get("name", "")
        part, _, own = name.rpartition("/")  # "1-sft/train"
        words = STAGES.get(own)
        if run is None or words is None:
            return ""
        if own == "train":
            metrics = (run.stage(part) if part else run).metrics
            steps = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
            total = trial.user_attrs.get("max_steps")
            of_all = f" of {total}" if total and not part else ""
            words = f"training, step {steps}{of_all}" if steps else words
        return f"{words} (stage {part})" if part else words
    return ""


def running(trials: Trials) -> list[FrozenTrial]:
    """The trials of a cell that run now."""
    return [trial for trial in trials.all() if trial.state == TrialState.RUNNING]


def seconds_left(cells: Sequence[Trials], now: datetime) -> float | None:
    """Seconds until every trial has ended, from the mean of those that have; None before the first.

    As many trials run at a time as do now. `now`: local time without a zone, as Optuna has it.
    """
    num_left = sum(trials.cell.num_trials for trials in cells) - len(finished_trials(cells))
    spent = [
        trial.duration.total_seconds()
        for trials in cells
        for trial in trials.all()
        if is_finished(trial) and trial.duration
    ]
    if not spent or num_left <= 0:
        return None
    mean_s = statistics.fmean(spent)
    begun = [trial for trials in cells for trial in running(trials)]
    elapsed = [(now - t.datetime_start).total_seconds() for t in begun if t.datetime_start]
    done_s = sum(min(max(0.0, seconds), mean_s) for seconds in elapsed)
    return (mean_s * num_left - done_s) / max(1, len(begun))

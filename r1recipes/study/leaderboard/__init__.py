"""What a person sees of a study: a leaderboard in a terminal, lines elsewhere, and a summary.

It only reads trials, and writes nothing but text.
"""

import math
from collections.abc import Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from r1recipes.machine.units import gib
from r1recipes.study.cell import Cell
from r1recipes.study.trials import Trials, finished_trials, is_counted

TOP = 10
"""Rows of the leaderboard."""
MAX_SHOWN = 40
"""Characters that are shown of a value, such as a prompt."""


def show_value(value: float, metric: str) -> str:
    """A metric's value for people: a length with one decimal, a share in percent."""
    return f"{value:.1f}" if metric.endswith("length") else f"{value:.1%}"


def show_param(value: Any) -> str:
    """The value of a searched key for people, on one line and cut where it is long."""
    text = f"{value:.3g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def best(trials: Trials) -> FrozenTrial | None:
    """The best complete trial by the first metric; with several metrics, a trial of the front."""
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    if on_front := front(trials):
        complete = [t for t in complete if t.number in on_front]
    return ranked(complete, trials.study.directions[0])[0] if complete else None


def front(trials: Trials) -> set[int]:
    """The numbers of the trials that no other trial beats in every metric (the Pareto front).

    Empty if there is one metric only.
    """
    if len(trials.cell.settings.metrics) < 2:
        return set()
    return {trial.number for trial in trials.study.best_trials}


def has_memory(cells: Sequence[Trials]) -> bool:
    """Whether memory was predicted for any trial; there is no prediction for a CPU."""
    return any("predicted" in trial.user_attrs for trials in cells for trial in trials.all())


def memory(trial: FrozenTrial) -> str:
    """Predicted peak and available memory, such as `13.1 of 14.7 GiB`; empty if not predicted."""
    predicted = trial.user_attrs.get("predicted")
    if predicted is None:
        return ""
    return f"{gib(predicted['peak_bytes'])} of {gib(predicted['available_bytes'])} GiB"


def ranked(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """Complete trials first, then the others; both groups ordered by newest value, best first."""
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0

    def order(trial: FrozenTrial) -> tuple[bool, float, int]:
        value = newest(trial)
        key = math.inf if value is None else sign * value
        return trial.state != TrialState.COMPLETE, key, trial.number

    return sorted(trials, key=order)


def newest(trial: FrozenTrial) -> float | None:
    """A trial's first metric or, before its end, its last intermediate value."""
    if trial.values:
        return trial.values[0]
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def short(keys: Sequence[str]) -> dict[str, str]:
    """Key -> short name: `train.learning_rate` is `learning_rate` if no other key ends so."""
    last = [key.split(".")[-1] for key in keys]
    return {
        key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)
    }


def progress(cells: Sequence[Trials]) -> str:
    """How many trials are finished, such as `6 of 40 trials`."""
    total = sum(trials.cell.num_trials for trials in cells)
    return f"{len(finished_trials(cells))} of {total} trials"


def board(trials: Trials, rows: int, width: int) -> Table:
    """The best trials of a cell, and all that run; as many of the keys as have room."""
    names, metrics = short(list(trials.cell.search)), trials.cell.settings.metrics
    first = ["trial", *(metric.removeprefix("eval/") for metric in metrics)]
    last = ["memory", "state"] if has_memory([trials]) else ["state"]
    headings, body, styles = [*first, *names.values(), *last], [], []
    on_front = front(trials)
    for place, trial in enumerate(_shown_trials(trials, rows)):
        is_first = place == 0 and trial.state == TrialState.COMPLETE
        is_best = trial.number in on_front or is_first and not on_front
        styles.append("bold" if is_best else "dim" if trial.state == TrialState.FAIL else "")
        *values, ended_as = cells_of(trials.cell, trial)
        body.append([*values, *([memory(trial)] if len(last) > 1 else []), ended_as])
    columns = [list(column) for column in zip(headings, *body, strict=True)]
    num_hidden = _fit(columns, range(len(first), len(first) + len(names)), width)
    table = Table(title=trials.cell.name or None, title_justify="left", box=None, padding=(0, 1))
    if num_hidden:
        table.caption = f"a wider terminal shows {num_hidden} more of the {len(names)} keys"
        table.caption_justify = "left"
    for heading, *_ in columns:
        table.add_column(
            Text(heading), justify="left" if heading == "state" else "right", no_wrap=True
        )
    for style, row in zip(styles, list(zip(*columns, strict=True))[1:], strict=True):
        table.add_row(*map(Text, row), style=style)  # Text: a value with brackets is not markup
    return table


def _shown_trials(trials: Trials, rows: int) -> list[FrozenTrial]:
    """The best trials that ended, and all that run; `rows` of them unless more are running."""
    counted = ranked([t for t in trials.all() if is_counted(t)], trials.study.directions[0])
    running = [trial for trial in counted if trial.state == TrialState.RUNNING]
    ended = [trial for trial in counted if trial.state.is_finished()]
    return [*ended[: max(1, rows - len(running))], *running]


def _fit(columns: list[list[str]], keys: range, width: int) -> int:
    """Make columns, each with its heading first, as narrow as the terminal: break the headings,
    then leave out the last keys. Returns how many were left out."""

    def is_wide() -> bool:
        parts = [[part for text in column for part in text.split("\n")] for column in columns]
        return sum(2 + max(map(cell_len, column)) for column in parts) > width

    if is_wide():
        for column in columns:
            column[0] = column[0].replace("_", "_\n")
    num_hidden = 0
    while num_hidden < len(keys) and is_wide():
        num_hidden += 1
        del columns[keys[-num_hidden]]
    return num_hidden


def cells_of(cell: Cell, trial: FrozenTrial) -> list[str]:
    """A trial's row of a table: number, metrics, searched keys, state; a blank for what is not
    there yet, and the newest intermediate value in brackets."""
    metrics = cell.settings.metrics
    if trial.values and trial.state == TrialState.COMPLETE:
        values = [show_value(v, m) for v, m in zip(trial.values, metrics, strict=True)]
    else:
        value = newest(trial)
        values = ["" if value is None else f"({value:.1%})", *[""] * (len(metrics) - 1)]
    params = [show_param(trial.params[k]) if k in trial.params else "" for k in cell.search]
    return [str(trial.number), *values, *params, state(trial)]


def state(trial: FrozenTrial) -> str:
    """A trial's state for people: `complete`, `pruned at step 20`, `oom`, `step 40`."""
    if trial.state == TrialState.FAIL:
        return trial.user_attrs.get("error", {}).get("kind", "worker died")
    if "infeasible" in trial.user_attrs:
        return "does not fit"
    if trial.state == TrialState.PRUNED:
        return f"pruned at step {trial.last_step}"
    if trial.state == TrialState.RUNNING and trial.last_step is not None:
        return f"step {trial.last_step}"
    return trial.state.name.lower()


def line(trials: Trials, trial: FrozenTrial) -> str:
    """A trial that ended, as a line of a log file."""
    cell = trials.cell
    number, *values, ended_as = cells_of(cell, trial)
    names = [metric.removeprefix("eval/") for metric in cell.settings.metrics]
    names += short(list(cell.search)).values()
    parts = [f"{name} {value}" for name, value in zip(names, values, strict=True) if value]
    prefix = f"{cell.name} " if cell.name else ""
    text = f"{prefix}trial {number}  {ended_as}  {'  '.join(parts)}"
    if predicted := memory(trial):
        text += f"  memory {predicted}"
    if "error" in trial.user_attrs:
        text += f"  {trial.user_attrs['error']['message'].splitlines()[0]}"
    if "infeasible" in trial.user_attrs:
        text += f"  {trial.user_attrs['infeasible'].splitlines()[0]}"
    return text.rstrip()


def saved_by_pruning(cells: Sequence[Trials]) -> tuple[int, int, int]:
    """Trials that were pruned, the steps that they did not run, and the steps of all trials."""
    num_pruned = saved_steps = total_steps = 0
    for trial in finished_trials(cells):
        steps = trial.user_attrs.get("max_steps")
        if steps is None:
            continue
        total_steps += steps
        if trial.state == TrialState.PRUNED and trial.last_step is not None:
            num_pruned, saved_steps = num_pruned + 1, saved_steps + steps - trial.last_step
    return num_pruned, saved_steps, total_steps


def summary(cells: Sequence[Trials], trials: Trials, trial: FrozenTrial) -> list[str]:
    """The result of a study in sentences; `trial`, one of `trials`, is the best of all cells."""
    metric = trials.cell.settings.metrics[0]
    name = f"{trials.cell.name} " if trials.cell.name else ""
    lines = [f"best: {name}trial {trial.number}, {metric} {show_value(trial.values[0], metric)}"]
    own = next((t for t in trials.all() if _has_own_values(t, trials.cell)), None)
    if own is not None:
        lines[0] += (
            f"; the recipe's own values, trial {own.number}: {show_value(own.values[0], metric)}"
        )
    if own is not None and own.values[0] == trial.values[0]:
        lines.append(_unbeaten(trials))
    if on_front := front(trials):
        numbers = ", ".join(map(str, sorted(on_front)))
        lines.append(f"front: trial{'s' * (len(on_front) > 1)} {numbers}; best by {metric}")
    num_infeasible = sum("infeasible" in t.user_attrs for ts in cells for t in ts.all())
    if num_infeasible:
        lines.append(f"proposals that cannot run here, not started: {num_infeasible}")
    num_pruned, saved_steps, total_steps = saved_by_pruning(cells)
    if num_pruned:
        lines.append(
            f"pruning ended {num_pruned} trial{'s' * (num_pruned > 1)} early: "
            f"{saved_steps} of {total_steps} steps not run ({saved_steps / total_steps:.0%})"
        )
    return lines + failures(cells)


def _unbeaten(trials: Trials) -> str:
    """The sentence where no trial is better than the one with the recipe's own values."""
    num_complete = sum(trial.state == TrialState.COMPLETE for trial in trials.all())
    if num_complete == 1:
        return "nothing beat the recipe's own values (no other trial is complete)"
    others = "one other trial is" if num_complete == 2 else f"{num_complete - 1} other trials are"
    return f"nothing beat the recipe's own values ({others} complete)"


def failures(cells: Sequence[Trials]) -> list[str]:
    """How many trials failed for which kind of reason, and the last error's message."""
    errors = [
        trial.user_attrs["error"]
        for trial in finished_trials(cells)
        if trial.state == TrialState.FAIL
    ]
    if not errors:
        return []
    kinds = [error["kind"] for error in errors]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return [f"failed: {counts}; the last one: {errors[-1]['message'].splitlines()[0]}"]


def _has_own_values(trial: FrozenTrial, cell: Cell) -> bool:
    """Whether a complete trial has the recipe's own value of every searched key."""
    fixed = trial.system_attrs.get("fixed_params", {})
    return (
        bool(cell.search)
        and trial.state == TrialState.COMPLETE
        and fixed.keys() >= cell.search.keys()
    )

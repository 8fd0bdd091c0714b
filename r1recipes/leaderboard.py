"""What a person sees of a study: the leaderboard in a terminal, lines elsewhere, tables at the end.

Reads trials only; draws nothing but text.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from r1recipes import trials as trials_module
from r1recipes.cell import Cell
from r1recipes.memory import gib
from r1recipes.trials import Trials

TOP = 10
"""Rows of the leaderboard."""
T_QUANTILES = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1 to 10 degrees of freedom (NIST/SEMATECH 1.3.6.7.2)."""


def show_value(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric.endswith("length") else f"{value:.1%}"


def show_param(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best(trials: Trials) -> FrozenTrial | None:
    """The best complete trial by the first metric; of several metrics, one of the front."""
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    return ranked(complete, trials.study.directions[0])[0] if complete else None


def front(trials: Trials) -> set[int]:
    """Of several metrics, the numbers of the trials that no other one beats in all of them."""
    if len(trials.cell.settings.metrics) < 2:
        return set()
    return {trial.number for trial in trials.study.best_trials}


def has_memory(cells: Sequence[Trials]) -> bool:
    """Whether the memory of any trial was predicted; there is no prediction for a CPU."""
    return any("predicted" in trial.user_attrs for trials in cells for trial in trials.all())


def memory(trial: FrozenTrial) -> str:
    """Predicted peak and room, such as `13.1 of 14.7 GiB`; empty without a prediction."""
    predicted = trial.user_attrs.get("predicted")
    if predicted is None:
        return ""
    return f"{gib(predicted['peak_bytes'])} of {gib(predicted['available_bytes'])} GiB"


def ranked(found: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """Complete trials first, then those that ended or run, each by its newest value."""
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0

    def order(trial: FrozenTrial) -> tuple[bool, float, int]:
        value = newest(trial)
        key = math.inf if value is None else sign * value
        return trial.state != TrialState.COMPLETE, key, trial.number

    return sorted(found, key=order)


def newest(trial: FrozenTrial) -> float | None:
    """Its objective or, before the end, its last intermediate value."""
    if trial.values:
        return trial.values[0]
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def short(keys: Sequence[str]) -> dict[str, str]:
    """`train.learning_rate` -> `learning_rate`, where that is not ambiguous."""
    last = [key.split(".")[-1] for key in keys]
    return {
        key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)
    }


class Board:
    """The leaderboard of a running study. Without a terminal each trial is one line at its end."""

    def __init__(self, console: Console, cells: list[Trials]):
        self.console, self.cells = console, cells
        self._seen = {
            (c.cell.name, t.number) for c in cells for t in c.all() if t.state.is_finished()
        }
        self._live = (
            Live(console=console, get_renderable=self.render, refresh_per_second=2, transient=True)
            if console.is_terminal and not console.is_dumb_terminal
            else None
        )

    def __enter__(self) -> "Board":
        if done := self.finished():
            self.say(f"going on after {done} of {self.total()} trials")
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live:
            self._live.stop()

    def total(self) -> int:
        return sum(trials.cell.num_trials for trials in self.cells)

    def finished(self) -> int:
        return sum(trials_module.is_finished(t) for c in self.cells for t in c.all())

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def look(self) -> None:
        """Say what ended since the last look."""
        for trials in self.cells:
            for trial in trials.all():
                key = (trials.cell.name, trial.number)
                if trial.state.is_finished() and key not in self._seen:
                    self._seen.add(key)
                    self.say(line(trials, trial))

    def render(self) -> RenderableType:
        """The best trials and those that run, of the cells that are not done yet."""
        open_cells = [trials for trials in self.cells if not trials.is_done()] or self.cells
        head = Text(f"{self.finished()} of {self.total()} trials", "bold")
        return Group(head, *(board(trials, TOP) for trials in open_cells[:2]))


def board(trials: Trials, rows: int) -> Table:
    """The best trials of a cell, and all that run."""
    names, metrics = short(list(trials.cell.search)), trials.cell.settings.metrics
    table = Table(title=trials.cell.name or None, title_justify="left", box=None, padding=(0, 1))
    last = ["memory", "state"] if has_memory([trials]) else ["state"]
    for heading in ("trial", *(m.removeprefix("eval/") for m in metrics), *names.values(), *last):
        table.add_column(heading, justify="right" if heading != "state" else "left")
    found = ranked([t for t in trials.all() if trials_module.counts(t)], trials.study.directions[0])
    running = [t for t in found if t.state == TrialState.RUNNING]
    ended = [t for t in found if t.state.is_finished()]
    on_front = front(trials)
    for place, trial in enumerate([*ended[: max(1, rows - len(running))], *running]):
        is_first = place == 0 and trial.state == TrialState.COMPLETE
        is_best = trial.number in on_front or is_first and not on_front
        style = "bold" if is_best else "dim" if trial.state == TrialState.FAIL else ""
        *shown, ended_as = cells_of(trials.cell, trial)
        room = [memory(trial)] if len(last) > 1 else []
        table.add_row(*shown, *room, ended_as, style=style)
    return table


def cells_of(cell: Cell, trial: FrozenTrial) -> list[str]:
    metrics = cell.settings.metrics
    if trial.values and trial.state == TrialState.COMPLETE:
        shown = [show_value(v, m) for v, m in zip(trial.values, metrics, strict=True)]
    else:
        value = newest(trial)
        shown = ["" if value is None else f"({value:.1%})", *[""] * (len(metrics) - 1)]
    params = [show_param(trial.params[k]) if k in trial.params else "" for k in cell.search]
    return [str(trial.number), *shown, *params, state(trial)]


def state(trial: FrozenTrial) -> str:
    """`complete`, `pruned at step 20`, `oom`, `step 40`."""
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
    shown = cells_of(cell, trial)
    names = [m.removeprefix("eval/") for m in cell.settings.metrics] + list(
        short(list(cell.search)).values()
    )
    parts = [f"{name} {value}" for name, value in zip(names, shown[1:-1], strict=True) if value]
    text = (
        f"{cell.name + ' ' if cell.name else ''}trial {shown[0]}  {shown[-1]}  {'  '.join(parts)}"
    )
    if room := memory(trial):
        text += f"  memory {room}"
    if "error" in trial.user_attrs:
        text += f"  {trial.user_attrs['error']['message'].splitlines()[0]}"
    if "infeasible" in trial.user_attrs:
        text += f"  {trial.user_attrs['infeasible'].splitlines()[0]}"
    return text.rstrip()


def saved_by_pruning(cells: list[Trials]) -> tuple[int, int, int]:
    """Trials that were pruned, the steps that they did not run, and the steps of all trials."""
    pruned = left = total = 0
    for trials in cells:
        for trial in trials.all():
            steps = trial.user_attrs.get("max_steps")
            if steps is None or not trials_module.is_finished(trial):
                continue
            total += steps
            if trial.state == TrialState.PRUNED and trial.last_step is not None:
                pruned, left = pruned + 1, left + steps - trial.last_step
    return pruned, left, total


def best_of(found: list[tuple[Trials, FrozenTrial]]) -> tuple[Trials, FrozenTrial]:
    """The best of the cells' best trials. Of a matrix, a trial of its best row."""
    trials = found[0][0]
    if trials.cell.axes:
        top = next(row for row in matrix_rows([cell for cell, _ in found]) if row.is_best)
        found = [
            f for f in found if {k: v for k, v in f[0].cell.axes.items() if k != "seed"} == top.axes
        ]
    order = ranked([trial for _, trial in found], trials.study.directions[0])
    return next(pair for pair in found if pair[1] is order[0])


def summary(cells: list[Trials], trials: Trials, trial: FrozenTrial) -> list[str]:
    """What came out, in sentences."""
    metric = trials.cell.settings.metrics[0]
    name = f"{trials.cell.name} " if trials.cell.name else ""
    lines = [f"best: {name}trial {trial.number}, {metric} {show_value(trial.values[0], metric)}"]
    own = next((t for t in trials.all() if "fixed_params" in t.system_attrs and t.values), None)
    if own is not None and trials.cell.search and own.state == TrialState.COMPLETE:
        lines[0] += (
            f"; the recipe's own values, trial {own.number}: {show_value(own.values[0], metric)}"
        )
    if on_front := front(trials):
        numbers = ", ".join(map(str, sorted(on_front)))
        lines.append(f"front: trial{'s' * (len(on_front) > 1)} {numbers}; best by {metric}")
    refused = sum("infeasible" in t.user_attrs for c in cells for t in c.all())
    if refused:
        lines.append(f"proposals that cannot run here, not started: {refused}")
    pruned, left, total = saved_by_pruning(cells)
    if pruned:
        lines.append(
            f"pruning ended {pruned} trial{'s' * (pruned > 1)} early: "
            f"{left} of {total} steps not run ({left / total:.0%})"
        )
    failed = [
        t for c in cells for t in c.all() if t.state == TrialState.FAIL and trials_module.counts(t)
    ]
    if failed:
        kinds = [t.user_attrs["error"]["kind"] for t in failed]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        lines.append(f"failed: {counted}")
    return lines


@dataclass(frozen=True)
class Row:
    """Cells that differ in their seed only: mean and 95 % interval of the first metric."""

    axes: dict[str, Any]
    values: list[float]
    num_failed: int
    is_best: bool = False

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean over seeds, by Student's t; None for a single value."""
        freedom = len(self.values) - 1
        if freedom < 1:
            return None
        known = freedom <= len(T_QUANTILES)
        quantile = T_QUANTILES[freedom - 1] if known else 1.96 + 2.4 / freedom
        half = quantile * statistics.stdev(self.values) / math.sqrt(len(self.values))
        return self.mean - half, self.mean + half


def matrix_rows(cells: list[Trials]) -> list[Row]:
    """One row for each setting of a matrix, in its order; the first of the best is marked."""
    groups: dict[str, tuple[dict[str, Any], list[float], list[int]]] = {}
    for trials in cells:
        axes = {key: value for key, value in trials.cell.axes.items() if key != "seed"}
        _, values, failed = groups.setdefault(repr(axes), (axes, [], []))
        found = best(trials)
        values.append(found.values[0]) if found else failed.append(1)
    rows = [Row(axes, values, len(failed)) for axes, values, failed in groups.values()]
    known = [row.mean for row in rows if row.mean is not None]
    if not known:
        return rows
    is_max = cells[0].study.directions[0] == StudyDirection.MAXIMIZE
    top = max(known) if is_max else min(known)
    first = next(place for place, row in enumerate(rows) if row.mean == top)
    return [replace(row, is_best=place == first) for place, row in enumerate(rows)]


def matrix_table(cells: list[Trials]) -> Table:
    """The final table of a matrix."""
    metric = cells[0].cell.settings.metrics[0]
    rows = matrix_rows(cells)
    keys = list(rows[0].axes)
    table = Table(box=None, padding=(0, 1))
    for heading in (*short(keys).values(), metric.removeprefix("eval/"), "95 %", "seeds", ""):
        table.add_column(heading, justify="left" if heading in short(keys).values() else "right")
    for row in rows:
        low_high = " to ".join(show_value(v, metric) for v in row.interval) if row.interval else ""
        mean = show_value(row.mean, metric) if row.mean is not None else "failed"
        mark = "best" if row.is_best else f"{row.num_failed} failed" if row.num_failed else ""
        axes = [str(row.axes[key]) for key in keys]
        count = str(len(row.values))
        table.add_row(*axes, mean, low_high, count, mark, style="bold" if row.is_best else "")
    return table

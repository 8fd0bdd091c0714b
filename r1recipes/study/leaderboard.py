"""What a person sees of a study: the leaderboard in a terminal, lines elsewhere, a table.

Reads trials only; draws nothing but text.
"""

import math
from collections.abc import Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from r1recipes.machine.units import gib
from r1recipes.study.cell import Cell
from r1recipes.study.trials import Trials, counts, is_finished
from r1recipes.training.view import say

TOP = 10
"""Rows of the leaderboard."""
MAX_SHOWN = 40
"""Characters of a value, such as a prompt."""


def show_value(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric.endswith("length") else f"{value:.1%}"


def show_param(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def best(trials: Trials) -> FrozenTrial | None:
    """The best complete trial by the first metric; of several metrics, one of the front."""
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    if on_front := front(trials):
        complete = [t for t in complete if t.number in on_front]
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
        if any(map(is_finished, (t for c in self.cells for t in c.all()))):
            self.say(f"going on after {progress(self.cells)}")
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        say(self.console, text)

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
        head = Text(progress(self.cells), "bold")
        width = self.console.width
        return Group(head, *(board(trials, TOP, width) for trials in open_cells[:2]))


def progress(cells: Sequence[Trials]) -> str:
    """`6 of 40 trials`."""
    finished = sum(is_finished(t) for trials in cells for t in trials.all())
    return f"{finished} of {sum(trials.cell.num_trials for trials in cells)} trials"


def board(trials: Trials, rows: int, width: int) -> Table:
    """The best trials of a cell, and all that run; as many of the keys as have room."""
    names, metrics = short(list(trials.cell.search)), trials.cell.settings.metrics
    first = ["trial", *(metric.removeprefix("eval/") for metric in metrics)]
    last = ["memory", "state"] if has_memory([trials]) else ["state"]
    headings, body, styles = [*first, *names.values(), *last], [], []
    found = ranked([t for t in trials.all() if counts(t)], trials.study.directions[0])
    running = [t for t in found if t.state == TrialState.RUNNING]
    ended = [t for t in found if t.state.is_finished()]
    on_front = front(trials)
    for place, trial in enumerate([*ended[: max(1, rows - len(running))], *running]):
        is_first = place == 0 and trial.state == TrialState.COMPLETE
        is_best = trial.number in on_front or is_first and not on_front
        style = "bold" if is_best else "dim" if trial.state == TrialState.FAIL else ""
        *shown, ended_as = cells_of(trials.cell, trial)
        room = [memory(trial)] if len(last) > 1 else []
        body.append([*shown, *room, ended_as])
        styles.append(style)
    columns = [list(column) for column in zip(headings, *body, strict=True)]
    num_hidden = _fit(columns, range(len(first), len(first) + len(names)), width)
    table = Table(title=trials.cell.name or None, title_justify="left", box=None, padding=(0, 1))
    if num_hidden:
        table.caption = f"a wider terminal shows {num_hidden} more of the {len(names)} keys"
        table.caption_justify = "left"
    for heading, *_ in columns:
        side = "right" if heading != "state" else "left"
        table.add_column(Text(heading), justify=side, no_wrap=True)
    for style, row in zip(styles, list(zip(*columns, strict=True))[1:], strict=True):
        table.add_row(*map(Text, row), style=style)  # as it is: values may have brackets
    return table


def _fit(columns: list[list[str]], keys: range, width: int) -> int:
    """Make columns, each with its heading, as narrow as the terminal: break the headings, then
    leave out the last keys. Returns how many."""

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
            if steps is None or not is_finished(trial):
                continue
            total += steps
            if trial.state == TrialState.PRUNED and trial.last_step is not None:
                pruned, left = pruned + 1, left + steps - trial.last_step
    return pruned, left, total


def summary(cells: list[Trials], trials: Trials, trial: FrozenTrial) -> list[str]:
    """What came out, in sentences."""
    metric = trials.cell.settings.metrics[0]
    name = f"{trials.cell.name} " if trials.cell.name else ""
    lines = [f"best: {name}trial {trial.number}, {metric} {show_value(trial.values[0], metric)}"]
    own = next((t for t in trials.all() if _has_own_values(t, trials.cell)), None)
    if own is not None:
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
    return lines + failures(cells)


def failures(cells: list[Trials]) -> list[str]:
    """How many trials failed of what, and what the last one said."""
    every = [t for c in cells for t in c.all() if counts(t)]
    errors = [t.user_attrs["error"] for t in every if t.state == TrialState.FAIL]
    if not errors:
        return []
    kinds = [error["kind"] for error in errors]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return [f"failed: {counted}; the last one: {errors[-1]['message'].splitlines()[0]}"]


def _has_own_values(trial: FrozenTrial, cell: Cell) -> bool:
    """Whether a complete trial has the recipe's own value of every searched key."""
    fixed = trial.system_attrs.get("fixed_params", {})
    return (
        bool(cell.search)
        and trial.state == TrialState.COMPLETE
        and fixed.keys() >= cell.search.keys()
    )

"""The leaderboard of a study that runs: in a terminal a table that follows it, lines elsewhere."""

from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from r1recipes.machine.units import duration
from r1recipes.study.leaderboard import TOP, board, line, progress, running
from r1recipes.study.trials import Trials, finished_trials
from r1recipes.training.view import say


class Board:
    """The leaderboard of a running study. Without a terminal it prints lines."""

    def __init__(self, console: Console, cells: list[Trials]):
        self.console, self.cells = console, cells
        self._seen = {
            (trials.cell.name, trial.number)
            for trials in cells
            for trial in trials.all()
            if trial.state.is_finished()
        }
        self._stages: dict[tuple[str, int], str] = {}
        """What each running trial did at the last look."""
        self._live = (
            Live(console=console, get_renderable=self.render, refresh_per_second=2, transient=True)
            if console.is_terminal and not console.is_dumb_terminal
            else None
        )

    def __enter__(self) -> "Board":
        if finished_trials(self.cells):
            self.say(f"going on after {progress(self.cells)}")
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the leaderboard."""
        say(self.console, text)

    def look(self) -> None:
        """Print a line for each trial that ended since the last look; without a terminal also one
        for each stage that began, and how long the study will take."""
        for trials in self.cells:
            for trial in trials.all():
                key = (trials.cell.name, trial.number)
                if trial.state == TrialState.RUNNING:
                    self._look_at_stage(trials, trial)
                elif trial.state.is_finished() and key not in self._seen:
                    self._seen.add(key)
                    self.say(line(trials, trial))
                    if not self._live:
                        self.say(f"  {self.head()}")

    def _look_at_stage(self, trials: Trials, trial: FrozenTrial) -> None:
        key, now = (trials.cell.name, trial.number), running.stage(trial)
        if not now and key in self._stages:
            return  # between two stages
        earlier, self._stages[key] = self._stages.get(key, ""), now or "starting"
        name = self._stages[key].partition(", step")[0]
        if not self._live and earlier.partition(", step")[0] != name:
            prefix = f"{trials.cell.name} " if trials.cell.name else ""
            self.say(f"{prefix}trial {trial.number}  {name}")

    def head(self) -> str:
        """`6 of 40 trials, about 12 min 04 s left`."""
        seconds = running.seconds_left(self.cells, datetime.now())
        return progress(self.cells) + (
            "" if seconds is None else f", about {duration(seconds)} left"
        )

    def render(self) -> RenderableType:
        """The best and the running trials of the first two cells that are not done yet."""
        open_cells = [trials for trials in self.cells if not trials.is_done()] or self.cells
        width = self.console.width
        now = [
            Text(f"{trials.cell.name} trial {trial.number}: {stage}".strip(), "dim")
            for trials in open_cells[:2]
            for trial in running.running(trials)
            if (stage := self._stages.get((trials.cell.name, trial.number)))
        ]
        boards = (board(trials, TOP, width) for trials in open_cells[:2])
        return Group(Text(self.head(), "bold"), *boards, *now)

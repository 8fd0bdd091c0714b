"""The studies of a folder that are followed: their databases are opened to be read, never written.

Limits: SQLite files in the folders of studies alone; a study in another database (`--storage`) is
shown by `r1recipes study`. Optuna is imported when there is a study, since it takes a second.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.errors import R1RecipesError, RecipeError, first_line, unreadable
from r1recipes.machine.files import sqlite
from r1recipes.report.serve.summary import address_of
from r1recipes.runs.record import following
from r1recipes.runs.record.following import Stamp

if TYPE_CHECKING:
    from r1recipes.study.trials import Trials

FILE = "study.db"
NAMES = (FILE, *(f"{FILE}{suffix}" for suffix in sqlite.BESIDE))
"""The database, and what SQLite keeps beside it."""
NOT_A_STUDY = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What Optuna raises for a database with other content than it writes."""


@dataclass(frozen=True)
class StudySummary:
    """A study in the overview."""

    name: str
    progress: str = ""
    """Such as `6 of 40 trials`."""
    is_done: bool = False
    metric: str = ""
    best: str = ""
    """The best trial's number and value, such as `trial 12: 94.5%`."""
    params: str = ""
    """The values of the best trial's searched keys."""
    problem: str = ""
    """Why it cannot be read; empty for one that can."""

    @property
    def address(self) -> str:
        """The name in an address."""
        return address_of(self.name)


def study_files(runs_dir: Path) -> dict[str, Path]:
    """The database of each study below a folder of runs, by the study's name."""
    files = sorted(runs_dir.glob(f"*/{FILE}"))
    return {file.parent.name: file for file in files if not file.parent.name.startswith(".")}


class FollowedStudy:
    """The database of a study. Whoever reads it holds `lock`."""

    def __init__(self, name: str, file: Path):
        self.name, self.file = name, file
        self.lock = threading.Lock()
        self.summary = StudySummary(name)
        self._stamps: tuple[Stamp | None, ...] | None = None

    def stamps(self) -> tuple[Stamp | None, ...]:
        """What changes when the database does; commits of SQLite may be in its log alone."""
        return tuple(following.stamp(self.file.with_name(name)) for name in NAMES)

    def look(self) -> bool:
        """Whether the summary has changed since the last look."""
        stamps, before = self.stamps(), self.summary
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            with self.lock, self.opened() as cells:
                self.summary = _summary(self.name, cells)
        except R1RecipesError as error:
            self.summary = StudySummary(self.name, problem=error.problems[0].message)
        return self.summary != before

    @contextmanager
    def opened(self) -> Iterator[list["Trials"]]:
        """The cells of the study, read from its database. Raises: R1RecipesError."""
        import sqlalchemy.exc

        from r1recipes.study import database, trials

        storage = None
        try:
            storage = database.open_to_read(self.file)
            yield trials.load_cells(storage, self.name)
        except R1RecipesError:
            raise
        except OSError as error:
            raise unreadable(self.file, error) from error
        except (sqlalchemy.exc.SQLAlchemyError, *NOT_A_STUDY) as error:
            message = f"does not have the content of a study ({first_line(error)})"
            raise RecipeError.at(str(self.file), message, "put back a copy of it") from error
        finally:
            if storage:
                storage.engine.dispose()


def _summary(name: str, cells: list["Trials"]) -> StudySummary:
    from r1recipes.study import leaderboard, results

    about = StudySummary(
        name,
        progress=leaderboard.progress(cells),
        is_done=all(trials.is_done() for trials in cells),
        metric=cells[0].cell.settings.metrics[0],
    )
    best = [(trials, trial) for trials in cells if (trial := leaderboard.best(trials))]
    if not best:
        return about
    trials, trial = results.best_of(best)
    metric = trials.cell.settings.metrics[0]
    cell = f"{trials.cell.name} " if trials.cell.name else ""
    names = leaderboard.short(list(trials.cell.search))
    params = [
        f"{names[key]} {leaderboard.show_param(value)}"
        for key, value in trial.params.items()
        if key in names
    ]
    value = leaderboard.show_value(trial.values[0], metric)
    return StudySummary(
        name,
        about.progress,
        about.is_done,
        metric,
        f"{cell}trial {trial.number}: {value}",
        ", ".join(params),
    )

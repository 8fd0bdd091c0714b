"""A folder of runs that is followed: a thread looks at it when somebody asks, and at no other time.

Each look publishes a snapshot: the summaries of all runs and studies. The first has what records
say, so that it is there at once; steps are read after it, run by run. Limits: a run or a study that
is deleted is gone with the next look; of more than MAX_RUNS runs the newest are shown.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from r1recipes.report.serve.followed import FollowedRun
from r1recipes.report.serve.studies import FollowedStudy, StudySummary, study_files
from r1recipes.report.serve.summary import Summary
from r1recipes.runs.record import Run, following

MAX_RUNS = 2000
"""Runs of a folder that are followed; assumed, a table of more is not read."""
MAX_OPEN = 12
"""Runs whose rows stay in memory after their pages were asked for; assumed."""
LOOK_EVERY_S = 0.5
"""Least time between two looks, however many pages ask."""
PUBLISH_EVERY_S = 0.2
"""Time between two snapshots of a look that takes longer."""
PATIENCE_S, FIRST_PATIENCE_S = 0.3, 5.0
"""How long a request waits for a look that it asked for, and for the first look of all; assumed."""

OPENING_S = 1.0
"""How long reading rests for a page that is being opened; assumed, a browser has drawn it then."""


@dataclass(frozen=True)
class Snapshot:
    """What the overview shows, and the number that changes with it."""

    number: int
    runs: Sequence[Summary]
    """The newest first."""
    studies: Sequence[StudySummary]
    num_hidden: int = 0
    """Runs that are too many to be shown."""

    @property
    def num_pending(self) -> int:
        """Runs of which only the record has been read yet."""
        return sum(not run.is_whole for run in self.runs)


class Folder:
    """All runs and studies below `runs_dir`, or the single `runs` that were named."""

    def __init__(self, runs_dir: Path, runs: Sequence[Run] = ()):
        self.runs_dir, self._named = runs_dir, {_key_of(run): run for run in runs}
        self.snapshot = Snapshot(0, (), ())
        self._runs: dict[str, FollowedRun] = {}
        self._studies: dict[str, FollowedStudy] = {}
        self._open: OrderedDict[str, None] = OrderedDict()
        self._num_hidden = 0
        self._changed = threading.Condition()
        self._asked = self._done = 0
        self._rest_until = 0.0

    def start(self) -> None:
        """Begin to follow: the first look is taken at once."""
        self._asked = 1
        threading.Thread(target=self._follow, name="follow the runs", daemon=True).start()

    def look(self, patience_s: float = PATIENCE_S) -> Snapshot:
        """Ask for a look, wait for it a moment, and return the newest snapshot. While runs are read
        for the first time, what there is of them is returned at once."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.snapshot.number > 0, FIRST_PATIENCE_S)
            self._changed.wait_for(
                lambda: self._done >= mine or self.snapshot.num_pending > 0, patience_s
            )
            return self.snapshot

    def give_way(self) -> None:
        """Let whoever opens a page have the processor: steps that have waited can wait longer."""
        self._rest_until = time.monotonic() + OPENING_S

    def run(self, key: str) -> FollowedRun | None:
        """A run by its key; None where there is none. Only keys that a look has met are known, so
        no address leads to another folder."""
        followed = self._runs.get(key)
        if followed is None and self.look().number:
            followed = self._runs.get(key)
        if followed is not None:
            self._keep_open(followed)
        return followed

    def study(self, name: str) -> FollowedStudy | None:
        """A study by its name; None where there is none."""
        if name not in self._studies:
            self.look()
        return self._studies.get(name)

    def _keep_open(self, followed: FollowedRun) -> None:
        """Count a run among those whose rows stay, and drop the rows of the one before them all."""
        with self._changed:
            self._open[followed.key] = None
            self._open.move_to_end(followed.key)
            closed = []
            while len(self._open) > MAX_OPEN:
                closed.append(self._open.popitem(last=False)[0])
        for run in filter(None, map(self._runs.get, closed)):
            with run.lock:
                run.forget()

    def _follow(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._done)
                answered = self._asked
            self._take_look()
            with self._changed:
                self._done = answered
                self._changed.notify_all()
            time.sleep(LOOK_EVERY_S)

    def _take_look(self) -> None:
        """Read what is new of all runs, records first, and publish it."""
        has_changed = self._list_runs()
        for run in list(self._runs.values()):
            with run.lock:
                was_whole = run.summary.is_whole
                has_changed |= run.look_at_record()
                if was_whole:  # both at once: its steps do not vanish between two snapshots
                    has_changed |= self._look_at_steps(run)
        if has_changed or not self.snapshot.number:
            self._publish()
        published = time.monotonic()
        has_changed = False
        for run in self._unread():
            while (rest := self._rest_until - time.monotonic()) > 0:
                time.sleep(rest)
            with run.lock:
                has_changed |= self._look_at_steps(run)
            if has_changed and time.monotonic() - published > PUBLISH_EVERY_S:
                self._publish()
                published, has_changed = time.monotonic(), False
        if self._look_at_studies() or has_changed:
            self._publish()

    def _unread(self) -> Iterator[FollowedRun]:
        """The runs whose steps have not been read yet, in the order of the table."""
        order = [summary.key for summary in self.snapshot.runs]
        runs = [self._runs[key] for key in order if key in self._runs]
        yield from (run for run in runs if not run.summary.is_whole)

    def _look_at_steps(self, run: FollowedRun) -> bool:
        has_changed = run.look_at_steps()
        if run.summary.state != "running" and run.key not in self._open:
            run.forget()
        return has_changed

    def _list_runs(self) -> bool:
        """Whether run folders have come or gone since the last look."""
        present = self._present()
        self._num_hidden = max(0, len(present) - MAX_RUNS)
        if self._num_hidden:
            newest = sorted(present, key=lambda key: key.rpartition("/")[2])[-MAX_RUNS:]
            present = {key: present[key] for key in newest}
        if present.keys() == self._runs.keys():
            return False
        self._runs = {
            key: self._runs.get(key) or FollowedRun(key, run) for key, run in present.items()
        }
        return True

    def _present(self) -> dict[str, Run]:
        if self._named:
            return {key: run for key, run in self._named.items() if run.record.is_file()}
        with suppress(OSError):  # a folder that vanishes while it is listed
            folders = following.run_folders(self.runs_dir)
            return {folder.relative_to(self.runs_dir).as_posix(): Run(folder) for folder in folders}
        return {key: followed.run for key, followed in self._runs.items()}

    def _look_at_studies(self) -> bool:
        """Whether studies have come, gone or changed since the last look."""
        present = {} if self._named else study_files(self.runs_dir)
        has_changed = present.keys() != self._studies.keys()
        self._studies = {
            name: self._studies.get(name) or FollowedStudy(name, file)
            for name, file in present.items()
        }
        return any([study.look() for study in self._studies.values()]) or has_changed

    def _publish(self) -> None:
        runs = [run.summary for run in self._runs.values()]
        runs.sort(key=lambda run: (run.since, run.key), reverse=True)
        studies = [study.summary for study in self._studies.values()]
        with self._changed:
            number = self.snapshot.number + 1
            self.snapshot = Snapshot(number, tuple(runs), tuple(studies), self._num_hidden)
            self._changed.notify_all()


def _key_of(run: Run) -> str:
    """The last two parts of a folder's path: `tiny/20261121T045820Z-83ddb244`."""
    return "/".join(run.folder.absolute().parts[-2:])

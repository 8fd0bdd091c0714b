"""One run folder that is followed: what has changed in it, its summary, its reading.

Files are looked at by their stamps, and a file of rows is read from where the last look stopped. A
run that is damaged has a summary that says so, and is read again when one of its files changes.
Limits: the rows of a run stay in memory until `forget`; `folder` decides when.
"""

import hashlib
import threading
from dataclasses import dataclass
from functools import cached_property

from r1recipes.errors import RecipeError
from r1recipes.report.serve import summary
from r1recipes.report.serve.summary import Summary
from r1recipes.runs import reading
from r1recipes.runs.reading import Reading, Row
from r1recipes.runs.record import Run, following, schema
from r1recipes.runs.record.following import Rows, Stamp

PAGE_FILES = (
    "record.json",
    "resolved.json",
    "lock.json",
    "recipe.toml",
    "metrics.jsonl",
    "completions.jsonl",
    "evaluation-before.jsonl",
    "evaluation-after.jsonl",
    "train.log",
)
"""The files that the page of a run shows something of, beside those of its stages."""
RECORD_FILES = PAGE_FILES[:2]
MAX_STAGES = 100
"""Folders of stages that are looked at; assumed, recipes have a few."""
Stamps = tuple[object, ...]


class RowFiles:
    """The files of rows of a run."""

    def __init__(self, run: Run):
        self.metrics = Rows(run.folder, run.metrics.name, schema.Step)
        self.completions = Rows(run.folder, run.completions.name, schema.Completion)
        self.before = Rows(run.folder, run.evaluation("before").name, schema.Item)
        self.after = Rows(run.folder, run.evaluation("after").name, schema.Item)


@dataclass(frozen=True)
class FollowedReading(Reading):
    """A reading that takes rows from files that are followed, each as it is when first asked for.

    Attributes raise RecipeError where a file is damaged.
    """

    files: RowFiles

    @cached_property
    def metrics(self) -> list[Row]:
        return self.run.follow(self.files.metrics)

    @cached_property
    def completions(self) -> list[Row]:
        return self.run.follow(self.files.completions)

    @cached_property
    def before(self) -> list[Row]:
        return self.run.follow(self.files.before)

    @cached_property
    def after(self) -> list[Row]:
        return self.run.follow(self.files.after)


class FollowedRun:
    """A run folder. Whoever reads it holds `lock`; the summary changes in looks alone, which one
    thread takes."""

    def __init__(self, key: str, run: Run):
        self.key, self.run = key, run
        self.lock = threading.Lock()
        self.summary = Summary(key, is_whole=False)
        self._files = RowFiles(run)
        self._record_stamps: Stamps | None = None
        self._steps_stamp: Stamp | None = None

    def look_at_record(self) -> bool:
        """Whether the record or the plan has changed since the last look, or the run was killed or
        resumed; the summary then is that of the record until `look_at_steps`."""
        folder = self.run.folder
        stamps = tuple(following.stamp(folder / name) for name in RECORD_FILES)
        old = self.summary.state
        has_turned = old in ("running", "killed") and self._state() != old  # no file says so
        if stamps == self._record_stamps and not has_turned:
            return False
        self._record_stamps = stamps
        try:
            with reading.understood(self.run):
                self.summary = summary.of_record(self.key, self.reading())
        except RecipeError as error:
            self.summary = self._damaged(error)
        return True

    def _state(self) -> str:
        try:
            return self.run.status()
        except RecipeError:
            return summary.DAMAGED

    def look_at_steps(self) -> bool:
        """Whether the summary has changed by the steps; they are read if their file changed."""
        stamp = following.stamp(self.run.metrics)
        if self.summary.is_whole and stamp == self._steps_stamp:
            return False
        self._steps_stamp = stamp
        before = self.summary
        try:
            with reading.understood(self.run):
                about = self.reading()
                self.summary = summary.with_steps(summary.of_record(self.key, about), about)
        except RecipeError as error:
            self.summary = self._damaged(error)
        return self.summary != before

    def _damaged(self, error: RecipeError) -> Summary:
        problem = error.problems[0]
        return Summary(self.key, problem=f"{problem.where or self.key} {problem.message}")

    def reading(self) -> FollowedReading:
        """The run as it is now. Raises: RecipeError when its record is damaged."""
        record = self.run.read()
        return FollowedReading(self.run, "", self.run.status(), record, self._files)

    def stamps(self) -> Stamps:
        """What changes when anything on the page of the run does."""
        folder = self.run.folder
        stages = sorted((folder / "stages").glob("*/metrics.jsonl"))[:MAX_STAGES]
        paths = [*(folder / name for name in PAGE_FILES), *stages]
        return self._state(), *map(following.stamp, paths)

    def forget(self) -> None:
        """Give the memory of the rows back; the summary stays."""
        self._files = RowFiles(self.run)


def tag(*stamps: object) -> str:
    """An ETag of what a page was made of, with its quotes."""
    return f'"{hashlib.sha256(repr(stamps).encode()).hexdigest()[:24]}"'

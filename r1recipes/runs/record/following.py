"""Follows the files of runs while they grow: what was read of a file is not read again.

Limits: a file that was replaced, or became shorter, or has another end where the last look stopped
is read from its beginning. Everything is held to the limits of `foreign`, over all looks together.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r1recipes.machine.files import foreign
from r1recipes.runs.record import schema

SEAM = 256
"""Bytes before the end of the last look that must be there again; assumed: a line of metrics has
more, and two lines of different steps differ within so many."""
Stamp = tuple[int, int, int, int]
"""Device, inode, bytes and time of the last change (ns): it changes when a file does."""


def stamp(path: Path) -> Stamp | None:
    """What changes when a file does; None where there is none. A link is not followed."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def run_folders(runs_dir: Path) -> Iterator[Path]:
    """All folders `NAME` and `RECIPE/NAME` of a folder of runs that hold a record, in no order."""
    records = [*runs_dir.glob("*/record.json"), *runs_dir.glob("*/*/record.json")]
    for folder in (path.parent for path in records):
        if not any(part.startswith(".") for part in folder.relative_to(runs_dir).parts):
            yield folder


class Rows:
    """The rows of one .jsonl file of a run folder, each as `model` says."""

    def __init__(self, folder: Path, name: str, model: type[BaseModel]):
        self.path, self._folder, self._name, self._model = folder / name, folder, name, model
        self._stamp: Stamp | None = None
        self._forget()

    def _forget(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._offset = self._num_lines = self._num_values = 0
        self._seam = b""

    def follow(self) -> list[dict[str, Any]]:
        """The rows as they are now, of which only the new ones are read; a torn last line is left
        for the next look. A file that is not there has none.

        Raises: foreign.Damaged; and as `foreign.open_plain`.
        """
        now = stamp(self.path)
        if now is None or (self._stamp and now[:2] != self._stamp[:2]):
            self._forget()
        if now is not None and now != self._stamp:
            self._stamp = None  # a look that fails is made again
            with foreign.reading(self._folder, self._name) as file:
                size = os.fstat(file.fileno()).st_size
                foreign.refuse_beyond(size, foreign.MAX_LINES_BYTES, "bytes", self.path)
                file.seek(self._offset - len(self._seam))
                if size < self._offset or file.read(len(self._seam)) != self._seam:
                    self._forget()
                    file.seek(0)
                self._add(file.read(size - self._offset))
        self._stamp = now
        return self.rows

    def _add(self, content: bytes) -> None:
        """Take the whole lines of what follows the last look."""
        content = content[: content.rfind(b"\n") + 1]
        if not content:
            return
        lines = content.split(b"\n")[:-1]
        num_lines = self._num_lines + len(lines)
        num_values = self._num_values + foreign.num_values(content)
        foreign.refuse_beyond(num_lines, foreign.MAX_LINES, "lines", self.path)
        foreign.refuse_beyond(num_values, foreign.MAX_VALUES, "values", self.path)
        longest = max(map(len, lines))
        foreign.refuse_beyond(longest, foreign.MAX_LINE_BYTES, "bytes on one line", self.path)
        self.rows = [*self.rows, *self._parsed(lines)]  # a new list: a reader may have the old one
        self._offset += len(content)
        self._num_lines, self._num_values = num_lines, num_values
        self._seam = (self._seam + content)[-SEAM:]

    def _parsed(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, self._num_lines + 1):
            if not line.strip():
                continue
            try:
                row = foreign.an_object(line)
                if fault := schema.fault(row, self._model):
                    raise foreign.Damaged(fault)
            except foreign.Damaged as error:
                raise foreign.Damaged(f"line {number}: {error}") from error
            yield row


def tail(folder: Path, name: str, num_bytes: int) -> str:
    """The whole lines at the end of a text file, of at most `num_bytes`; empty without a file.

    Raises: as `foreign.open_plain`.
    """
    if not foreign.exists(folder, name):
        return ""
    with foreign.reading(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - num_bytes))
        text = file.read(num_bytes).decode(errors="replace")
    return text if size <= num_bytes else text.partition("\n")[2]

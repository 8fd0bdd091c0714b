"""Reads files that a stranger may have written: no link is followed, and nothing is unlimited.

JSON is read in this process, because its time and its memory are at most linear in what is counted
here first: bytes, lines, and the marks between values. Limits: Linux; a hard link is a plain file.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from r1recipes.errors import RecipeError

MAX_JSON_BYTES = 16 * 2**20
"""Bytes of one JSON file. Assumed: a lock with a million kept rows has half of them."""
MAX_LINES_BYTES = 64 * 2**20
"""Bytes of a file of JSON lines. Assumed: 10,000 steps with their completions have about 40 MB."""
MAX_LINE_BYTES = 4 * 2**20
"""Bytes of one of its lines; assumed, thousands of pages of text."""
MAX_LINES = 200_000
"""Lines of one; assumed, 10,000 steps with 20 completions each."""
MAX_VALUES = 4_000_000
"""Values of a file, counted as its commas, colons and opening brackets: each takes at most about
100 bytes in memory (measured, CPython 3.11)."""
MAX_DEPTH = 32
"""Levels of objects and lists in each other. The files of a run have 6."""
RAISE = "R1RECIPES_LIMITS=4 makes every limit for files from elsewhere four times as large"
_MARKS = (b",", b":", b"[", b"{")


class Damaged(ValueError):
    """What is wrong with the content of a file; the text follows `is damaged: `."""


def is_beyond(count: float, limit: float) -> bool:
    """Whether a count is above a limit times the setting `limits`, which is only read then."""
    return count > limit and count > limit * factor()


def factor() -> float:
    """The setting `limits`. Raises: RecipeError where it is not valid."""
    from r1recipes.machine import settings  # costs more than all of a small file

    return settings.load().limits


def refuse_beyond(count: float, limit: float, noun: str, path: Path) -> None:
    """Raises: RecipeError when a file has more of something than it may have."""
    if is_beyond(count, limit):
        shown = f"{count:,.0f}" if count < 1e15 else "more than 10^15"
        message = f"has {shown} {noun}; {limit:,.0f} are allowed"
        raise RecipeError.at(str(path), message, RAISE)


def plain_size(path: Path) -> int:
    """Bytes of a plain file; a link to one counts. Raises: OSError, also for a pipe or a device,
    which has no size and may never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return status.st_size


def open_plain(folder: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """The descriptor of the plain file `name` below `folder`; no link is followed on the way.

    `name` is relative; `folder` itself is the user's and may be a link. Raises: FileNotFoundError;
    RecipeError for a link, a folder, a pipe, a device; OSError.
    """
    path = folder / name
    *folders, last = Path(name).parts
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = _open(part, os.O_RDONLY | os.O_DIRECTORY, descriptor, path)
            os.close(descriptor)
            descriptor = inner
        file = _open(last, flags | os.O_NONBLOCK, descriptor, path)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise RecipeError.at(str(path), "is not a plain file", "remove it, or put back a copy")
    return file


def _open(name: str, flags: int, folder: int, path: Path) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        with_link = error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, folder)
        if with_link:
            raise refused_link(path) from error
        if error.errno == errno.ENXIO:  # a pipe that is opened for writing, a socket
            hint = "remove it, or put back a copy"
            raise RecipeError.at(str(path), "is not a plain file", hint) from error
        raise


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def refused_link(path: Path) -> RecipeError:
    """The error about a link in a folder that may come from elsewhere."""
    message = "is a link, or below one: in the folder of a run none is followed"
    return RecipeError.at(str(path), message, "remove it, or put back a copy of the file")


def refuse_special(folder: Path) -> None:
    """Raises: RecipeError when `folder` is a link, or holds one at any depth, or what is neither a
    plain file nor a folder: reading a pipe or a device may never end."""
    if folder.is_symlink():
        raise refused_link(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        _refuse_special_file(folder)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            _refuse_special_file(Path(parent, name))


def _refuse_special_file(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise refused_link(path)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise RecipeError.at(str(path), "is not a plain file", "remove it, or put back a copy")


@contextmanager
def reading(folder: Path, name: str) -> Iterator[IO[bytes]]:
    """A plain file below a folder, open to be read. Raises: as `open_plain`."""
    with open(open_plain(folder, name), "rb") as file:
        yield file


def exists(folder: Path, name: str) -> bool:
    """Whether there is something with this name, be it a link that leads nowhere."""
    return os.path.lexists(folder / name)


def read_bytes(folder: Path, name: str, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes. Raises: as `open_plain`."""
    path = folder / name
    with reading(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        refuse_beyond(size, limit, "bytes", path)
        return file.read(size)


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file. Raises: Damaged; and as `open_plain`."""
    content = read_bytes(folder, name, MAX_JSON_BYTES)
    refuse_beyond(num_values(content), MAX_VALUES, "values", folder / name)
    return an_object(content)


def read_rows(folder: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line of a file; a torn last line is left out, and so is an empty
    one. An absent file has none. Raises: Damaged; and as `open_plain`."""
    if not exists(folder, name):
        return
    with reading(folder, name) as file:
        count(
            file,
            folder / name,
            num_bytes=MAX_LINES_BYTES,
            lines=MAX_LINES,
            values=MAX_VALUES,
            line=MAX_LINE_BYTES,
        )
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            if not line.strip():
                continue
            try:
                row = an_object(line)
            except Damaged as error:
                raise Damaged(f"line {number}: {error}") from error
            yield number, row


def count(
    file: IO[bytes], path: Path, *, num_bytes: int, lines: int, values: int, line: int
) -> None:
    """Count what a file of lines has, before one of them is parsed, and go back to its beginning.

    `line` is the limit of the bytes of a line. Raises: RecipeError when there is too much of
    anything.
    """
    refuse_beyond(os.fstat(file.fileno()).st_size, num_bytes, "bytes", path)
    counted_lines = counted_values = length = 0
    while block := file.read(2**20):
        counted_lines += block.count(b"\n")
        counted_values += num_values(block)
        first, *others = block.split(b"\n")
        length += len(first)
        refuse_beyond(counted_lines, lines, "lines", path)
        refuse_beyond(counted_values, values, "values", path)
        refuse_beyond(max([length, *map(len, others)]), line, "bytes on one line", path)
        length = len(others[-1]) if others else length
    file.seek(0)


def num_values(content: bytes) -> int:
    """At least as many as the values in JSON."""
    return sum(content.count(mark) for mark in _MARKS) + 1


def an_object(content: bytes) -> dict[str, Any]:
    """The object in JSON, which is not nested deeply. Raises: Damaged."""
    try:
        data = json.loads(content)
    except UnicodeDecodeError as error:
        raise Damaged(f"it is not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        reason = f"{error.msg[0].lower()}{error.msg[1:]}"
        raise Damaged(f"not valid JSON: {reason} (line {error.lineno})") from error
    except RecursionError as error:
        raise Damaged("it is nested too deeply") from error
    except ValueError as error:  # Python refuses to read integers of more than 4300 digits
        raise Damaged("a number has too many digits") from error
    if not isinstance(data, dict):
        raise Damaged(f"it is a JSON {type(data).__name__}, not an object")
    if is_deep(data, content):
        raise Damaged("it is nested too deeply")
    return data


def is_deep(data: Any, content: bytes) -> bool:
    """Whether JSON has more than MAX_DEPTH levels; `content` is its text."""
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    level, depth = [data], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        tables = [item for item in level if isinstance(item, dict | list)]
        level = [x for item in tables for x in (item.values() if isinstance(item, dict) else item)]
    return depth > MAX_DEPTH

"""Files and folders that are whole: written as a draft, synced, then renamed in one step.

A kill or a power cut at any moment leaves what was there before or what is new, and perhaps a
draft. A draft is locked by the process that writes it, so that the next one to write in the same
folder removes those of dead processes and no other. Limits: Linux; on a file system without locks
drafts are left; an existing folder is exchanged with renameat2, which ext4, xfs, btrfs, tmpfs and
overlayfs know.
"""

import errno
import fcntl
import itertools
import json
import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from r1recipes.errors import RunError, disk_error

DRAFT = ".r1recipes-draft-"
"""How the name of every folder of drafts begins, and of nothing else."""
OLDER_DRAFTS = ".*.[0-9]*"
"""Pattern of the names that drafts had in older versions, as `clear_drafts` takes it."""
Taken = Literal["refuse", "replace", "keep"]
"""What happens to a name that is taken: an error, the new content, or the old content."""
BLOCK = 4096
"""Bytes of a block of most file systems: an empty file needs none."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_PID = re.compile(r"^\.draft-(\d+)(?:-|$)|\.(\d+)(?:\.tmp)?$")
"""Where older versions had the number of the process that wrote a draft."""


def named(name: str) -> Path:
    """The path that a user means by a name; `~nobody`, whom this machine does not know, is one too,
    where `Path.expanduser` raises."""
    return Path(os.path.expanduser(name))


@contextmanager
def draft(target: Path, *, taken: Taken = "refuse") -> Iterator[Path]:
    """A path to make a file or a folder at, which takes the name `target` when it is complete.

    On an error it is removed. Missing parents of `target` are made. Raises: OSError; RunError where
    the file system cannot exchange two folders.
    """
    with scratch(target.parent) as folder:
        path = folder / target.name
        yield path
        put(path, target, taken=taken)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent` for several drafts; what is left in it at the end is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(parent)
    folder, descriptor = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder for drafts and the open descriptor that holds its lock."""
    while True:
        folder = parent / f"{DRAFT}{secrets.token_hex(8)}"
        folder.mkdir()
        with suppress(FileNotFoundError):  # another process may clear it before it is locked
            descriptor = os.open(folder, os.O_RDONLY)
            _lock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _lock(descriptor: int, operation: int) -> bool:
    """Whether the lock was taken: it may be held, or the file system may have no locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def clear_drafts(parent: Path, *older: str) -> None:
    """Remove the drafts in a folder whose processes are dead.

    `older`: patterns of names that drafts had in older versions, where they may lie.
    """
    for folder in parent.glob(f"{DRAFT}*"):
        with suppress(OSError):  # another process was faster, or it may not be removed
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                if _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)
    for path in {path for pattern in older for path in parent.glob(pattern)}:
        match = _PID.search(path.name)
        if match is None or not Path("/proc", match[1] or match[2]).exists():
            with suppress(FileNotFoundError):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def put(path: Path, target: Path, *, taken: Taken = "refuse") -> None:
    """Give a complete file or folder its name, once all of it is on the disk.

    Where the name is taken and not to be refused, what is not needed is removed. Raises: OSError;
    RunError where the file system cannot exchange two folders.
    """
    sync(path)
    try:
        if taken == "replace":
            _replace(path, target)
        elif os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        else:
            os.rename(path, target)
    except OSError:
        if taken != "keep" or not target.exists():
            raise
    _sync(target.parent)
    with suppress(FileNotFoundError):
        _remove(path)


def _replace(path: Path, target: Path) -> None:
    """Put `path` in the place of `target`; where one is a folder, `path` has the old content."""
    if not target.exists() or not (path.is_dir() or target.is_dir()):
        os.replace(path, target)
        return
    import ctypes  # rarely needed, and every command imports this module

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(path.absolute()), os.fsencode(target.absolute())
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        reason = os.strerror(ctypes.get_errno())
        raise RunError(
            f"`{target}` cannot be replaced in one step: {reason}",
            kind="disk",
            hint=f"remove it first: `rm -r {shlex.quote(str(target))}`",
        )


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    for each in [*sorted(path.rglob("*"), reverse=True), path]:
        if not each.is_symlink():
            _sync(each)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, or replace it. Raises: OSError."""
    with draft(path, taken="replace") as file:
        file.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def save_text(path: Path, text: str, *, taken: Taken) -> None:
    """Write a file where the user wants it, whole or not at all. Raises: OSError.

    Its folder must be there. A link stays one, and a device or a pipe is written to.
    """
    target = path.resolve() if taken == "replace" else path
    target.parent.lstat()
    if taken == "replace" and target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")  # such as /dev/stdout
        return
    with draft(target, taken=taken) as file:
        file.write_bytes(text.encode())


def write_json(path: Path, data: object) -> None:
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a .jsonl with a line for each row, or replace it. Raises: OSError."""
    write_text(path, _lines(rows))


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def append_line(path: Path, *rows: Mapping[str, Any]) -> None:
    """Append a JSON line for each row, on the disk at once; a torn last line is cut first."""
    with open(path, "ab+", opener=no_link) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_lines(rows).encode())
        file.flush()
        os.fsync(file.fileno())


def no_link(path: str, flags: int) -> int:
    """An opener for `open` that does not follow a link: a file that one leads to stays as it is.

    Raises: OSError (ELOOP).
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl; a torn last line is dropped, an absent file has none."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if line.strip()]


def stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, bytes and time of the last change (ns) of each file: they change when it changes."""
    stats = [(path.name, path.stat()) for path in paths]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def numbered(stem: str, suffix: str = "") -> Iterator[str]:
    """Names without end: `stem`, `stem-2`, `stem-3`, each with the suffix."""
    yield f"{stem}{suffix}"
    yield from (f"{stem}-{number}{suffix}" for number in itertools.count(2))


def free_name(parent: Path, stem: str) -> Path:
    """The first of `stem`, `stem-2`, `stem-3` ... that is not taken in a folder."""
    return next(parent / name for name in numbered(stem) if not os.path.lexists(parent / name))


def check_writable(folder: Path) -> None:
    """Raises: RunError if no file can be made in `folder`, or where it would be made, or no block
    is free there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(BLOCK))
    except OSError as error:
        raise disk_error(error, folder) from error


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def stamp() -> str:
    """UTC time to the second, without separators, for the names of folders."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"

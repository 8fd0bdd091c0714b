"""Put a folder in its place whole: under a draft name, synced, then renamed in one step.

A kill or a power cut at any moment leaves either what was there before or the new folder, and
perhaps a draft, which the next export removes. Limits: Linux; an existing folder is exchanged with
renameat2, which ext4, xfs, btrfs, tmpfs and overlayfs know.
"""

import ctypes
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1recipes.errors import RunError, disk_error, unwritable

DRAFT = ".draft-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def clear_drafts(parent: Path) -> None:
    """Remove what a killed export left. Only for who holds the run."""
    for draft in parent.glob(f"{DRAFT}*"):
        shutil.rmtree(draft)


def put(draft: Path, folder: Path) -> None:
    """Give a complete draft its name; what had the name before is removed after.

    Raises: OSError; RunError where the file system cannot exchange two folders.
    """
    sync_tree(draft)
    if folder.exists():
        _exchange(draft, folder)
        _sync(folder.parent)
        shutil.rmtree(draft)
    else:
        os.rename(draft, folder)
        _sync(folder.parent)


def sync_tree(folder: Path) -> None:
    """Wait until all files of a folder, and their names, are on the disk."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        reason = os.strerror(ctypes.get_errno())
        raise RunError(
            f"`{other}` cannot be replaced in one step: {reason}",
            kind="disk",
            hint=f"remove it first: `rm -r {other}`",
        )


def check_writable(folder: Path) -> None:
    """Raises: RunError if no file can be made in `folder`, or where it would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise disk_error(error, folder) from error


def sync_folder(folder: Path) -> None:
    """Wait until the files of a folder, and their names, are on the disk."""
    for path in [*_files(folder), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or absent, also after a power cut."""
    draft = path.with_name(f".{path.name}.tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def append_line(path: Path, *rows: dict[str, Any]) -> None:
    """Append a JSON line for each row, on the disk at once; a torn last line is cut first."""
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl; a torn last line is dropped, an absent file has none."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if line.strip()]


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear_drafts(target: Path) -> None:
    """Remove what a killed process left."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not Path("/proc", number).exists():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A draft that takes the folder's name when it is complete, and is removed when it is not.

    Raises: RunError when the disk is full.
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        yield draft
        try:
            draft.rename(folder)
        except OSError:  # another process was faster, and its files are the same
            if not folder.exists():
                raise
    except Exception as error:
        if "No space left on device" not in str(error):
            raise
        # An error of safetensors's own is no OSError.
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        hint = "set R1RECIPES_CACHE_DIR to another folder"
        raise unwritable(folder.parent, full, hint) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)

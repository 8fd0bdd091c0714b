"""Put a folder in its place whole: under a draft name, synced, then renamed in one step.

A kill or a power cut at any moment leaves either what was there before or the new folder, and
perhaps a draft, which the next export removes. Limits: Linux; an existing folder is exchanged with
renameat2, which ext4, xfs, btrfs, tmpfs and overlayfs know.
"""

import ctypes
import os
import shutil
from pathlib import Path

from r1recipes.errors import RunError

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

"""Checkpoints of a run: which are whole, and which is the newest.

Limits: a mark says how large the files of a checkpoint are, and not what is in them.
"""

import re
from pathlib import Path

from r1recipes.machine import files
from r1recipes.machine.files import foreign, write_json

CHECKPOINT_DONE = "r1recipes-complete"
"""The file in a checkpoint that says that it is whole, and how large its files are."""


def mark_checkpoint(folder: Path) -> None:
    """Mark a checkpoint as whole: its files are on the disk, with the sizes in the mark."""
    files.sync(folder)
    sizes = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }
    write_json(folder / CHECKPOINT_DONE, sizes)


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is marked as whole, and all its files have the sizes in the mark."""
    try:
        sizes = foreign.read_object(folder, CHECKPOINT_DONE)
        return all((folder / name).lstat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def checkpoint_step(folder: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None where it has none."""
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if re.fullmatch("[0-9]{1,9}", number) else None


def newest_whole(checkpoints: Path) -> tuple[Path, int] | None:
    """The whole checkpoint of the highest step in a folder, and that step."""
    steps = []
    for folder in checkpoints.glob("checkpoint-*"):
        number = checkpoint_step(folder)
        if number is not None and is_whole(folder):
            steps.append((number, folder))
    return (max(steps)[1], max(steps)[0]) if steps else None

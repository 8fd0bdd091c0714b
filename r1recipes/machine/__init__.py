"""The machine: cards, packages, files that are whole, processes that can be killed, the terminal.

Nothing here knows what a recipe or a run is.
"""

from pathlib import Path

RUNS_DIR = Path("runs")
"""Folder of the run folders where no setting names another."""
_PACKAGE = Path(__file__).parents[1]
OTHER_CACHE = "set R1RECIPES_CACHE_DIR to another folder"
"""Hint where the folder of `Settings.cache_dir` is full or cannot be written."""


def shipped_folder(kind: str) -> Path:
    """The folder of the `recipes` or `sweeps` that come with r1recipes, in a wheel or a clone."""
    packaged = _PACKAGE / "_data" / kind
    return packaged if packaged.is_dir() else _PACKAGE.parent / kind

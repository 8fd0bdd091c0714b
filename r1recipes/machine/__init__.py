"""The machine: cards, packages, files that are whole, processes that can be killed, the terminal.

Nothing here knows what a recipe or a run is.
"""

from pathlib import Path

RUNS_DIR = Path("runs")
"""Folder of the run folders where no setting names another."""
OTHER_CACHE = "set R1RECIPES_CACHE_DIR to another folder"
"""Hint where the folder of `Settings.cache_dir` is full or cannot be written."""

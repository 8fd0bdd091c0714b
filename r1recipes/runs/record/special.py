"""Refuses what no run has in its folder: links, pipes, sockets, devices, a file for a folder."""

from pathlib import Path

from r1recipes.errors import RecipeError
from r1recipes.machine.files import foreign

FOLDERS = ("base", "cold-start", "checkpoints", "adapter", "stages", "evaluations")


def refuse(folder: Path) -> None:
    """Raises: RecipeError that names the first of them in a run folder; wandb alone makes links,
    in its own."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != "wandb":
            foreign.refuse_special(path)
        if path.name in FOLDERS and path.is_file():
            hint = "remove it, or put back a copy of the run folder"
            raise RecipeError.at(str(path), "is a file, where a run has a folder", hint)

"""The caches of this machine: which files can be deleted, because they are made or fetched again.

Limits: `cache_dir` may hold other things, so only files that this package makes are named. A recipe
from elsewhere stays as long as there is a run of it, which could not be resumed without it.
"""

from contextlib import suppress
from pathlib import Path

from r1recipes.errors import RecipeError
from r1recipes.runs.record import Run

PARTS = {
    "models in 4 bits": ("nf4",),
    "models in FP8": ("fp8",),
    "models with an adapter merged": ("merged",),
    "random weights of rehearsals": ("random-weights",),
    "pass rates of problems": ("pass-rates",),
    "compiled kernels": ("inductor", "triton", "vllm", "unsloth"),
}
"""Content in plain words -> its folders in `cache_dir`."""


def removable(cache_dir: Path, runs: list[Run]) -> dict[str, list[Path]]:
    """Content in plain words -> its folders and files, of everything that can be deleted.

    Raises: RecipeError while a run is running, because it may use any of them.
    """
    needed: set[str] = set()
    for run in runs:
        with suppress(RecipeError):  # a damaged run is not resumed
            needed.add(run.plan().base_dir.name)
        if _is_running(run):
            raise RecipeError(
                f"{run.folder} is running and may use the cache", hint="wait until it ends"
            )
    parts = {content: [cache_dir / name for name in names] for content, names in PARTS.items()}
    parts["recipes from elsewhere"] = _unneeded_recipes(cache_dir / "recipes", needed)
    present = {
        content: [path for path in paths if path.exists()] for content, paths in parts.items()
    }
    return {content: paths for content, paths in present.items() if paths}


def _is_running(run: Run) -> bool:
    try:
        return run.status() == "running"
    except RecipeError:  # a damaged run is not resumed
        return False


def _unneeded_recipes(folder: Path, needed: set[str]) -> list[Path]:
    """Recipes, named by their hash, that no run needs, and the notes of their addresses."""
    recipes = [path for path in folder.glob("*") if path.name != "references"]
    hashes = [path.name for path in recipes if path.name in needed]
    notes = [
        note
        for note in folder.glob("references/*")
        if note.is_file()
        and not note.is_symlink()
        and not any(name in note.read_text(errors="replace") for name in hashes)
    ]
    return [path for path in recipes if path.name not in hashes] + notes

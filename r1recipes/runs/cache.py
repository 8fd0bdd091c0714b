"""What is kept on this machine between runs, and what of it can go: all is made or fetched again.

Only what this package makes is named, since `cache_dir` may hold other things. A recipe from
elsewhere stays while a run that took it is there, which could not go on without it.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from r1recipes.errors import RecipeError
from r1recipes.runs.record import Run

PARTS = {
    "models in 4 bits": ("nf4",),
    "random weights of rehearsals": ("random-weights",),
    "compiled kernels": ("inductor", "triton", "vllm", "unsloth"),
}
"""What there is -> its folders in `cache_dir`."""


def removable(cache_dir: Path, runs: list[Run]) -> dict[str, list[Path]]:
    """What can go -> its folders and files.

    Raises: RecipeError while one of the runs works, since it may use any of them.
    """
    for run in runs:
        if _of(run, Run.status) == "running":
            raise RecipeError(f"{run.folder} is running and may use the cache", hint="wait for it")
    needed = {plan.base_dir.name for run in runs if (plan := _of(run, Run.plan))}
    found = {what: [cache_dir / name for name in names] for what, names in PARTS.items()}
    found["recipes from elsewhere"] = _recipes(cache_dir / "recipes", needed)
    present = {what: [path for path in paths if path.exists()] for what, paths in found.items()}
    return {what: paths for what, paths in present.items() if paths}


def _of(run: Run, ask: Callable[[Run], Any]) -> Any:
    with suppress(RecipeError):  # a damaged run does not go on
        return ask(run)


def _recipes(folder: Path, needed: set[str]) -> list[Path]:
    """Recipes, named by their hash, that no run needs, and the notes of where they were."""
    recipes = [path for path in folder.glob("*") if path.name != "references"]
    kept = [path.name for path in recipes if path.name in needed]
    notes = [
        note
        for note in folder.glob("references/*")
        if note.is_file() and not any(name in note.read_text(errors="replace") for name in kept)
    ]
    return [path for path in recipes if path.name not in kept] + notes

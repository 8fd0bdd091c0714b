"""A recipe that names files, and all that `local.look` says of it."""

from pathlib import Path

import tomli
import tomli_w

from r1recipes import recipe
from r1recipes.data import local
from r1recipes.recipe.loading import Loaded
from tests.conftest import SMALL


def load(folder: Path, **sections: dict | str) -> Loaded:
    """The small recipe in `folder` with some sections replaced, and rows of a file as data."""
    content = tomli.loads(SMALL)
    content["data"] = {"name": "rows.jsonl", "eval_size": 2}
    content["cold_start"] = {"steps": 1, "data": "shown.jsonl"}
    content |= sections
    path = folder / "mine.toml"
    path.write_text(tomli_w.dumps(content))
    return recipe.load(path)


def faults(loaded: Loaded, **options: bool) -> str:
    """All problems that are found."""
    findings = local.look(loaded, **options)
    return "\n".join(f"{p.where} {p.message} {p.hint}" for p in findings.problems)

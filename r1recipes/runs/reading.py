"""What run folders say, and how they differ: results, recipes, answers to the same problems.

Each file is read when it is looked at, once, at whatever state the run is in; only record.json has
to be there.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from r1recipes.runs import statistics
from r1recipes.errors import Problem, R1RecipesError
from r1recipes.errors import RecipeError
from r1recipes.runs.record import Run
from r1recipes.machine.files import read_lines

Row = dict[str, Any]
IGNORED = ("format", "description", "track", "preset")
"""Parts of a recipe that change nothing that is computed, or (preset) are compared as chosen."""


@dataclass(frozen=True)
class Reading:
    """The files of one run, as they were when they were read. Raises: RecipeError if damaged."""

    run: Run
    label: str
    status: str
    """As in the record, or `killed` where it says `running` and no process works in the folder."""
    record: Row

    @cached_property
    def resolved(self) -> Row:
        return _table(self.run.resolved)

    @cached_property
    def lock(self) -> Row:
        return _table(self.run.lock)

    @cached_property
    def recipe_text(self) -> str:
        path = self.run.recipe
        return path.read_text(errors="replace") if path.is_file() else ""

    @cached_property
    def metrics(self) -> list[Row]:
        return _rows(self.run.metrics)

    @cached_property
    def completions(self) -> list[Row]:
        return _rows(self.run.completions)

    @cached_property
    def before(self) -> list[Row]:
        return _rows(self.run.evaluation("before"))

    @cached_property
    def after(self) -> list[Row]:
        return _rows(self.run.evaluation("after"))

    @property
    def name(self) -> str:
        """`tiny/20261121T045820Z-83ddb244`."""
        return f"{self.run.folder.absolute().parent.name}/{self.run.folder.absolute().name}"

    @property
    def recipe(self) -> Row:
        return self.resolved.get("recipe", {})

    @property
    def max_steps(self) -> int | None:
        return self.recipe.get("train", {}).get("max_steps")

    @property
    def steps(self) -> int:
        """Optimiser steps that are done."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def duration_s(self) -> float:
        return sum(self.record.get("duration_s", {}).values())

    def evaluated(self, when: str) -> Row:
        """Summary of the evaluation before or after, empty when there is none yet."""
        return self.record.get("evaluation", {}).get(when, {})

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every value that decides what is computed, such as {"train.beta": 0.0}; empty in a shared
        folder, which has no plan."""
        if not self.resolved:
            return {}
        kept = {key: value for key, value in self.recipe.items() if key not in IGNORED}
        kept["preset"] = self.resolved.get("preset", {})
        for key in ("preset_name", "backend", "device", "dtype"):
            kept[key] = self.resolved.get(key)
        return _flat(kept)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, and hashes of what was read; empty without a lock."""
        if not self.lock:
            return {}
        names = ("versions", "machine", "inputs", "model_revision", "data_revision")
        return _flat({name: self.lock.get(name) for name in names})


def read(run: Run, label: str = "") -> Reading:
    """Raises: RecipeError when the record is damaged; so does looking at what another file says."""
    record = run.read()
    return Reading(run, label, run.status(), record)


@contextmanager
def understood(*runs: Run) -> Iterator[None]:
    """Raises: RecipeError in place of what a file that holds something else leads to; a folder may
    come from elsewhere, or from another version."""
    try:
        yield
    except R1RecipesError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        names = ", ".join(str(run.folder) for run in runs)
        said = f"does not hold what a run writes ({type(error).__name__}: {error})"
        raise RecipeError(
            problems=[Problem(said, names, "was it edited, or half copied?")]
        ) from error


def _table(path: Path) -> Row:
    found = _guarded(path, lambda: json.loads(path.read_text())) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def _rows(path: Path) -> list[Row]:
    return _guarded(path, lambda: read_lines(path))


def _guarded(path: Path, reading: Callable[[], Any]) -> Any:
    try:
        return reading()
    except (OSError, ValueError) as error:
        said = f"cannot be read: {str(error).splitlines()[0]}"
        hint = "put back a copy of this file, or leave this run out"
        raise RecipeError(problems=[Problem(said, str(path), hint)]) from error


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def differing(tables: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Keys whose values are not all equal -> the value of each table, None where it is absent.

    An empty table says nothing, so that it differs from none.
    """
    known = [table for table in tables if table]
    keys = dict.fromkeys(key for table in known for key in table)
    return {
        key: [table.get(key) for table in tables]
        for key in keys
        if any(table.get(key) != known[0].get(key) for table in known)
    }


def unknown(readings: Sequence[Reading], tables: Sequence[dict[str, Any]]) -> str:
    """Labels of the runs whose table is empty: `A, C`."""
    return ", ".join(r.label for r, table in zip(readings, tables, strict=True) if not table)


@dataclass(frozen=True)
class Paired:
    """Accuracy of b minus that of a, on the problems that both answered after training."""

    mean: float
    interval: tuple[float, float]
    num_problems: int
    is_all: bool
    """Whether neither answered other problems as well."""

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


def paired(a: Reading, b: Reading) -> Paired | None:
    """Compare two runs on their common held-out problems. None when there are fewer than 2."""
    first, second = _by_problem(a.after), _by_problem(b.after)
    common = [key for key in first if key in second]
    if len(common) < 2:
        return None
    found = statistics.difference([first[k] for k in common], [second[k] for k in common])
    return Paired(
        found["mean"],
        tuple(found["interval"]),
        len(common),
        len(common) == len(first) == len(second),
    )


def _by_problem(items: list[Row]) -> dict[tuple, Row]:
    """Items by question and answer; the number tells the repetitions of a problem apart."""
    seen: Counter = Counter()
    found = {}
    for item in items:
        key = (item["question"], str(item["answer"]))
        found[(*key, seen[key])] = item
        seen[key] += 1
    return found


def best(readings: Sequence[Reading]) -> list[Reading]:
    """The runs that were evaluated after training, the most accurate first."""
    done = [r for r in readings if r.evaluated("after")]
    return sorted(done, key=lambda r: r.evaluated("after")["accuracy"], reverse=True)


def letters(count: int) -> list[str]:
    """A short name for each of several runs: A, B, ... Z, 27, 28, ..."""
    return [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]

"""Reading run folders, and how runs differ: results, recipes, answers to the same problems.

Each file is read once, when it is first needed, in whatever state the run is. Limits: only
record.json has to exist; everything else is empty where its file is missing.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.errors import R1RecipesError, RecipeError, first_line, shorten
from r1recipes.machine.files import foreign
from r1recipes.machine.meter import TOTAL
from r1recipes.runs import lock, statistics
from r1recipes.runs.record import Run, schema

STAGES = {
    "cold_start": "cold start",
    "load": "loading the model",
    "evaluate_before": "evaluation before",
    "pass_rates": "pass rates",
    "own_samples": "sampling the problems",
    "train": "training",
    "evaluate_after": "evaluation after",
}
"""Name of a stage in record.json, `stage` and `duration_s` -> as people read it."""
Row = dict[str, Any]
"""A line of a .jsonl file, or another JSON object."""
IGNORED = ("format", "description", "track", "preset")
"""Parts of a recipe that do not change what is computed; of the presets only the one that was used
is compared."""
SAMPLING = ("train.temperature", "train.top_p", "train.top_k", "train.min_p")
"""Settings that change which answers an evaluation samples, and not the greedy ones."""
NUM_SAMPLES = "eval.samples"


@dataclass(frozen=True)
class Reading:
    """The files of one run, as they were when they were read.

    Attributes raise RecipeError where a file is damaged.
    """

    run: Run
    label: str
    status: str
    """The status in the record; `killed` where that is `running` and no process runs it."""
    record: Row

    @cached_property
    def resolved(self) -> Row:
        return self._table(self.run.resolved, schema.Resolved)

    @cached_property
    def lock(self) -> Row:
        return self._table(self.run.lock, lock.Lock)

    @cached_property
    def recipe_text(self) -> str:
        path = self.run.recipe
        if not path.is_file():
            return ""
        content = foreign.read_bytes(self.run.folder, path.name, foreign.MAX_JSON_BYTES)
        return content.decode(errors="replace")

    @cached_property
    def metrics(self) -> list[Row]:
        return self.run.rows(self.run.metrics, schema.Step)

    @cached_property
    def completions(self) -> list[Row]:
        return self.run.rows(self.run.completions, schema.Completion)

    @cached_property
    def before(self) -> list[Row]:
        return self.run.answers("before")

    @cached_property
    def after(self) -> list[Row]:
        return self.run.answers("after")

    def _table(self, path: Path, model: type[BaseModel]) -> Row:
        """The object in a file, empty where there is no file."""
        is_there = foreign.exists(self.run.folder, path.name)
        return self.run.table(path, model) if is_there else {}

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
        """Number of optimiser steps that are done."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def progress(self) -> str:
        """Steps that are done of those of a training: `3/4`, or `1-sft 3/4` before the last one."""
        begun = [] if self.metrics else [stage for stage in stages(self) if stage.metrics]
        if begun:
            return f"{begun[-1].label} {begun[-1].progress}"
        return f"{self.steps}/{self.max_steps or '?'}"

    @property
    def ending(self) -> str:
        """A sentence on the weights that a run has which was cut short; empty for any other run."""
        step = self.record.get("stopped_at_step")
        if self.status == "complete":
            return f"Training was ended at step {step} of {self.max_steps}." if step else ""
        if self.status == "running":
            return ""
        if checkpoint := self.run.last_checkpoint():
            return f"`ask`, `eval` and `export` use step {checkpoint[1]} of {self.max_steps}."
        return f"Its last checkpoint was that of step {step}." if step else ""

    @property
    def duration_s(self) -> float:
        """Seconds that the run took in all its attempts, with the stage that runs now or in which
        it was killed."""
        return wall_s(self.record) + self._unrecorded_s()

    def _unrecorded_s(self) -> float:
        """Seconds of the stage that has not ended: up to now, or to the last sign of a dead run."""
        stage = self.record.get("stage")
        if not stage or self.status not in ("running", "killed"):
            return 0.0
        signs = (self.run.record, self.run.metrics, self.run.log)
        last = max((path.lstat().st_mtime for path in signs if path.exists()), default=0.0)
        end = time.time() if self.status == "running" else last
        return max(0.0, end - float(stage["began_s"]))

    @property
    def is_trial(self) -> bool:
        """Whether it is a trial of a study."""
        return "study" in self.record

    def evaluated(self, when: str) -> Row:
        """Summary of the evaluation `before` or `after` training; empty when there is none yet."""
        return self.record.get("evaluation", {}).get(when) or {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every value that changes what is computed, such as {"train.beta": 0.0}; empty in a shared
        folder, which has no plan."""
        if not self.resolved:
            return {}
        values = {key: value for key, value in self.recipe.items() if key not in IGNORED}
        values["preset"] = self.resolved.get("preset", {})
        for key in ("preset_name", "backend", "device", "dtype"):
            values[key] = self.resolved.get(key)
        return _flat(values)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, and hashes of inputs; empty without a lock."""
        if not self.lock:
            return {}
        names = ("versions", "machine", "inputs", "model_revision", "data_revision")
        return _flat({name: self.lock.get(name) for name in names})


@dataclass(frozen=True)
class StageReading(Reading):
    """The files of a stage before the last training; `record` is what that of the run says of it,
    empty before its first result."""

    plan: Row

    @property
    def resolved(self) -> Row:
        return self.plan


def stages(run: Reading) -> list[StageReading]:
    """The stages before the last training of a run, in their order."""
    recorded = {stage["name"]: stage for stage in run.record.get("stages", [])}
    readings = []
    for number, plan in enumerate(run.resolved.get("earlier", []), 1):
        algorithm = ALGORITHMS[plan["recipe"]["algorithm"]]  # its name is that of a folder
        title = f"{number}-{algorithm.name}"
        about = recorded.get(title, {})
        readings.append(StageReading(run.run.stage(title), title, run.status, about, plan))
    return readings


def wall_s(record: Row) -> float:
    """Seconds of a run in all its attempts; of older ones, of its stages alone."""
    seconds: float = record.get("time", {}).get(TOTAL) or sum(record.get("duration_s", {}).values())
    return seconds


def read(run: Run, label: str = "") -> Reading:
    """Begin to read a run. Raises: RecipeError when its record is damaged."""
    record = run.read()
    return Reading(run, label, run.status(), record)


def algorithms(readings: Iterable[Reading]) -> list[Algorithm]:
    """The algorithms of the runs that have a plan, each once."""
    names = dict.fromkeys(reading.recipe.get("algorithm") for reading in readings)
    return [ALGORITHMS[name] for name in names if name in ALGORITHMS]


@contextmanager
def understood(*runs: Run) -> Iterator[None]:
    """Turn errors from files with unexpected content into a RecipeError: a folder may come from
    elsewhere, or from another version."""
    try:
        yield
    except R1RecipesError:
        raise
    except (
        LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError
    ) as error:  # fmt: skip
        folders = ", ".join(str(run.folder) for run in runs)
        reason = f"{type(error).__name__}: {first_line(error)}"
        message = f"does not have the content of a run ({shorten(reason)})"
        raise RecipeError.at(
            folders, message, "check whether it was edited or half copied"
        ) from error


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def differing(tables: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Keys whose values are not all equal -> the value in each table, None where it is missing.

    An empty table means that nothing is known, and differs from no other.
    """
    filled = [table for table in tables if table]
    keys = dict.fromkeys(key for table in filled for key in table)
    return {
        key: [table.get(key) for table in tables]
        for key in keys
        if any(table.get(key) != filled[0].get(key) for table in filled)
    }


def unknown(readings: Sequence[Reading], tables: Sequence[dict[str, Any]]) -> str:
    """Labels of the runs whose table is empty: `A, C`."""
    return ", ".join(r.label for r, table in zip(readings, tables, strict=True) if not table)


@dataclass(frozen=True)
class Paired:
    """Accuracy of b minus accuracy of a, on the problems that both answered after training."""

    mean: float
    interval: tuple[float, float]
    num_problems: int

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside the 95 % interval."""
        return self.interval[0] > 0 or self.interval[1] < 0


def sampled_differently(readings: Sequence[Reading], *, with_number: bool = True) -> str:
    """How the samples of evaluations differ: `train.temperature 1.0, 0.7`; empty where they do not.
    `with_number`: also in how many there are of a problem, which moves no accuracy."""
    keys = (*SAMPLING, NUM_SAMPLES) if with_number else SAMPLING
    tables = [{k: v for k, v in each.settings.items() if k in keys} for each in readings]
    return "; ".join(
        f"{key} {', '.join('-' if value is None else str(value) for value in values)}"
        for key, values in differing(tables).items()
    )


def paired(a: Reading, b: Reading, *, greedy: bool = False) -> Paired | None:
    """Compare two runs on their common held-out problems, by their samples or their greedy answers.
    None when there are fewer than 2."""
    first, second = (_by_problem(_greedy(r.after) if greedy else r.after) for r in (a, b))
    common = [key for key in first if key in second]
    if len(common) < 2:
        return None
    difference = statistics.difference([first[k] for k in common], [second[k] for k in common])
    return Paired(difference["mean"], tuple(difference["interval"]), len(common))


def _greedy(items: Sequence[Row]) -> list[Row]:
    """The items, with the greedy answer as their only sample."""
    return [item | {"samples": [item["greedy"]]} for item in items]


def problems(reading: Reading) -> frozenset[tuple[str, str, int]]:
    """The held-out problems that a run answered after training; empty where it has no answers."""
    return frozenset(_by_problem(reading.after))


def _by_problem(items: Sequence[Row]) -> dict[tuple[str, str, int], Row]:
    """Items by question, answer and number; the number tells repetitions of a problem apart."""
    repetitions: Counter[tuple[str, str]] = Counter()
    by_problem = {}
    for item in items:
        key = (item["question"], str(item["answer"]))
        by_problem[(*key, repetitions[key])] = item
        repetitions[key] += 1
    return by_problem


def best(readings: Sequence[Reading]) -> list[Reading]:
    """The runs that were evaluated after training, the most accurate first."""
    evaluated = [r for r in readings if r.evaluated("after")]
    return sorted(evaluated, key=lambda r: r.evaluated("after")["accuracy"], reverse=True)


def letters(count: int) -> list[str]:
    """A short name for each of several runs: A, B, ... Z, 27, 28, ..."""
    return [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]

"""Measures the pass rates of training problems, block by block, and keeps them in the cache.

The problems of a block are answered together, so on a CPU the rates of a block depend on nothing
but its problems and on what the key of the cache has, to the bit. Limits: a block is the unit: with
other rows in the data the blocks are others, and are measured anew.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1recipes.algorithms.base import Preset
from r1recipes.machine import files, hub, packages
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.runs.pass_rates import is_within
from r1recipes.runs.reading import Row
from r1recipes.training.backends.base import Messages, Sample
from r1recipes.training.evaluation import Score, num_right

FORMAT = 1
"""Version of the files in the cache; part of every key."""
Progress = Callable[[int, int], None]
"""(done, total) problems, without those from the cache; the total is an estimate."""
Generate = Callable[[list[Messages], Progress], list[list[Sample]]]
"""(prompts, progress within them) -> the samples of each prompt."""


class Cache:
    """The pass rates of blocks of problems, one file each, of one model that is asked in one way.

    Files are whole, so several processes may measure the same at once.
    """

    def __init__(self, parent: Path, asked: dict[str, Any], num_samples: int):
        self.folder = parent / _sha256(asked)[:32]
        self._asked = asked
        self._num_samples = num_samples

    def read(self, block: Sequence[Row]) -> list[int] | None:
        """The right samples of each problem of a block; None where they are not known, or the file
        is damaged."""
        try:
            counts = json.loads(self._path(block).read_text())["num_right"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        possible = range(self._num_samples + 1)
        is_whole = isinstance(counts, list) and len(counts) == len(block)
        return counts if is_whole and all(n in possible for n in counts) else None

    def write(self, block: Sequence[Row], counts: list[int]) -> None:
        """Keep the right samples of a block. Raises: OSError."""
        about = self.folder / "about.json"
        if not about.exists():
            files.write_json(about, self._asked)
        files.write_json(self._path(block), {"format": FORMAT, "num_right": counts})

    def _path(self, block: Sequence[Row]) -> Path:
        return self.folder / f"{_sha256(list(block))[:32]}.json"


@dataclass
class Measured:
    """The problems that were measured, in the order in which they were."""

    rows: list[int] = field(default_factory=list)
    """Their places in the data."""
    num_right: list[int] = field(default_factory=list)
    num_cached: int = 0
    """How many of them came from the cache."""


@dataclass(frozen=True)
class Task:
    """Which problems are measured, and when there are enough of them."""

    keep: Sequence[float]
    num_needed: int
    """Problems within `keep` after which no further block is measured."""
    num_samples: int
    block_size: int
    """Problems that are answered together."""
    seed: int


def shuffled(num_rows: int, seed: int) -> list[int]:
    """The places of all rows in the order in which they are taken."""
    places = list(range(num_rows))
    random.Random(seed).shuffle(places)
    return places


def measure(
    rows: Sequence[Row],
    task: Task,
    cache: Cache,
    generate: Generate,
    score: Score,
    progress: Progress,
    announce: Callable[[float], None],
) -> Measured:
    """Measure blocks of `rows` until enough problems are within `task.keep`, or all are measured.

    `announce` is told once, after the first block that was not in the cache, how many seconds the
    others will take.
    """
    measured, order = Measured(), shuffled(len(rows), task.seed)
    num_kept, began = 0, time.monotonic()
    for start in range(0, len(order), task.block_size):
        places = order[start : start + task.block_size]
        block = [dict(rows[place]) for place in places]
        counts = cache.read(block)
        if counts is not None:
            measured.num_cached += len(block)
        else:
            total = _expected(start, num_kept, len(order), task) - measured.num_cached
            fresh = start - measured.num_cached
            within = shifted(progress, fresh, max(total, fresh + len(block)))
            counts = num_right(block, generate([row["prompt"] for row in block], within), score)
            cache.write(block, counts)
        measured.rows += places
        measured.num_right += counts
        num_kept += sum(is_within(count, task.num_samples, task.keep) for count in counts)
        if num_kept >= task.num_needed:
            break
        fresh = len(measured.rows) - measured.num_cached
        if fresh == len(block):
            left = _expected(len(measured.rows), num_kept, len(order), task) - len(measured.rows)
            announce((time.monotonic() - began) / fresh * left)
    return measured


def shifted(progress: Progress, before: int, total: int) -> Progress:
    """The progress of a part that begins after `before` of `total`."""
    return lambda done, _: progress(before + done, total)


def _expected(num_measured: int, num_kept: int, num_rows: int, task: Task) -> int:
    """Problems that will be measured in the end, by the share that is kept so far."""
    if not num_kept:
        return num_rows
    return min(num_rows, -(-num_measured * task.num_needed // num_kept))


def asked(
    plan: Plan, inputs: dict[str, str], weights: str, answers: Iterable[Any], block_size: int
) -> Row:
    """Everything beside the problems that their pass rates depend on: the key of the cache.

    `weights` is from `weights_of`; `answers` are the references of all splits, by which it is
    decided how a reference is read.
    """
    recipe, preset, train = plan.recipe, plan.preset, plan.recipe.train
    reward, code = recipe.eval.reward, f"the code of reward `{recipe.eval.reward}`"
    judge: list[Any] = []
    if recipe.judge and reward == "judge":
        judge = [recipe.judge.model_dump(), inputs.get("the model that judges")]
    return {
        "format": FORMAT,
        "model": recipe.model.name,
        "weights": weights,
        "reward": [reward, inputs.get(code), _scorer_version(recipe.data.name), *judge],
        "answers": _sha256([recipe.data.answer_kind, sorted(map(str, answers))]),
        "chat_template": inputs["the chat template"],
        "sampling": [train.temperature, train.top_p, train.top_k, train.min_p],
        "repetition_penalty": train.repetition_penalty,
        "lengths": [preset.max_seq_length, preset.max_completion_length],
        "num_samples": preset.num_generations,
        "batch_size": block_size,
        "seed": recipe.seed,
        "backend": [plan.backend, plan.device, plan.dtype, *_weights(preset)],
        "num_threads": plan.num_threads if plan.device == "cpu" else None,
        "versions": _versions(plan),
    }


def _weights(preset: Preset) -> list[bool | str]:
    """How the weights are loaded; in 4 or 16 bits in the words that older results have."""
    return ["fp8"] if preset.weights == "fp8" else [preset.weights == "4bit"]


def _scorer_version(data: str) -> str | None:
    """The version of what judges the problems of reasoning-gym, where the data are such."""
    return packages.version("reasoning-gym") if references.is_gym(data) else None


def _versions(plan: Plan) -> dict[str, str]:
    unused = packages.GPU_PACKAGES if plan.device == "cpu" else ()
    return {name: value for name, value in packages.versions().items() if name not in unused}


def weights_of(plan: Plan, base: Path, commit: str | None) -> str | None:
    """What tells the weights of the model from any others; None where nothing does.

    `base` is the run's own model, after a cold start or with an adapter merged, which is hashed
    like the folder of a local model. `commit` is that of the weights that were loaded.
    """
    folder = base if plan.has_own_base else plan.base_dir / plan.recipe.model.name
    if folder.is_dir():
        return f"sha256 {hub.model_sha256(folder)}"
    return f"commit {commit}" if commit else None


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

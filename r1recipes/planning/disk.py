"""Disk space that a download and a run folder take, and whether it is there, before any weight is
read.

Limits: models of known shape (`architectures`). For any other model nothing is predicted here; the
checkpoints of every model are measured and checked again before training.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r1recipes.errors import PlanError, RunError
from r1recipes.machine import hub
from r1recipes.machine.units import gigabytes
from r1recipes.planning import architectures, models
from r1recipes.planning.models import ModelShape
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references

NUM_CHECKPOINTS = 4
"""Two are kept, one is being written, and the adapter at the end is no larger than one."""
CHECKPOINT_REST_BYTES = 8 * 2**20
"""Tokenizer and trainer state of a checkpoint; assumed, 4 MB for a vocabulary of 150,000."""


@dataclass(frozen=True)
class Need:
    """Bytes that will be written to a folder, which need not exist yet."""

    folder: Path
    size: int
    variable: str | None = None
    """The environment variable that names another folder."""


def needs(plan: Plan, shape: ModelShape | None, runs_dir: Path, *, offline: bool) -> list[Need]:
    """What a run writes, and the part of the weights that it still has to download."""
    in_all = [Need(runs_dir, run_bytes(plan, shape), "R1RECIPES_RUNS_DIR")]
    if shape and not offline and not is_here(plan):
        four_bit = _takes_published(plan)
        cached = downloaded_bytes(plan.base_model.name, four_bit=four_bit)
        size = max(0, models.weights_bytes(shape, "4bit" if four_bit else "16bit") - cached)
        in_all.append(Need(hub.cache(), size, "HF_HUB_CACHE"))
    return in_all


def is_here(plan: Plan) -> bool:
    """Whether the weights are built in, in a local folder, or cached."""
    name = plan.base_model.name
    if name in models.BUILTIN or (plan.base_dir / name).is_dir():
        return True
    return has_model(name, four_bit=_takes_published(plan))


def _takes_published(plan: Plan) -> bool:
    """Whether the published 4-bit weights are loaded. A cold start trains 16-bit weights, an
    adapter is merged into such weights, and those of a given revision are quantised here."""
    return plan.preset.weights == "4bit" and not (plan.recipe.model.revision or plan.has_own_base)


def too_small(planned: Iterable[Need]) -> Iterator[tuple[Need, str]]:
    """Each need that does not fit on its disk beside those before it, with a sentence on it."""
    taken: Counter[int] = Counter()
    for need in planned:
        folder = existing(need.folder)
        device, free = folder.stat().st_dev, shutil.disk_usage(folder).free
        beside = f", {gigabytes(taken[device])} of it for the run" if taken[device] else ""
        if free - taken[device] < need.size:
            shortage = f"needs {gigabytes(need.size)}, its disk has {gigabytes(free)} free{beside}"
            yield need, f"`{need.folder}` {shortage}"
        taken[device] += need.size


def check(*planned: Need) -> None:
    """Raises: RunError(kind="disk") when a disk has less room than is needed on it."""
    for need, sentence in too_small(planned):
        variable = f" with {need.variable}" if need.variable else ""
        hint = f"free some space there, or choose another disk{variable}"
        raise RunError(sentence, kind="disk", hint=hint)


def existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    paths = [folder.absolute(), *folder.absolute().parents]
    return next(path for path in paths if os.path.exists(path))


def run_bytes(plan: Plan, shape: ModelShape | None) -> int:
    """Bytes of the run's own base and of the checkpoints; 0 for an unknown model."""
    if shape is None:
        return 0
    base = 0
    if plan.has_own_base:
        base = models.whole_weight_bytes(plan.base_model.name, plan.dtype) * shape.parameters
        load_in = plan.preset.weights
        base += models.weights_bytes(shape, load_in) if load_in != "16bit" else 0
    targets = tuple(plan.recipe.lora.target_modules)
    trained = models.adapter_parameters(shape, plan.preset.lora_rank, targets)
    return base + NUM_CHECKPOINTS * checkpoint_bytes(trained)


def checkpoint_bytes(num_trained: int) -> int:
    """Bytes of a checkpoint: each trained weight with the optimiser's two moments, all in float32,
    and some MB for the tokenizer."""
    return 12 * num_trained + CHECKPOINT_REST_BYTES


def shape_of(plan: Plan, *, offline: bool) -> ModelShape | None:
    """The model's shape; None when it cannot be found out, which loading the model will explain."""
    model = plan.base_model
    try:
        return architectures.find(
            model.name, plan.base_dir, revision=model.revision, offline=offline
        ).shape
    except PlanError:
        return None


def has_model(name: str, *, four_bit: bool) -> bool:
    """Whether the weights of a model are cached: in 16 bits, or with `four_bit` in NF4."""
    return any(
        any(map(_is_whole, folder.glob("snapshots/*"))) for folder in _cached(name, four_bit)
    )


def downloaded_bytes(name: str, *, four_bit: bool) -> int:
    """Bytes of a model that are cached, including those of a download that was cut off."""
    return max(
        (
            sum(blob.stat().st_size for blob in folder.glob("blobs/*"))
            for folder in _cached(name, four_bit)
        ),
        default=0,
    )


def _cached(name: str, four_bit: bool) -> Iterator[Path]:
    """Cache folders of the repositories that hold a model in that form."""
    shape = models.find(name)
    for folder in hub.cache().glob("models--*"):
        cached = folder.name.removeprefix("models--").replace("--", "/")
        if shape is None or references.is_4bit_name(name):
            if cached == name:
                yield folder
        elif models.find(cached) is shape and _is_form(cached, four_bit):
            yield folder


def _is_form(name: str, four_bit: bool) -> bool:
    """Whether a repository has the form that is loaded; in 4 bits that is not Unsloth's dynamic
    one."""
    if not four_bit:
        return not references.is_4bit_name(name)
    return references.is_4bit_name(name) and not references.is_dynamic_4bit_name(name)


def _is_whole(snapshot: Path) -> bool:
    """Whether a snapshot has all weights; one of a download that was cut off has only some."""
    try:
        index = json.loads((snapshot / "model.safetensors.index.json").read_text())
        return all((snapshot / name).exists() for name in set(index["weight_map"].values()))
    except OSError:  # one file needs no index
        return any(file.exists() for file in snapshot.glob("*.safetensors"))
    except (ValueError, KeyError):
        return False


def has_data(name: str) -> bool:
    """Whether a data set is cached."""
    return (hub.datasets_cache() / name.replace("/", "___")).is_dir()

"""What a process keeps between runs: the loaded base model, and results that the next run shares.

A run gets a fresh adapter, optimizer and trainer on the kept model, and the same random state, so
on a CPU it gives the numbers of a fresh process to the bit. What decides over keeping is the plan
alone, apart from hashes of what was read; nothing is kept that a searched key could change.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from r1recipes.machine import files
from r1recipes.planning.plan import Plan
from r1recipes.training.backends import create
from r1recipes.training.backends.base import Backend


class OtherEngine(Exception):
    """The plan needs another engine than the one that is loaded: begin a fresh process."""


class Warm:
    """Hands the loaded backend and finished stages on from run to run."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self.others_bytes: int | None = None
        """Of the card, in use before the first run."""
        self._engine = ""
        self._results: dict[str, tuple[str, Path]] = {}

    def take(self, plan: Plan, *, offline: bool) -> Backend:
        """The loaded backend, as if just loaded, or a new one. Raises: OtherEngine on a GPU."""
        engine = engine_key(plan)
        if self.backend is not None and engine == self._engine:
            self.backend.reset(plan)
            return self.backend
        if self.backend is not None and plan.device == "cuda":
            raise OtherEngine
        self.backend, self._engine = create(plan, offline=offline), engine
        return self.backend

    def close(self) -> None:
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    def keep(self, what: str, key: str, path: Path) -> None:
        """Remember a file or folder of a run that another run with the same key may share."""
        self._results[what] = (key, path)

    def give(self, what: str, key: str, path: Path) -> Path | None:
        """Put the kept file or folder at `path`, and say where it is from, if there is one."""
        known, kept = self._results.get(what, ("", path))
        if known != key or not kept.exists():
            return None
        with files.draft(path) as draft:
            if kept.is_dir():
                shutil.copytree(kept, draft, copy_function=_link)
            else:
                shutil.copyfile(kept, draft)
        return kept


def _link(source: str, target: str) -> None:
    """Weights are never changed in place, so two runs may share the file."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def engine_key(plan: Plan) -> str:
    """Everything that the loaded base model and its engine depend on."""
    preset, recipe = plan.preset, plan.recipe
    found: dict[str, Any] = {
        "plan": [plan.backend, plan.device, plan.dtype, plan.usable_bytes, plan.num_threads],
        "model": [recipe.model.model_dump(), str(plan.base_dir)],
        "preset": [preset.load_in_4bit, preset.max_seq_length, preset.gpu_memory_utilization],
    }
    if plan.backend == "unsloth":
        lora = recipe.lora.model_dump(exclude={"lora_alpha"})  # layers are patched for this form
        found["engine"] = [preset.standby, plan.max_num_seqs, preset.lora_rank, lora]
    if recipe.model.name.startswith("builtin:") or recipe.cold_start:
        found["base"] = base_key(plan)
    return json.dumps(found, sort_keys=True)


def base_key(plan: Plan) -> str:
    """Everything that the weights after a cold start depend on, apart from what is read."""
    recipe = plan.recipe
    parts = [recipe.model, recipe.cold_start, recipe.data]
    found = [part.model_dump() if part else None for part in parts]
    found += [recipe.prompt.system, recipe.seed, plan.preset.max_seq_length, plan.dtype]
    found += [plan.num_threads, str(plan.base_dir)]
    return json.dumps(found, sort_keys=True)


def evaluation_key(plan: Plan) -> str:
    """Everything that the evaluation of the base model depends on, apart from what is read."""
    train = plan.recipe.train
    found = [engine_key(plan), base_key(plan), plan.recipe.eval.model_dump()]
    found += [train.temperature, train.top_p, train.top_k, train.min_p, train.repetition_penalty]
    found += [plan.preset.max_completion_length]
    return json.dumps(found, sort_keys=True)

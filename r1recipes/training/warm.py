"""What a process keeps between runs: the loaded base model, and results that a later run reuses.

Each run gets a fresh adapter, optimizer and trainer on that model, and the same random state, so on
a CPU its numbers equal those of a fresh process to the bit. Limits: a result is reused only if the
plan, and the hashes of everything else that it depends on, are equal.
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
    """The plan needs another engine than the one that is loaded, and so a fresh process."""


class Warm:
    """Passes the loaded backend and the results of stages on from run to run."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self.others_bytes: int | None = None
        """GPU memory in use before the first run, in bytes."""
        self._engine = ""
        self._results: dict[str, tuple[str, Path]] = {}

    def take(self, plan: Plan, *, offline: bool) -> Backend:
        """The loaded backend, reset, or a new one. Raises: OtherEngine on a GPU."""
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

    def remember(self, name: str, key: str, path: Path) -> None:
        """Let later runs with the same key reuse a file or folder of this run."""
        self._results[name] = (key, path)

    def copy(self, name: str, key: str, path: Path) -> Path | None:
        """Copy the result with this key to `path`, and return its source; None without one."""
        result_key, source = self._results.get(name, ("", path))
        if result_key != key or not source.exists():
            return None
        with files.draft(path) as draft:
            if source.is_dir():
                shutil.copytree(source, draft, copy_function=link)
            else:
                shutil.copyfile(source, draft)
        return source


def link(source: str, target: str) -> None:
    """Copy a file by a hard link: weights are never changed in place, so two runs may share it."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def engine_key(plan: Plan) -> str:
    """Everything that the loaded base model and its engine depend on."""
    preset, recipe = plan.preset, plan.recipe
    parts: dict[str, Any] = {
        "plan": [plan.backend, plan.device, plan.dtype, plan.usable_bytes, plan.num_threads],
        "model": [recipe.model.model_dump(), str(plan.base_dir)],
        "preset": [preset.weights, preset.max_seq_length, preset.gpu_memory_utilization],
    }
    if plan.backend == "unsloth":
        lora = recipe.lora.model_dump(exclude={"lora_alpha"})  # it patches layers for this form
        sizes = [plan.max_num_seqs, preset.lora_rank, preset.kv_cache_dtype]
        parts["engine"] = [preset.standby, *sizes, lora]
        if preset.layers_not_recomputed:  # Unsloth marks them when it adds the adapter
            parts["layers"] = preset.layers_not_recomputed
    if recipe.model.name.startswith("builtin:") or recipe.cold_start:
        parts["base"] = base_key(plan)
    if plan.origin:
        parts["origin"] = plan.origin.sha256
    return json.dumps(parts, sort_keys=True)


def base_key(plan: Plan) -> str:
    """Everything that the weights after a cold start depend on, apart from what is read."""
    recipe = plan.recipe
    sections = [recipe.model, recipe.cold_start]
    parts: list[Any] = [section.model_dump() if section else None for section in sections]
    parts += [recipe.data.model_dump(exclude={"keep"})]  # which chooses what is trained on later
    parts += [recipe.prompt.system, recipe.seed, plan.preset.max_seq_length, plan.dtype]
    parts += [plan.num_threads, str(plan.base_dir)]
    if recipe.prompt.thinking is not None:
        parts += [recipe.prompt.thinking]
    return json.dumps(parts, sort_keys=True)


def evaluation_key(plan: Plan) -> str:
    """Everything that the evaluation of the base model depends on, apart from what is read."""
    train, judge = plan.recipe.train, plan.recipe.judge
    evaluation = plan.recipe.eval.model_dump(exclude={"every"})
    parts: list[Any] = [engine_key(plan), base_key(plan), evaluation]
    parts += [train.temperature, train.top_p, train.top_k, train.min_p, train.repetition_penalty]
    parts += [plan.preset.max_completion_length]
    if judge and plan.recipe.eval.reward == "judge":
        parts += [judge.model_dump()]
    return json.dumps(parts, sort_keys=True)

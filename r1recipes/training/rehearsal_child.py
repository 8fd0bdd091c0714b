"""The worker of a rehearsal: loads random weights, trains a few steps, says what they took.

Runs in a process of its own that `rehearse` starts; torch is imported there alone.
"""

import statistics
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from r1recipes.errors import R1RecipesError, full_disk
from r1recipes.machine import settings
from r1recipes.machine.processes import obey_parent
from r1recipes.machine.units import GIB
from r1recipes.planning import models, out_of_memory
from r1recipes.planning.plan import Plan

PHASES = ("weights", "import", "load", "generate", "first step", "steps")
ONCE = 3
"""Phases that come once; the others come for each batch."""
BATCH = "per_device_train_batch_size"
TIMES = ("generation", "logprobs", "backward")


def phase_index(name: str, number: int) -> int:
    """Where the memory of a phase is noted; the last phases have a place for each batch."""
    index = PHASES.index(name)
    return index if index < ONCE else index + number * (len(PHASES) - ONCE)


def work(
    plan_json: str,
    weights_dir: Path,
    steps: int,
    batches: tuple[int, ...],
    phase: Any,
    results: Connection,
) -> None:
    """Load once, train with each batch, send what each took, or its error, and None at the end."""
    obey_parent()
    plan = Plan.model_validate_json(plan_json)
    memory = _Memory(phase)
    found: dict[str, Any] = {}
    try:
        backend, folder = _load(plan, weights_dir, steps, memory, found)
        for number, batch in enumerate(batches):
            memory.number = number
            loaded, found = found, dict(found)
            _train(backend, plan, batch, folder, memory, found)
            results.send(found | {"torch_gib_by_phase": memory.by_phase()})
            found = loaded
    except Exception as error:  # out of memory, or whatever else: it is the result
        traceback.print_exc()
        text = out_of_memory.telling_line(str(error))
        found |= {"error": f"{type(error).__name__}: {text}", "failed_in": memory.name}
        if isinstance(error, R1RecipesError) and (hint := error.problems[0].hint):
            found["hint"] = hint
        results.send(found | {"torch_gib_by_phase": memory.by_phase()})
    results.send(None)


class _Memory:
    """Tells the holder which phase it is, and reads torch's own peaks by phase."""

    def __init__(self, phase: Any):
        self._phase = phase
        self.name = PHASES[0]
        self.number = 0
        self._peaks: dict[str, tuple[float, float]] = {}

    def enter(self, name: str) -> None:
        torch = sys.modules.get("torch")  # which Unsloth is to import, not this
        if torch and torch.cuda.is_initialized():
            self._note()
            torch.cuda.reset_peak_memory_stats()
        self.name = name
        self._phase.value = phase_index(name, self.number)

    def _note(self) -> None:
        import torch

        peak = (torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB)
        before = self._peaks.get(self.name, (0.0, 0.0))
        self._peaks[self.name] = (max(peak[0], before[0]), max(peak[1], before[1]))

    def by_phase(self) -> dict[str, list[float]]:
        """Phase -> [allocated, reserved]."""
        self._note()
        found = {name: [round(n, 3) for n in peak] for name, peak in self._peaks.items()}
        for name in PHASES[ONCE:]:
            self._peaks.pop(name, None)
        return found


def _load(plan: Plan, weights_dir: Path, steps: int, memory: _Memory, found: dict[str, Any]) -> Any:
    from r1recipes.training.backends import create, prepare_environment

    folder = _weights_folder(plan, weights_dir)
    memory.enter("import")
    began = time.monotonic()
    changed = {"max_steps": steps, "save_steps": 10**6, "lr_scheduler_type": "linear"}
    recipe = plan.recipe.model_copy(
        update={
            "model": plan.recipe.model.model_copy(update={"name": str(folder), "revision": None}),
            "rewards": {"noise": 1.0},
            "train": plan.recipe.train.model_copy(update=changed),
        }
    )
    local = plan.model_copy(update={"recipe": recipe})
    prepare_environment(local, settings.load().cache_dir)
    backend = create(local, offline=True)
    found["import_s"] = round(time.monotonic() - began, 1)
    memory.enter("weights")  # only now: as in a run, nothing is imported before Unsloth
    _write_weights(plan, folder)
    memory.enter("load")
    began = time.monotonic()
    backend.load(None, None)
    found["load_s"] = round(time.monotonic() - began, 1)
    found |= _engine(backend.model)
    return backend, folder


def _engine(model: Any) -> dict[str, Any]:
    """How the model's engine sized itself (vllm 0.26.0, v1/worker/gpu_worker.py)."""
    import torch

    engine = model.vllm_engine
    config = engine.llm_engine.vllm_config
    free, total = torch.cuda.mem_get_info()
    found = {
        "kv_tokens": config.cache_config.num_gpu_blocks * config.cache_config.block_size,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "free_after_load_gib": round(free / GIB, 3),
    }
    core = getattr(engine.llm_engine.engine_core, "engine_core", None)
    worker = getattr(getattr(core, "model_executor", None), "driver_worker", None)
    worker = getattr(worker, "worker", worker)
    runner = getattr(worker, "model_runner", None)
    for name, owner, attribute in (
        ("weights_gib", runner, "model_memory_usage"),
        ("profile_gib", worker, "peak_activation_memory"),
        ("non_torch_gib", worker, "non_torch_memory"),
        ("requested_gib", worker, "requested_memory"),
    ):
        if isinstance(value := getattr(owner, attribute, None), int | float):
            found[name] = round(value / GIB, 3)
    return found


def _train(
    backend: Any, plan: Plan, batch: int, folder: Path, memory: _Memory, found: dict[str, Any]
) -> None:
    from r1recipes.training.backends.base import Hooks

    accumulation = plan.completions_per_step // batch
    backend.plan = backend.plan.model_copy(
        update={BATCH: batch, "gradient_accumulation_steps": accumulation}
    )
    steps: list[dict[str, Any]] = []

    def on_step(row: dict[str, Any], samples: list) -> None:
        steps.append(row)

    hooks = Hooks(lambda done, total: None, on_step, lambda folder: None, lambda: False)
    memory.enter("generate")
    # At its end a trainer saves a checkpoint; others may train on these weights meanwhile.
    with _phases(memory, steps), TemporaryDirectory(dir=folder) as output_dir:
        rows = _rows(plan, backend.tokenizer())
        backend.train(rows, {"noise": _noise_reward()}, Path(output_dir), None, hooks)
    rest = steps[1:] or steps
    step_s = statistics.median(row["time/step_s"] for row in rest)
    generation_s = statistics.median(row["time/generation_s"] for row in rest)
    tokens = plan.completions_per_step * plan.preset.max_completion_length
    found |= {
        "first_step_s": round(steps[0]["time/step_s"], 1),
        "step_s": round(step_s, 2),
        **{
            f"{name}_s": round(statistics.median(row[f"time/{name}_s"] for row in rest), 2)
            for name in TIMES
        },
        "steps": len(steps),
        "mean_length": steps[-1]["completions/mean_length"],
        "completions_per_step": plan.completions_per_step,
        "completions_per_hour": round(3600 * plan.completions_per_step / step_s),
        "tokens_per_s": round(tokens / generation_s),
    }
    found["projected_run_s"] = _projected(plan, found)


def _projected(plan: Plan, found: dict[str, Any]) -> int:
    """Seconds of the whole run if every completion runs to its limit, so at most."""
    recipe = plan.recipe
    sampled = 2 * recipe.data.eval_size * (recipe.eval.samples + 1)
    evaluation_s = sampled * plan.preset.max_completion_length / found["tokens_per_s"]
    start_s = found["import_s"] + found["load_s"] + found["first_step_s"]
    return round(start_s + (recipe.train.max_steps - 1) * found["step_s"] + evaluation_s)


class _phases:
    """Within it, a GRPOTrainer tells `memory` when it generates and when it trains."""

    def __init__(self, memory: _Memory, steps: list):
        self._memory, self._steps = memory, steps

    def __enter__(self) -> None:
        from trl import GRPOTrainer

        self._generate = generate = GRPOTrainer._generate
        memory, steps = self._memory, self._steps

        def told(*arguments: Any, **options: Any) -> Any:
            memory.enter("generate")
            made = generate(*arguments, **options)  # an error is one of this phase
            memory.enter("steps" if steps else "first step")
            return made

        GRPOTrainer._generate = told

    def __exit__(self, *error: object) -> None:
        from trl import GRPOTrainer

        GRPOTrainer._generate = self._generate


def _weights_folder(plan: Plan, weights_dir: Path) -> Path:
    """Where the random checkpoint is; made once and kept for the next case."""
    shape = models.find(plan.recipe.model.name)
    name = next(name for name, known in models.MODELS.items() if known is shape)
    return weights_dir / f"{name}-{'nf4' if plan.preset.load_in_4bit else plan.dtype}"


def _write_weights(plan: Plan, folder: Path) -> None:
    import torch

    from r1recipes.machine import files
    from r1recipes.training.backends import random_weights

    if folder.exists():
        return
    shape, four_bit = models.find(plan.recipe.model.name), plan.preset.load_in_4bit
    assert shape is not None
    # The published 4-bit checkpoints are bfloat16 beside NF4, whatever the card computes in.
    dtype = getattr(torch, "bfloat16" if four_bit else plan.dtype)
    files.clear_drafts(folder.parent, ".*.[0-9]*")
    hint = "set R1RECIPES_CACHE_DIR to another folder"
    with full_disk(folder.parent, hint), files.draft(folder, taken="keep") as draft:
        random_weights.write(shape, draft, four_bit=four_bit, dtype=dtype)
    torch.cuda.empty_cache()


def _rows(plan: Plan, tokenizer: Any) -> Any:
    """Prompts of exactly the length that the preset allows; a character is a token here."""
    from datasets import Dataset

    empty = tokenizer.apply_chat_template(
        [{"role": "user", "content": ""}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"]
    count = plan.max_prompt_length - len(empty)
    prompts = [f"{n:04}" + "a" * (count - 4) for n in range(4 * plan.preset.prompts_per_step)]
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": text}], "answer": "0"} for text in prompts]
    )


def _noise_reward() -> Any:
    """Pays each completion something else, so that every group has a gradient."""
    from r1recipes.rewards.reward import Reward

    def noise(prompts: list, completions: list, **columns: Any) -> list[float]:
        return [(hash((n, str(c))) % 1000) / 1000 for n, c in enumerate(completions)]

    return Reward("noise", noise)

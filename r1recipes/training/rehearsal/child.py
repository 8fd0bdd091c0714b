"""The worker of a rehearsal: loads random weights, trains a few steps, and sends measurements.

Limits: it runs in its own process, which `driver` starts. torch is imported there and in the
process that holds the card's memory, not in the one that asked for the rehearsal.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from r1recipes.errors import R1RecipesError, RecipeError, full_disk
from r1recipes.machine import settings
from r1recipes.machine.units import GIB
from r1recipes.planning import models, out_of_memory
from r1recipes.planning.architectures import Checkpoint, Unreachable, find
from r1recipes.planning.plan import Plan
from r1recipes.planning.speed.lengths import Lengths
from r1recipes.runs.reading import Row
from r1recipes.training.backends.base import Backend, Hooks, Phase
from r1recipes.training.backends.child import Send
from r1recipes.training.rehearsal.drawn import Drawn

if TYPE_CHECKING:
    import datasets

    from r1recipes.rewards import Reward

REHEARSED = ("weights", "import", "load", "generate", "first step", "steps")
"""The phases of a rehearsal, in their order."""
ONCE = 3
"""Number of phases at the start that occur once; the others occur once for each batch."""
BATCH = "per_device_train_batch_size"
TIMES = ("generation", "logprobs", "backward")
"""Parts of a step whose times are measured."""


class SharedInt(Protocol):
    """A multiprocessing.Value of an int."""

    value: int


def phase_index(name: str, number: int) -> int:
    """The number under which the memory of a phase is recorded, for the batch `number`."""
    index = REHEARSED.index(name)
    return index if index < ONCE else index + number * (len(REHEARSED) - ONCE)


def work(
    plan_json: str,
    weights_dir: Path,
    steps: int,
    batches: tuple[int, ...],
    lengths: Lengths | None,
    phase: SharedInt,
    send: Send,
) -> None:
    """Load once and train with each batch. Sends the measurements of each batch, or its error.

    Each batch is trained at full length and then, if `lengths` are given, with lengths drawn from
    them; those steps have numbers of their own for the memory, and no part in the peaks.
    """
    plan = Plan.model_validate_json(plan_json)
    memory = _Memory(phase)
    result: dict[str, Any] = {}
    try:
        folder = _weights_folder(plan, weights_dir)
        rehearsed = _rehearsed(plan, folder, steps)
        backend = _load(plan, rehearsed, folder, memory, result)
        for number, batch in enumerate(batches):
            memory.number = number
            loaded, result = result, dict(result)
            train = partial(_train, backend, rehearsed, batch, folder, memory)
            result |= _measured(plan, train(), plan.preset.max_completion_length)
            result["projected_run_s"] = _projected(plan, result, plan.preset.max_completion_length)
            result["torch_gib_by_phase"] = memory.by_phase()
            if lengths:
                memory.number = len(batches) + number
                result["real"] = _with_lengths(plan, lengths, train, result)
                memory.by_phase()
            send(result)
            result = loaded
    except Exception as error:  # out of memory or anything else: it is the result
        result |= {"error": _failure(error), "failed_in": memory.name}
        if isinstance(error, R1RecipesError) and (hint := error.problems[0].hint):
            result["hint"] = hint
        send(result | {"torch_gib_by_phase": memory.by_phase()})


def _failure(error: Exception) -> str:
    """The line of a proof on an error, whose traceback goes to the log."""
    traceback.print_exc()
    return f"{type(error).__name__}: {out_of_memory.telling_line(str(error))}"


class _Memory:
    """Tells the holder the current phase, and records torch's own peaks of each phase."""

    def __init__(self, phase: SharedInt):
        self._phase = phase
        self.name = REHEARSED[0]
        self.number = 0
        """Number of the batch that is trained."""
        self._peaks: dict[str, tuple[float, float]] = {}

    def enter(self, name: str) -> None:
        """Begin a phase."""
        torch = sys.modules.get("torch")  # not imported here: Unsloth must import it
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
        """Phase -> [allocated, reserved] GiB; the next batch has its own."""
        self._note()
        peaks = {name: [round(n, 3) for n in peak] for name, peak in self._peaks.items()}
        for name in REHEARSED[ONCE:]:
            self._peaks.pop(name, None)
        return peaks


def _rehearsed(plan: Plan, folder: Path, steps: int) -> Plan:
    """The plan with the random weights in `folder`, fewer steps, and no checkpoint among them."""
    train = {"max_steps": steps, "save_steps": 10**6, "lr_scheduler_type": "linear"}
    model = {"name": str(folder), "revision": None}
    recipe = plan.recipe.model_copy(
        update={
            "model": plan.recipe.model.model_copy(update=model),
            "rewards": {"noise": 1.0},
            "train": plan.recipe.train.model_copy(update=train),
        }
    )
    return plan.model_copy(update={"recipe": recipe})


def _load(
    plan: Plan, rehearsed: Plan, folder: Path, memory: _Memory, result: dict[str, Any]
) -> Backend:
    """Load the model. Adds times and sizes to `result`, also where a later part fails."""
    from r1recipes.training.backends import create, prepare_environment
    from r1recipes.training.backends.unsloth import environment, sampling

    memory.enter("import")
    began = time.monotonic()
    prepare_environment(rehearsed, settings.load().cache_dir)
    backend = create(rehearsed, offline=True)
    result["import_s"] = round(time.monotonic() - began, 1)
    memory.enter("weights")  # not earlier: as in a run, nothing may be imported before Unsloth
    _write_weights(plan, folder)
    memory.enter("load")
    began = time.monotonic()
    backend.load(None, None)
    result["load_s"] = round(time.monotonic() - began, 1)
    result |= backend.facts()
    result["rollouts"] = "ids" if sampling.ids_alone() else "all"
    if levers := environment.levers():
        result["levers"] = levers
    return backend


def _with_lengths(
    plan: Plan, lengths: Lengths, train: Callable[[Drawn], list[Row]], full: dict[str, Any]
) -> dict[str, Any]:
    """Times and speeds with lengths that are drawn; `full` has those at full length.

    An error is a part of the result: what was measured at full length stays.
    """
    drawn = Drawn(lengths, plan)
    try:
        steps = train(drawn)
        mean = drawn.check(steps)
    except Exception as error:  # as in `work`, which goes on with what it has at full length
        return {"lengths": lengths.name, "error": _failure(error)}
    result = {"lengths": lengths.name} | _measured(plan, steps, mean)
    result["mean_length"] = round(mean, 1)
    result["max_length"] = max(row["completions/max_length"] for row in steps)
    result["projected_run_s"] = _projected(plan, full | result, mean)
    return result


def _train(
    backend: Backend,
    rehearsed: Plan,
    batch: int,
    folder: Path,
    memory: _Memory,
    drawn: Drawn | None = None,
) -> list[Row]:
    """Train with this batch, at full length or with drawn lengths; the metrics of each step."""
    passes = rehearsed.completions_per_step // batch
    plan = rehearsed.model_copy(update={BATCH: batch, "gradient_accumulation_steps": passes})
    steps: list[Row] = []

    def on_step(row: Row, samples: list[dict[str, Any]]) -> None:
        steps.append(row)

    def on_phase(phase: Phase) -> None:
        memory.enter("generate" if phase == "generate" else "steps" if steps else "first step")

    memory.enter("generate")
    # A trainer saves a checkpoint at its end; other processes may be using these weights.
    with TemporaryDirectory(dir=folder) as output_dir:
        rows = _rows(plan, backend.tokenizer(), drawn)
        lengths = drawn.completions if drawn else None
        hooks = Hooks(on_step=on_step, on_phase=on_phase, lengths=lengths)
        rewards = {"noise": _noise_reward()}
        backend.train(rows, rewards, Path(output_dir), None, hooks, plan=plan)
    return steps


def _measured(plan: Plan, steps: list[Row], length: float) -> dict[str, Any]:
    """Times and speeds of the steps, whose completions have `length` tokens on average; medians
    leave out the first step where there are others."""
    rest = steps[1:] or steps
    step_s = statistics.median(row["time/step_s"] for row in rest)
    generation_s = statistics.median(row["time/generation_s"] for row in rest)
    tokens = plan.completions_per_step * length
    return {
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


def _projected(plan: Plan, result: dict[str, Any], length: float) -> int:
    """Seconds of the whole run with completions of this length; at most, with the greatest."""
    recipe = plan.recipe
    sampled = 2 * recipe.data.eval_size * (recipe.eval.samples + 1)
    if recipe.eval.every and plan.eval_problems:
        sampled += (recipe.train.max_steps - 1) // recipe.eval.every * plan.eval_problems
    evaluation_s = sampled * length / result["tokens_per_s"]
    start_s = result["import_s"] + result["load_s"] + result["first_step_s"]
    return round(start_s + (recipe.train.max_steps - 1) * result["step_s"] + evaluation_s)


def checkpoint_of(plan: Plan) -> Checkpoint:
    """What is rehearsed: the shape of the plan's model and, where it has one, its config.json.

    Raises: RecipeError where neither the catalogue nor a config.json on this machine has it.
    """
    model, known = plan.base_model, "rehearse a recipe of one of: " + ", ".join(models.MODELS)
    if model.name in models.BUILTIN:
        raise RecipeError(f"the shape of `{model.name}` is not in the catalogue", hint=known)
    try:
        return find(model.name, plan.base_dir, revision=model.revision, offline=True)
    except Unreachable as error:
        message = f"the shape of `{model.name}` is not in the catalogue: {error}"
        hint = f"name a local folder with its config.json, or {known}"
        raise RecipeError(message, hint=hint) from error


def _weights_folder(plan: Plan, weights_dir: Path) -> Path:
    """The folder of the random weights; it is made once and used again by later rehearsals."""
    checkpoint = checkpoint_of(plan)
    shape, config = checkpoint.shape, checkpoint.config
    if config is None:
        name = next(name for name, other in models.MODELS.items() if other is shape)
    else:
        text = json.dumps(config, sort_keys=True)
        name = f"{shape.family}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    form = {"4bit": "nf4", "fp8": "fp8", "16bit": plan.dtype}[plan.preset.weights]
    return weights_dir / f"{name}-{form}"


def _write_weights(plan: Plan, folder: Path) -> None:
    import torch

    from r1recipes.machine import OTHER_CACHE, files
    from r1recipes.training.backends.unsloth import random_weights

    if folder.exists():
        return
    checkpoint, load_in = checkpoint_of(plan), plan.preset.weights
    # Published 4-bit checkpoints have their other weights in bfloat16, whatever the card uses.
    dtype = getattr(torch, "bfloat16" if load_in == "4bit" else plan.dtype)
    files.clear_drafts(folder.parent, files.OLDER_DRAFTS)
    with full_disk(folder.parent, OTHER_CACHE), files.draft(folder, taken="keep") as draft:
        random_weights.write(
            checkpoint.shape, draft, load_in=load_in, dtype=dtype, config=checkpoint.config
        )
    torch.cuda.empty_cache()


def _rows(plan: Plan, tokenizer: Any, drawn: Drawn | None) -> datasets.Dataset:
    """Prompts of the length that the preset allows, or of drawn lengths; a character is a token."""
    from datasets import Dataset

    empty = tokenizer.apply_chat_template(
        [{"role": "user", "content": ""}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"]
    limit, number = plan.max_prompt_length, 4 * plan.preset.prompts_per_step
    lengths = drawn.prompts(number, len(empty) + 4, limit) if drawn else [limit] * number
    prompts = [f"{n:04}" + "a" * (count - len(empty) - 4) for n, count in enumerate(lengths)]
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": text}], "answer": "0"} for text in prompts]
    )


def _noise_reward() -> Reward:
    """A reward that differs between completions, so that every group has a gradient."""
    from r1recipes.rewards import Reward

    def noise(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        return [(hash((n, str(c))) % 1000) / 1000 for n, c in enumerate(completions)]

    return Reward("noise", noise)

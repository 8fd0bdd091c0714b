"""The recipe at full length on random weights of the same shape: real peak and step time.

A process holds the part of the card that is not asked for, so that a big card stands for a small
one, and reads every few milliseconds how much is left; another one (`rehearsal`) loads the model
and trains. Out of memory is a result. What a held card does not show of a small one: its speed, its
kernels and the size of its CUDA context.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from r1recipes.algorithms.base import divisors
from r1recipes.errors import PlanError, RecipeError, RunError
from r1recipes.machine import files, gpu, packages
from r1recipes.machine.processes import obey_parent
from r1recipes.machine.units import GIB
from r1recipes.planning import models, out_of_memory
from r1recipes.planning.plan import Plan
from r1recipes.training import rehearsal_child

SAMPLE_S = 0.005
PHASES = ("generate", "first step", "steps")


def rehearse(
    plan: Plan,
    *,
    weights_dir: Path,
    vram_bytes: int | None,
    steps: int,
    batches: tuple[int, ...] = (),
) -> list[dict[str, Any]]:
    """Train `steps` steps as the plan says and return the proof, in a list.

    Every completion runs to max_completion_length and every prompt has all the tokens it may have.
    `vram_bytes`: memory that is left on the card, None for all of it. `batches`: other values of
    per_device_train_batch_size to try with the same engine, ascending, each with a proof of its
    own. A case that runs out of memory returns with `error` and is the last. Raises: RecipeError if
    the model's shape is not known.
    """
    batches = batches or (plan.per_device_train_batch_size,)
    _refuse_what_cannot_be_rehearsed(plan, batches)
    card = gpu.take()  # also for the processes that begin here
    context = multiprocessing.get_context("spawn")
    phase, stop = context.Value("i", 0), context.Event()
    here, there = context.Pipe()
    holder = context.Process(target=_hold, args=(vram_bytes, phase, stop, there))
    holder.start()
    there.close()  # or a holder that dies would be waited for
    try:
        card_memory = _received(here)
        if isinstance(card_memory, str):
            raise PlanError(
                card_memory, hint="`python -m r1recipes doctor` says what is in the way"
            )
        began = time.monotonic()
        results = _work(context, plan, weights_dir, steps, batches, phase)
        stop.set()
        lowest = _received(here)
    finally:
        stop.set()
        holder.join()
    free_bytes, total_bytes = card_memory
    used = {number: free_bytes - low for number, low in lowest.items()}
    common = {
        "recipe_model": plan.recipe.model.name,
        "preset": plan.preset_name,
        "target_modules": list(plan.recipe.lora.target_modules),
        "predicted_gib": plan.predicted and round(plan.predicted.peak_bytes / GIB, 2),
        "vram_gib": round(free_bytes / GIB, 2),
        "total_gib": round(total_bytes / GIB, 2),
        "wall_s": round(time.monotonic() - began, 1),
        "card": card.name if card else None,
        "driver": card.driver if card else None,
        "versions": packages.versions(),
        "date": files.now(),
    }
    return [
        found
        | _oom(plan, batch, found)
        | _peaks(used, number)
        | {"settings": _settings(plan, batch)}
        | common
        for number, (batch, found) in enumerate(zip(batches, results, strict=False))
    ]


def _refuse_what_cannot_be_rehearsed(plan: Plan, batches: tuple[int, ...]) -> None:
    if models.find(plan.recipe.model.name) is None:
        raise RecipeError(
            f"the shape of `{plan.recipe.model.name}` is not in the catalogue",
            hint="rehearse a recipe of one of: " + ", ".join(models.MODELS),
        )
    if plan.backend != "unsloth":
        raise PlanError("a rehearsal needs Unsloth and vLLM", hint="`pip install -e '.[gpu]'`")
    for batch in batches:
        if batch < 1 or plan.completions_per_step % batch:
            raise RecipeError(
                f"{plan.completions_per_step} completions a step do not divide into batches of "
                f"{batch}",
                hint="they do into "
                + ", ".join(map(str, sorted(divisors(plan.completions_per_step)))),
            )


def _received(pipe: Connection) -> Any:
    """What the holder sends. Raises: RunError when it died."""
    try:
        return pipe.recv()
    except EOFError:
        message = "the process that holds the rest of the card died; what it said stands above"
        raise RunError(message, hint="`python -m r1recipes doctor`") from None


def _oom(plan: Plan, batch: int, found: dict[str, Any]) -> dict[str, str]:
    """The kind of an out-of-memory error and a change that answers it; nothing without one."""
    if not out_of_memory.is_out_of_memory(found.get("error", "")):
        return {}
    tried = plan.model_copy(update={rehearsal_child.BATCH: batch})
    phase = found["failed_in"] if found["failed_in"] in PHASES else "load"
    return vars(out_of_memory.explain(found["error"], phase, tried))


def _settings(plan: Plan, batch: int) -> dict[str, Any]:
    """The preset as it was tried; a batch that is the preset's own stays as it is written."""
    given = plan.preset.model_dump()
    return (
        given
        if batch == plan.per_device_train_batch_size
        else given | {rehearsal_child.BATCH: batch}
    )


def _peaks(used: dict[int, int], number: int) -> dict[str, Any]:
    """Most memory of the card by phase, for one of the batches."""
    by_phase = {
        name: used[index]
        for name in rehearsal_child.PHASES
        if (index := rehearsal_child.phase_index(name, number)) in used
    }
    counted = [size for name, size in by_phase.items() if name not in ("weights", "import")]
    return {
        "peak_gib": round(max(counted, default=0) / GIB, 2),
        "peak_gib_by_phase": {name: round(size / GIB, 3) for name, size in by_phase.items()},
        "context_gib": round(by_phase.get("import", 0) / GIB, 3),
    }


def _work(context: Any, plan: Plan, weights_dir: Path, steps: int, batches: Any, phase: Any) -> Any:
    """What the worker measured, for each batch until one failed."""
    receive, send = context.Pipe(duplex=False)
    arguments = (plan.model_dump_json(), weights_dir, steps, batches, phase, send)
    worker = context.Process(target=rehearsal_child.work, args=arguments)
    worker.start()
    send.close()
    results = []
    try:
        while (found := receive.recv()) is not None:
            results.append(found)
    except EOFError:
        worker.join()
        results.append({"error": f"the process died, exit code {worker.exitcode}"})
    except BaseException:  # Ctrl-C
        worker.kill()
        raise
    finally:
        worker.join()
        files.clear_drafts(weights_dir)  # of weights that it was writing
    return results


def _hold(vram_bytes: int | None, phase: Any, stop: Any, pipe: Connection) -> None:
    """Take all but `vram_bytes` of the card, then note the least that was free in each phase."""
    obey_parent()
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # a build without CUDA, a driver too old, a card that is full
        pipe.send(f"torch cannot use the card: {out_of_memory.telling_line(str(error))}")
        return
    held = []
    if vram_bytes is not None:
        free, _ = torch.cuda.mem_get_info()
        if free < vram_bytes:
            pipe.send(
                f"{free / GIB:.1f} GiB of the card are free, {vram_bytes / GIB:.1f} asked for"
            )
            return
        held.append(torch.empty(free - vram_bytes, dtype=torch.uint8, device="cuda"))
    pipe.send(torch.cuda.mem_get_info())
    lowest: dict[int, int] = {}
    while not stop.is_set():
        free, now = torch.cuda.mem_get_info()[0], phase.value
        lowest[now] = min(lowest.get(now, free), free)
        time.sleep(SAMPLE_S)
    pipe.send(lowest)

"""A rehearsal: trains a recipe at full length on random weights, and measures memory and speed.

One process, the holder, occupies the part of the card that the run may not use, so that a large
card stands for a small one, and reads every few milliseconds how much memory is free. Another
process (`child`) loads the model and trains. Running out of memory is a result like any
other. Limits: a large card that is partly occupied does not have the speed, the kernels or the size
of the CUDA context of the small one.
"""

import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from r1recipes.algorithms.step import divisors
from r1recipes.errors import PlanError, RecipeError, RunError, unwritable
from r1recipes.machine import OTHER_CACHE, files, gpu, packages
from r1recipes.machine.processes import obey_parent
from r1recipes.machine.units import GIB
from r1recipes.planning import auto, out_of_memory
from r1recipes.planning.memory import predict
from r1recipes.planning.plan import Plan
from r1recipes.planning.speed.lengths import Lengths
from r1recipes.training.backends.child import ChildFailed, run_in_child
from r1recipes.training.rehearsal import child

SAMPLE_S = 0.005
"""Seconds between two readings of the free memory; assumed."""
EXPLAINED_PHASES: tuple[out_of_memory.Phase, ...] = ("generate", "first step", "steps")
"""Phases whose out-of-memory errors are explained as such; all others count as loading."""


def rehearse(
    plan: Plan,
    *,
    weights_dir: Path,
    vram_bytes: int | None,
    steps: int,
    batches: tuple[int, ...] = (),
    lengths: Lengths | None = None,
) -> list[dict[str, Any]]:
    """Train `steps` steps as the plan says, and return a list with the proof.

    Every prompt and every completion has the greatest length that the preset allows. With `lengths`
    as many steps follow whose lengths are drawn from them; their times are under `real`.
    `vram_bytes`: memory of the card that may be used, None for all of it. `batches`: other values
    of per_device_train_batch_size to try with the same engine, ascending, with one proof for each.
    The proof of a batch that runs out of memory has an `error`, and is the last one.
    Raises: RecipeError when the model's shape is not known, or a batch does not divide a step;
    PlanError without Unsloth or a card that torch can use.
    """
    batches = batches or (plan.per_device_train_batch_size,)
    _refuse_what_cannot_be_rehearsed(plan, batches)
    card = gpu.take()  # the processes that are started here get the same one
    context = multiprocessing.get_context("spawn")
    phase, stop = context.Value("i", 0), context.Event()
    receive, send = context.Pipe(duplex=False)
    holder = context.Process(target=_hold, args=(vram_bytes, phase, stop, send))
    holder.start()
    send.close()  # or the death of the holder would not end the wait for it
    try:
        occupied = _receive(receive)
        if isinstance(occupied, str):
            raise PlanError(occupied, hint="`python -m r1recipes doctor` shows what is wrong")
        began = time.monotonic()
        results = _work(plan, weights_dir, steps, batches, lengths, phase)
        stop.set()
        lowest: dict[int, int] = _receive(receive)
    finally:
        stop.set()
        holder.join()
    free_bytes, total_bytes = occupied
    used = {index: free_bytes - low for index, low in lowest.items()}
    common = _common(plan, free_bytes, total_bytes, time.monotonic() - began, card)
    return [
        result
        | _oom(plan, batch, result)
        | _peaks(used, number)
        | {"settings": _settings(plan, batch), "predicted_gib": _predicted_gib(plan, batch)}
        | common
        for number, (batch, result) in enumerate(zip(batches, results, strict=False))
    ]


def _common(
    plan: Plan, free_bytes: int, total_bytes: int, wall_s: float, card: gpu.Gpu | None
) -> dict[str, Any]:
    """The part of a proof that does not depend on the batch."""
    return {
        "recipe_model": plan.recipe.model.name,
        "preset": plan.preset_name,
        "target_modules": list(plan.recipe.lora.target_modules),
        "vram_gib": round(free_bytes / GIB, 2),
        "total_gib": round(total_bytes / GIB, 2),
        "wall_s": round(wall_s, 1),
        "card": card.name if card else None,
        "driver": card.driver if card else None,
        "versions": packages.versions(),
        "date": files.now(),
    }


def _refuse_what_cannot_be_rehearsed(plan: Plan, batches: tuple[int, ...]) -> None:
    child.checkpoint_of(plan)
    if not plan.algorithm.samples:
        raise PlanError(
            f"{plan.algorithm.title} cannot be rehearsed: its steps generate no completions, whose "
            "memory and speed a rehearsal measures",
            hint="`r1recipes plan` predicts its memory; `--set train.max_steps=5` tries it",
        )
    if plan.backend != "unsloth":
        raise PlanError("a rehearsal needs Unsloth and vLLM", hint="`pip install -e '.[gpu]'`")
    for batch in batches:
        if batch < 1 or plan.completions_per_step % batch:
            raise RecipeError(
                f"{plan.completions_per_step} completions a step do not divide into batches of "
                f"{batch}",
                hint="possible sizes: "
                + ", ".join(map(str, sorted(divisors(plan.completions_per_step)))),
            )


def _receive(pipe: Connection) -> Any:
    """The next message of the holder. Raises: RunError when the holder died."""
    try:
        return pipe.recv()
    except EOFError:
        message = "the process that occupies the rest of the card died; its output is above"
        raise RunError(message, hint="`python -m r1recipes doctor`") from None


def _oom(plan: Plan, batch: int, result: dict[str, Any]) -> dict[str, str]:
    """The kind of an out-of-memory error and a change that may avoid it; empty without one."""
    if not out_of_memory.is_out_of_memory(result.get("error", "")):
        return {}
    tried = plan.model_copy(update={child.BATCH: batch})
    explained = (phase for phase in EXPLAINED_PHASES if phase == result["failed_in"])
    phase: out_of_memory.Phase = next(explained, "load")
    return vars(out_of_memory.explain(result["error"], phase, tried))


def _predicted_gib(plan: Plan, batch: int) -> float | None:
    """The peak that is predicted for the pass that was measured; None without a prediction."""
    usable = plan.usable_bytes
    if plan.predicted is None or usable is None:
        return None
    shape = child.checkpoint_of(plan).shape
    tried = plan.preset.model_copy(update={child.BATCH: batch})
    case = auto.case_of(plan.recipe, tried, shape, usable)
    expected = predict.expected_bytes(predict.predict(case), case, plan.predicted.available_bytes)
    return round(max(expected.values()) / GIB, 2)


def _settings(plan: Plan, batch: int) -> dict[str, Any]:
    """The preset as it was tried, with the batch size in it unless that is the plan's own."""
    settings = plan.preset.model_dump()
    if batch == plan.per_device_train_batch_size:
        return settings
    return settings | {child.BATCH: batch}


def _peaks(used: dict[int, int], number: int) -> dict[str, Any]:
    """The most memory in use in each phase, for one of the batches."""
    by_phase = {
        name: used[index]
        for name in child.REHEARSED
        if (index := child.phase_index(name, number)) in used
    }
    counted = [size for name, size in by_phase.items() if name not in ("weights", "import")]
    return {
        "peak_gib": round(max(counted, default=0) / GIB, 2),
        "peak_gib_by_phase": {name: round(size / GIB, 3) for name, size in by_phase.items()},
        "context_gib": round(by_phase.get("import", 0) / GIB, 3),
    }


def _work(
    plan: Plan,
    weights_dir: Path,
    steps: int,
    batches: tuple[int, ...],
    lengths: Lengths | None,
    phase: child.SharedInt,
) -> list[dict[str, Any]]:
    """The measurements of the worker for each batch, up to the first that failed."""
    results: list[dict[str, Any]] = []
    arguments = (plan.model_dump_json(), weights_dir, steps, batches, lengths, phase)
    try:
        run_in_child(child.work, *arguments, on_message=results.append)
    except ChildFailed as failed:
        results.append({"error": str(failed)})
    finally:
        files.clear_drafts(weights_dir)  # half-written weights
    return results


def _hold(vram_bytes: int | None, phase: child.SharedInt, stop: Event, pipe: Connection) -> None:
    """Occupy all but `vram_bytes` of the card, and record the least free memory of each phase.

    Sends (free, total) bytes or an error message, and when `stop` is set phase -> least free bytes.
    """
    obey_parent()
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:  # a build without CUDA, an old driver, a full card
        pipe.send(f"torch cannot use the card: {out_of_memory.telling_line(str(error))}")
        return
    occupied = []
    if vram_bytes is not None:
        free, _ = torch.cuda.mem_get_info()
        if free < vram_bytes:
            pipe.send(
                f"{free / GIB:.1f} GiB of the card are free, and {vram_bytes / GIB:.1f} were "
                "asked for"
            )
            return
        occupied.append(torch.empty(free - vram_bytes, dtype=torch.uint8, device="cuda"))
    pipe.send(torch.cuda.mem_get_info())
    lowest: dict[int, int] = {}
    while not stop.is_set():
        free, now = torch.cuda.mem_get_info()[0], phase.value
        lowest[now] = min(lowest.get(now, free), free)
        time.sleep(SAMPLE_S)
    pipe.send(lowest)


def weights_dir(cache_dir: Path) -> Path:
    """The folder of random weights, made if it is not there. Raises: RunError."""
    folder = cache_dir / "random-weights"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, OTHER_CACHE) from error
    return folder

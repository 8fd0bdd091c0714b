"""The recipe at full length on random weights of the same shape: real peak and step time.

A process holds the part of the card that is not asked for, so that a big card stands for a small
one, and reads every few milliseconds how much is left; another one loads the model and trains. Out
of memory is a result. What a held card does not show of a small one: its speed, its kernels and the
size of its CUDA context.
"""

import multiprocessing
import statistics
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from r1recipes import catalog, machine, record
from r1recipes.errors import PlanError, RecipeError
from r1recipes.plan import Plan

PHASES = ("weights", "import", "load", "generate", "first step", "steps")
GIB = 2**30
SAMPLE_S = 0.005


def rehearse(
    plan: Plan, *, weights_dir: Path, vram_bytes: int | None, steps: int
) -> dict[str, Any]:
    """Train `steps` steps as the plan says and return the proof.

    Every completion runs to max_completion_length and every prompt has all the tokens it may have.
    `vram_bytes`: memory that is left on the card, None for all of it. A case that runs out of
    memory returns with `error`. Raises: RecipeError if the model's shape is not known.
    """
    shape = catalog.find(plan.recipe.model.name)
    if shape is None:
        raise RecipeError(
            f"the shape of `{plan.recipe.model.name}` is not in the catalogue",
            hint="rehearse a recipe of one of: " + ", ".join(catalog.MODELS),
        )
    if plan.backend != "unsloth":
        raise PlanError("a rehearsal needs Unsloth and vLLM", hint="`pip install -e '.[gpu]'`")
    context = multiprocessing.get_context("spawn")
    phase, stop = context.Value("i", 0), context.Event()
    here, there = context.Pipe()
    holder = context.Process(target=_hold, args=(vram_bytes, phase, stop, there))
    holder.start()
    free_bytes = here.recv()
    if isinstance(free_bytes, str):
        raise PlanError(free_bytes)
    results, results_there = context.Pipe(duplex=False)
    worker = context.Process(
        target=_work, args=(plan.model_dump_json(), weights_dir, steps, phase, results_there)
    )
    began = time.monotonic()
    worker.start()
    results_there.close()
    try:
        found = results.recv()
    except EOFError:
        found = {"error": "the process died"}
    worker.join()
    stop.set()
    lowest = here.recv()
    holder.join()
    used = {name: free_bytes - low for name, low in zip(PHASES, lowest, strict=True) if low >= 0}
    peak = max((used[name] for name in PHASES[2:] if name in used), default=0)
    card = machine.gpu()
    return found | {
        "recipe_model": plan.recipe.model.name,
        "preset": plan.preset_name,
        "settings": plan.preset.model_dump(),
        "vram_gib": round(free_bytes / GIB, 2),
        "peak_gib": round(peak / GIB, 2),
        "peak_gib_by_phase": {name: round(n / GIB, 2) for name, n in used.items()},
        "wall_s": round(time.monotonic() - began, 1),
        "card": card.name if card else None,
        "driver": card.driver if card else None,
        "versions": machine.versions(),
        "date": record.now(),
    }


def _hold(vram_bytes: int | None, phase: Any, stop: Any, pipe: Connection) -> None:
    """Take all but `vram_bytes` of the card, then note the least that was free in each phase."""
    import torch

    torch.cuda.init()
    torch.zeros(1, device="cuda")
    held = []
    if vram_bytes is not None:
        free, _ = torch.cuda.mem_get_info()
        if free < vram_bytes:
            pipe.send(
                f"{free / GIB:.1f} GiB of the card are free, {vram_bytes / GIB:.1f} asked for"
            )
            return
        held.append(torch.empty(free - vram_bytes, dtype=torch.uint8, device="cuda"))
    pipe.send(torch.cuda.mem_get_info()[0])
    lowest = [-1] * len(PHASES)
    while not stop.is_set():
        free, now = torch.cuda.mem_get_info()[0], phase.value
        lowest[now] = free if lowest[now] < 0 else min(lowest[now], free)
        time.sleep(SAMPLE_S)
    pipe.send(lowest)


def _work(plan_json: str, weights_dir: Path, steps: int, phase: Any, results: Connection) -> None:
    """Load and train in this process; send what was measured, or the error."""
    found: dict[str, Any] = {}
    try:
        _measure(Plan.model_validate_json(plan_json), weights_dir, steps, phase, found)
    except Exception as error:  # out of memory, or whatever else: it is the result
        traceback.print_exc()
        found["error"] = (
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
        found["failed_in"] = PHASES[phase.value]
    results.send(found)


def _measure(plan: Plan, weights_dir: Path, steps: int, phase: Any, found: dict[str, Any]) -> None:
    from r1recipes.backends import Hooks, create, prepare_environment

    folder = _weights(plan, weights_dir)
    phase.value = 1
    began = time.monotonic()
    recipe = plan.recipe.model_copy(
        update={
            "model": plan.recipe.model.model_copy(update={"name": str(folder), "revision": None}),
            "rewards": {"noise": 1.0},
            "train": plan.recipe.train.model_copy(
                update={"max_steps": steps, "save_steps": 10**6, "lr_scheduler_type": "linear"}
            ),
        }
    )
    plan = plan.model_copy(update={"recipe": recipe})
    prepare_environment(plan, Path("~/.cache/r1recipes").expanduser())
    backend = create(plan, offline=True)
    found["import_s"] = round(time.monotonic() - began, 1)
    phase.value, began = 2, time.monotonic()
    backend.load(None, None)
    found["load_s"] = round(time.monotonic() - began, 1)
    config = backend.model.vllm_engine.llm_engine.vllm_config.cache_config
    found["kv_tokens"] = config.num_gpu_blocks * config.block_size
    rows = _rows(plan, backend.tokenizer())
    timer = _Timer(backend.model.vllm_engine)
    phase.value = 4
    times: list[tuple[float, float]] = []
    began = time.monotonic()

    def on_step(row: dict[str, Any], samples: list) -> None:
        times.append((time.monotonic(), timer.take()))
        found["mean_length"] = row["completions/mean_length"]
        phase.value = 5

    hooks = Hooks(lambda done, total: None, on_step, lambda folder: None, lambda: False)
    backend.train(rows, {"noise": _noise_reward()}, folder / "trainer", None, hooks)
    ends = [began, *(end for end, _ in times)]
    step_s = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    rest = step_s[1:] or step_s
    generation_s = [spent for _, spent in times][1:] or [times[0][1]]
    tokens = plan.completions_per_step * plan.preset.max_completion_length
    found |= {
        "first_step_s": round(step_s[0], 1),
        "step_s": round(statistics.median(rest), 2),
        "generation_s": round(statistics.median(generation_s), 2),
        "steps": len(step_s),
        "completions_per_step": plan.completions_per_step,
        "completions_per_hour": round(3600 * plan.completions_per_step / statistics.median(rest)),
        "tokens_per_s": round(tokens / statistics.median(generation_s)),
        "torch_peak_reserved_gib": _torch_peak(),
    }


def _torch_peak() -> float:
    import torch

    return round(torch.cuda.max_memory_reserved() / GIB, 2)


def _weights(plan: Plan, weights_dir: Path) -> Path:
    """The random checkpoint; made once and kept for the next case."""
    import torch

    from r1recipes.backends import random_weights

    shape = catalog.find(plan.recipe.model.name)
    assert shape is not None
    four_bit = plan.preset.load_in_4bit
    names = [name for name, known in catalog.MODELS.items() if known is shape]
    folder = weights_dir / f"{names[0]}-{'nf4' if four_bit else plan.dtype}"
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}.tmp")
        random_weights.write(shape, draft, four_bit=four_bit, dtype=getattr(torch, plan.dtype))
        torch.cuda.empty_cache()
        draft.rename(folder)
    return folder


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
    from r1recipes.rewards import Reward

    def noise(prompts: list, completions: list, **columns: Any) -> list[float]:
        return [(hash((n, str(c))) % 1000) / 1000 for n, c in enumerate(completions)]

    return Reward("noise", noise)


class _Timer:
    """Seconds that the engine spent in generate."""

    def __init__(self, engine: Any):
        self._spent = 0.0
        generate = engine.generate

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return generate(*arguments, **options)
            finally:
                self._spent += time.monotonic() - began

        engine.generate = timed

    def take(self) -> float:
        spent, self._spent = self._spent, 0.0
        return spent

"""The difficulty filter `data.keep`: a run trains only on problems within a range of pass rates.

The places of the problems that are kept are in the lock of the run, so that a resume and
`run --locked` train on the same ones without measuring. Limits: held-out problems are never left
out; a pass rate is measured once, before training, and not again while the model learns.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from r1recipes.errors import RecipeError, RunError, full_disk
from r1recipes.machine import files
from r1recipes.machine.units import duration
from r1recipes.planning.plan import Plan
from r1recipes.runs import pass_rates as rates
from r1recipes.runs.record import Run
from r1recipes.training.backends.base import Hooks, Messages, Sample
from r1recipes.training.evaluation.pass_rates import (
    Cache,
    Measured,
    Progress,
    Task,
    asked,
    measure,
    weights_of,
)
from r1recipes.training.prepared import Prepared

LONG_S = 600.0
"""Seconds from which on it is said how long the rest will take; assumed."""
Note = Callable[[str], None]


def choose(
    run: Run, prepared: Prepared, hooks: Hooks, note: Note, *, adapter: bool = False
) -> None:
    """Measure pass rates, of the base or with the `adapter` that is loaded, and write into record
    and lock which problems are kept.

    Raises: RunError (reward) when they do not fill one step; RunError when the disk is full.
    """
    plan, rows = prepared.plan, prepared.splits.train
    task = _task(prepared)
    note(
        f"each problem is answered {task.num_samples} times, until {task.num_needed:,} of "
        f"{len(rows):,} have a pass rate from {task.keep[0]:g} to {task.keep[1]:g}"
    )
    measured = _measured(run, prepared, task, hooks, note, adapter)
    if measured.num_cached:
        note(f"pass rates of {measured.num_cached:,} problems from the cache")
    recorded = rates.summary(measured.num_right, task.num_samples, task.keep, len(rows))
    pairs = list(zip(measured.rows, measured.num_right, strict=True))
    kept = sorted(row for row, n in pairs if rates.is_within(n, task.num_samples, task.keep))
    _write(run, prepared, task, measured, set(kept))
    run.update(pass_rates=recorded | {"num_cached": measured.num_cached})
    _refuse_too_few(recorded, plan)
    note(rates.sentence(recorded))
    if len(kept) < task.num_needed:
        times = task.num_needed / len(kept)
        note(f"they are fewer than the {task.num_needed:,} of all steps: each occurs {times:.1f} x")
    run.update_lock(kept_rows=kept)


def apply(run: Run, prepared: Prepared, note: Note) -> Prepared:
    """The same with the training rows that the lock keeps, in the order of the data.

    Raises: RecipeError when the lock names rows that are not there, or too few.
    """
    train, kept = prepared.splits.train, run.read_lock()["kept_rows"]
    _refuse_foreign(kept, len(train), prepared.plan)
    if "pass_rates" not in run.read():
        low, high = _task(prepared).keep
        recorded = {"low": low, "high": high, "num_kept": len(kept), "from_lock": True}
        run.update(pass_rates=recorded)
        note(rates.sentence(recorded))
    rows = train.select(kept, keep_in_memory=True)
    return replace(prepared, splits=replace(prepared.splits, train=rows))


def _task(prepared: Prepared) -> Task:
    recipe, preset = prepared.plan.recipe, prepared.plan.preset
    assert recipe.data.keep is not None, "the recipe has no filter"
    return Task(
        keep=recipe.data.keep,
        num_needed=recipe.train.max_steps * preset.prompts_per_step,
        num_samples=preset.num_generations,
        block_size=prepared.backend.block_size(),
        seed=recipe.seed,
    )


def _measured(
    run: Run, prepared: Prepared, task: Task, hooks: Hooks, note: Note, adapter: bool
) -> Measured:
    plan, splits, settings = prepared.plan, prepared.splits, prepared.settings
    assert settings is not None
    # A model that nothing identifies shares no pass rates with another run.
    weights = None if adapter else weights_of(plan, run.base, prepared.backend.commit())
    weights = weights or f"run {run.folder.name}"
    answers = [*splits.train["answer"], *splits.held_out["answer"]]
    key = asked(plan, prepared.inputs, weights, answers, task.block_size)
    cache = Cache(settings.cache_dir / "pass-rates", key, task.num_samples)

    def generate(prompts: list[Messages], progress: Progress) -> list[list[Sample]]:
        within = replace(hooks, on_progress=progress)
        return prepared.backend.generate(prompts, task.num_samples, False, adapter, within)

    def announce(seconds: float) -> None:
        if seconds >= LONG_S:
            note(f"about {duration(seconds)} more; later runs take these pass rates from the cache")

    with full_disk(settings.cache_dir, "set R1RECIPES_CACHE_DIR to another folder"):
        return measure(
            splits.train, task, cache, generate, prepared.decisive, hooks.on_progress, announce
        )


def _write(run: Run, prepared: Prepared, task: Task, measured: Measured, kept: set[int]) -> None:
    """One line for each problem that was measured."""
    questions = prepared.splits.train["question"]
    lines = [
        {"row": row, "question": questions[row], "num_right": count, "kept": row in kept}
        | {"num_samples": task.num_samples}
        for row, count in zip(measured.rows, measured.num_right, strict=True)
    ]
    files.write_lines(run.pass_rates, lines)


def _refuse_too_few(recorded: dict[str, Any], plan: Plan) -> None:
    needed = plan.preset.prompts_per_step
    if recorded["num_kept"] >= needed:
        return
    hard, easy = recorded["num_too_hard"], recorded["num_too_easy"]
    low, high = recorded["low"], recorded["high"]
    help_hard = "easier problems, a [cold_start] or a stronger model"
    help_easy = "harder problems"
    raise RunError(
        f"{recorded['num_kept']} of {recorded['num_measured']:,} problems have a pass rate from "
        f"{low:g} to {high:g}, and a step needs {needed} (`prompts_per_step`): {hard:,} are too "
        f"hard, {easy:,} too easy",
        kind="reward",
        hint=f"take {help_hard if hard >= easy else help_easy}, or widen `data.keep`",
    )


def _refuse_foreign(kept: Any, num_rows: int, plan: Plan) -> None:
    """Raises: RecipeError for places that are no rising choice of rows which fills a step."""
    if not isinstance(kept, list) or not all(type(row) is int for row in kept):
        fault = "is not a list of rows"
    elif not _is_rising(kept) or not all(0 <= row < num_rows for row in kept):
        fault = f"is not a choice of the {num_rows:,} training rows, in their order"
    elif len(kept) < plan.preset.prompts_per_step:
        fault = f"has {len(kept)} rows, and a step needs {plan.preset.prompts_per_step}"
    else:
        return
    raise RecipeError(
        f"`kept_rows` of the lock {fault}",
        hint="run without --locked: the problems are then chosen anew",
    )


def _is_rising(rows: Sequence[int]) -> bool:
    return all(a < b for a, b in zip(rows, rows[1:], strict=False))

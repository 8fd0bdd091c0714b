"""Run a plan in this process, from its data to the evaluation after training, or resume a run.

start     makes a new run folder and runs the stages
resume    goes on in an existing run folder, from its last whole checkpoint
"""

import traceback
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from r1recipes.errors import R1RecipesError, RecipeError, Stopped, command
from r1recipes.machine import files, packages
from r1recipes.machine.meter import Meter, Stopwatch
from r1recipes.machine.settings import Settings
from r1recipes.machine.terminal import Capture, Interrupts
from r1recipes.planning import disk, out_of_memory
from r1recipes.planning.doctor import failures
from r1recipes.planning.plan import Plan, pinned
from r1recipes.recipe import overrides, references
from r1recipes.recipe.loading import Loaded
from r1recipes.runs import lock, record
from r1recipes.runs.lock import Lock
from r1recipes.runs.record import Run, checkpoints
from r1recipes.training.evaluation.judging import with_stage
from r1recipes.training.observers import Observer, Observers, Pruned
from r1recipes.training.prepared import Options, Prepared, prepare
from r1recipes.training.stages import Stages
from r1recipes.training.trackers import sends
from r1recipes.training.warm import Warm

NOTHING_ALLOWED = Options()


def start(
    loaded: Loaded,
    plan: Plan,
    observers: Iterable[Observer],
    settings: Settings,
    *,
    folder: Path | None = None,
    options: Options = NOTHING_ALLOWED,
    locked: Lock | None = None,
    warm: Warm | None = None,
    began: float | None = None,
) -> Run:
    """Make a run folder and run the plan in it. Returns the complete run.

    `began`: reading of time.monotonic() when the command began; without it, now. With `locked`,
    model and data have the revisions of that lock, and data that differ from it are refused; the
    caller has already compared everything that can be compared without loading it.
    Raises: RecipeError, PlanError before anything is written; RunError, Stopped, Pruned after.
    """
    watching, watch = Observers(observers), _began(began)
    if locked:
        plan = pinned(plan, locked.model_dump())
    parent = folder.parent if folder else settings.runs_dir / loaded.name
    files.check_writable(parent)
    with overrides.as_typed(loaded.overrides), ExitStack() as stack:
        capture = stack.enter_context(Capture())
        meter = _meter(stack, plan, warm)
        prepared = prepare(plan, watching, settings, options, stack, warm, watch)
        for note in prepared.demonstration_notes():
            watching.note(note)
        if locked:
            revision = prepared.splits.revision
            changed = lock.input_differences(locked, prepared.inputs, revision)
            lock.refuse_differences(changed)
        _check_disk(parent, plan, settings)
        run = record.create(loaded, plan, folder, settings.runs_dir)
        capture.move_to(run.log)
        run.update_lock(**prepared.for_lock())
        if locked and locked.kept_rows is not None:
            run.update_lock(kept_rows=locked.kept_rows)
        _execute(run, prepared, watching, options, meter, watch)
    return run


def _began(began: float | None) -> Stopwatch:
    """A stopwatch whose imports are what came between `began` and now."""
    watch = Stopwatch(began)
    watch.rest("imports")
    return watch


def _meter(stack: ExitStack, plan: Plan, warm: Warm | None) -> Meter:
    """Measures the GPU memory of this run, including an engine that an earlier run has loaded."""
    before = warm.others_bytes if warm else None
    meter = stack.enter_context(Meter(enabled=plan.device == "cuda", before=before))
    if warm:
        warm.others_bytes = meter.before
    return meter


def _check_disk(parent: Path, plan: Plan, settings: Settings) -> None:
    """Refuse now, not hours later, a run or download that would fill a disk. Raises: RunError."""
    shape = disk.shape_of(plan, offline=settings.offline)
    disk.check(*disk.needs(plan, shape, parent, offline=settings.offline))


def resume(
    run: Run,
    observers: Iterable[Observer],
    settings: Settings,
    *,
    options: Options = NOTHING_ALLOWED,
    warm: Warm | None = None,
    began: float | None = None,
) -> Run:
    """Go on with a run that was stopped, was killed, or failed.

    With `options.finish` it is not trained further: its last whole checkpoint is evaluated, and it
    is complete. Raises: RecipeError for changed inputs, or no checkpoint to finish; RunError.
    """
    watching, watch = Observers(observers), _began(began)
    files.check_writable(run.folder)
    if options.finish and not run.adapter.is_dir() and run.last_checkpoint() is None:
        raise RecipeError(
            f"{run.folder} has no whole checkpoint to finish with: it {run.standing()}",
            hint=f"{run.to_go_on()}; Ctrl-C then saves a checkpoint after a step",
        )
    locked = run.read_lock()
    plan = run.pinned_plan()
    if locked.get("source"):
        references.refuse_taken(plan.recipe.model_dump(), plan.base_dir)
    with ExitStack() as stack:
        capture = stack.enter_context(Capture())
        for change in version_changes(run):
            watching.note(f"since this run began: {change}; numbers may differ")
        meter = _meter(stack, plan, warm)
        prepared = prepare(plan, watching, settings, options, stack, warm, watch)
        for name, sha256 in locked.get("inputs", {}).items():
            if prepared.inputs.get(name) != sha256:
                raise RecipeError(
                    f"{name} changed since this run began",
                    hint="start a new run, or put the old version back",
                )
        capture.move_to(run.log)
        _execute(run, prepared, watching, options, meter, watch)
    return run


def version_changes(run: Run) -> list[str]:
    """Packages whose version changed since the run began, such as `trl 1.12.0 -> 1.12.1`."""
    old, new = run.read_lock().get("versions", {}), packages.versions()
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return [f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}" for name in changed]


def _execute(
    run: Run,
    prepared: Prepared,
    observers: Observers,
    options: Options,
    meter: Meter,
    watch: Stopwatch,
) -> None:
    """Run the stages, and record how they ended. Raises: RunError, Stopped, Pruned."""
    plan = prepared.plan
    stages: Stages | None = None
    watch.rest("data")
    with run.owned(), ExitStack() as stack:
        watch.go_on(run.read().get("time", {}))
        stack.callback(_end, run, observers, watch)
        try:
            with Interrupts(observers.note) as interrupts:
                run.update(status="running", error=None, attempts=run.read().get("attempts", 0) + 1)
                observers.begin(run, plan)
                stages = Stages(run, prepared, observers, options, interrupts, watch)
                stages.all()
        except KeyboardInterrupt:
            run.update(status="stopped")
            flags = options.flags() + (" --wandb" if sends(plan.recipe.track) else "")
            hint = f"go on with `{command('run', '--resume', run.folder)}{flags}`"
            if run.last_checkpoint() and not run.adapter.exists():
                finish = command("run", "--finish", run.folder)
                hint += f", or evaluate and close it with `{finish}{flags}`"
            raise Stopped(f"stopped; {_saved(run)}", hint=hint) from None
        except Pruned:
            run.update(status="pruned", finished=files.now())
            raise
        except Exception as error:  # of any library; `classify` tells the user what it means
            with suppress(OSError):  # the log may be on the full disk
                traceback.print_exc()
            failure = classify(error, run, _phase(stages, error) if stages else "load")
            failure = with_stage(failure, stages.name) if stages else failure
            _record_failure(run, failure)
            raise failure from error
        finally:
            _record_memory(run, plan, meter)


def _end(run: Run, observers: Observers, watch: Stopwatch) -> None:
    """Tell the observers that the run is over, and record the time before and after a page."""
    with suppress(OSError, RecipeError):  # the disk may be full
        run.update(time=watch.read())
    with watch.part("report"):
        observers.end(run)
    with suppress(OSError, RecipeError):
        run.update(time=watch.read())


def _phase(stages: Stages, error: Exception) -> out_of_memory.Phase:
    """What the GPU was doing when an error was raised."""
    name = (stages.name or "").rpartition("/")[2]  # "1-sft/train"
    if name == "cold_start":
        return "cold start"
    if name != "train":
        return "generate" if name.startswith(("evaluate", "pass", "own")) else "load"
    frames = traceback.walk_tb(error.__traceback__)
    if any(frame.f_code.co_name in ("_generate", "generate") for frame, _ in frames):
        return "generate"
    return "steps" if stages.rows else "first step"


def _saved(run: Run) -> str:
    if run.adapter.exists():
        return "training is done and saved"
    if checkpoint := run.last_checkpoint():
        return f"step {checkpoint[1]} is saved"
    for title in reversed(run.plan().recipe.stage_names):
        if run.stage(title).adapter.exists():
            return f"stage {title} is done and saved"
        if checkpoint := run.stage(title).last_checkpoint():
            return f"step {checkpoint[1]} of stage {title} is saved"
    if started := checkpoints.newest_whole(run.cold_start):
        return f"step {started[1]} of the cold start is saved"
    return "the cold start is done and saved" if run.base.exists() else "no step is saved yet"


def _record_failure(run: Run, failure: R1RecipesError) -> None:
    kind, hint = getattr(failure, "kind", "input"), failure.problems[0].hint or ""
    with suppress(OSError, RecipeError):  # on a full disk the message on the screen has to do
        run.update(status="failed", error={"kind": kind, "message": str(failure), "hint": hint})


def _record_memory(run: Run, plan: Plan, meter: Meter) -> None:
    """Record the predicted peak and the highest measured one of all attempts; None on a CPU."""
    with suppress(OSError, RecipeError):  # the disk may be full
        earlier = run.read().get("vram") or {}
        measured = (earlier.get("measured_bytes"), meter.peak_bytes)
        vram: dict[str, Any] = {
            "predicted_bytes": plan.predicted.peak_bytes if plan.predicted else None,
            "measured_bytes": max((peak for peak in measured if peak is not None), default=None),
        }
        if meter.shared or earlier.get("shared"):
            vram["shared"] = True
        run.update(vram=vram)


def classify(error: Exception, run: Run, phase: out_of_memory.Phase) -> R1RecipesError:
    """The error that tells the user what an exception means; its traceback is in train.log."""
    return failures.classify(error, run.plan, phase, folder=run.folder, log=run.log)

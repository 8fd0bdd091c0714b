"""Execute a plan in this process, from data to the evaluation after; go on with a stopped one.

prepare   data, tokenizer, preflight, rewards: before a folder is made or a weight is loaded
start     a new run folder, then its stages
resume    an old run folder, from its last whole checkpoint
"""

import errno
import hashlib
import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from r1recipes import data, rewards
from r1recipes.data import preflight
from r1recipes.errors import R1RecipesError, RecipeError, RunError, Stopped, disk_error, is_full
from r1recipes.machine import files, packages
from r1recipes.machine.meter import Meter
from r1recipes.machine.settings import Settings
from r1recipes.machine.terminal import Capture, Interrupts
from r1recipes.planning import disk, out_of_memory
from r1recipes.planning.plan import Plan, pinned
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded
from r1recipes.report.run import Live
from r1recipes.rewards import answers
from r1recipes.runs import lock, record
from r1recipes.runs.lock import Lock
from r1recipes.runs.record import Run
from r1recipes.training.backends import create, prepare_environment
from r1recipes.training.stages import Options, Prepared, Stages
from r1recipes.training.trackers import Trackers, sends
from r1recipes.training.view import View
from r1recipes.training.warm import Warm

NOTHING_ALLOWED = Options()
DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class Pruned(R1RecipesError):
    """The study that a run is a trial of sees no hope in it."""


def prepare(
    plan: Plan,
    view: View,
    settings: Settings,
    options: Options,
    stack: ExitStack,
    warm: Warm | None = None,
) -> Prepared:
    """Load and check data, tokenizer and rewards. Closed with `stack`, but for what is warm.

    Raises: RecipeError or PlanError with everything that is wrong.
    """
    prepare_environment(plan, settings.cache_dir)
    recipe, offline = plan.recipe, settings.offline
    view.phase("Loading data")
    splits = data.load(recipe, plan.base_dir, offline=offline)
    if warm:
        backend = warm.take(plan, offline=offline)
    else:
        backend = create(plan, offline=offline)
        stack.callback(backend.close)
    tokenizer = backend.tokenizer()
    preflight.set_chat_template(tokenizer, recipe, plan.base_dir)
    splits, report = preflight.check_prompts(splits, tokenizer, plan.preset, recipe.data.overlong)
    for line in report.lines():
        view.note(line)
    view.phase("Checking rewards")
    verifier = stack.enter_context(answers.Verifier(time_limit_s=settings.answer_limit_s))
    names = list(dict.fromkeys([*recipe.rewards, recipe.eval.reward]))
    loaded = rewards.load(
        names,
        base_dir=plan.base_dir,
        allow_code=options.allow_code,
        verifier=verifier,
        time_limit_s=settings.reward_limit_s,
    )
    by_name = dict(zip(names, loaded, strict=True))
    for reward in loaded:
        stack.callback(reward.close)
    for warning in preflight.check_rewards(loaded, splits):
        view.note(f"warning: {warning}")
    return Prepared(
        splits=splits,
        backend=backend,
        rewards={name: by_name[name] for name in recipe.rewards},
        decisive=by_name[recipe.eval.reward],
        inputs=_inputs(plan, splits, tokenizer.chat_template, loaded),
        warm=warm,
    )


def _inputs(plan: Plan, splits: data.Splits, template: str, loaded: list) -> dict[str, str]:
    """sha256 of everything that a run reads beside its recipe, by what it is."""
    found = {"the data": _rows_sha256(splits), "the chat template": _sha256(template.encode())}
    start = plan.recipe.cold_start
    if start and start.data:
        found["the demonstrations"] = _sha256((plan.base_dir / start.data).read_bytes())
    for reward in loaded:
        if reward.code_sha256:
            found[f"the code of reward `{reward.name}`"] = reward.code_sha256
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _rows_sha256(splits: data.Splits) -> str:
    digest = hashlib.sha256()
    for rows in (splits.train, splits.held_out):
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def start(
    loaded: Loaded,
    plan: Plan,
    view: View,
    settings: Settings,
    *,
    folder: Path | None = None,
    options: Options = NOTHING_ALLOWED,
    locked: Lock | None = None,
    warm: Warm | None = None,
) -> Run:
    """Make a run folder and execute the plan. Returns the finished run.

    With `locked`, revisions are those of that lock, and data that differ from it are refused; the
    caller has compared the rest, which needs nothing loaded.
    Raises: RecipeError, PlanError before anything is written; RunError, Stopped after.
    """
    if locked:
        plan = pinned(plan, locked.model_dump())
    parent = folder.parent if folder else settings.runs_dir / loaded.name
    files.check_writable(parent)
    with ExitStack() as stack:
        capture = stack.enter_context(Capture())
        meter = _meter(stack, plan, warm)
        prepared = prepare(plan, view, settings, options, stack, warm)
        if locked:
            found = lock.input_differences(locked, prepared.inputs, prepared.splits.revision)
            lock.refuse_differences(found)
        _check_disk(parent, plan, settings)
        run = record.create(loaded, plan, folder, settings.runs_dir)
        capture.move_to(run.log)
        run.update_lock(inputs=prepared.inputs, data_revision=prepared.splits.revision)
        _execute(run, plan, prepared, view, options, meter)
    return run


def _meter(stack: ExitStack, plan: Plan, warm: Warm | None) -> Meter:
    """Measures this run's memory, and with it that of an engine that an earlier one has loaded."""
    before = warm.others_bytes if warm else None
    meter = stack.enter_context(Meter(enabled=plan.device == "cuda", before=before))
    if warm:
        warm.others_bytes = meter.before
    return meter


def _check_disk(parent: Path, plan: Plan, settings: Settings) -> None:
    """Raises: RunError when the run or its download would not fit; hours before a disk is full."""
    shape = disk.shape_of(plan, offline=settings.offline)
    disk.check(*disk.needs(plan, shape, parent, offline=settings.offline))


def resume(
    run: Run,
    view: View,
    settings: Settings,
    *,
    options: Options = NOTHING_ALLOWED,
    warm: Warm | None = None,
) -> Run:
    """Go on with a run that was stopped, killed or failed.

    Raises: RecipeError when data, code or template are no longer what the run began with.
    """
    began = run.read_lock()
    plan = pinned(run.plan(), began)
    if began.get("source"):
        references.refuse_taken(plan.recipe.model_dump(), plan.base_dir)
    with ExitStack() as stack:
        capture = stack.enter_context(Capture())
        meter = _meter(stack, plan, warm)
        prepared = prepare(plan, view, settings, options, stack, warm)
        for what, sha256 in began.get("inputs", {}).items():
            if prepared.inputs.get(what) != sha256:
                raise RecipeError(
                    f"{what} changed since this run began",
                    hint="start a new run, or put the old version back",
                )
        capture.move_to(run.log)
        _execute(run, plan, prepared, view, options, meter)
    return run


def version_changes(run: Run) -> list[str]:
    """What has another version than when the run began, such as `trl 1.12.0 -> 1.12.1`."""
    then, today = run.read_lock().get("versions", {}), packages.versions()
    names = sorted(then.keys() | today.keys())
    changed = [name for name in names if then.get(name) != today.get(name)]
    return [f"{name} {then.get(name, 'absent')} -> {today.get(name, 'absent')}" for name in changed]


def _execute(
    run: Run, plan: Plan, prepared: Prepared, view: View, options: Options, meter: Meter
) -> None:
    stages: Stages | None = None
    with run.owned(), _watched(run, plan, view) as on_row:
        try:
            with Interrupts(view.note) as interrupts:
                run.update(status="running", error=None, attempts=run.read()["attempts"] + 1)
                view.begin(run, plan)
                stages = Stages(run, plan, prepared, view, options, interrupts, on_row)
                stages.all()
        except KeyboardInterrupt:
            run.update(status="stopped")
            again = " --allow-code" if options.allow_code else ""
            again += " --wandb" if sends(plan.recipe.track) else ""
            raise Stopped(
                f"stopped; {_saved(run)}",
                hint=f"go on with `python -m r1recipes run --resume {run.folder}{again}`",
            ) from None
        except Pruned:
            run.update(status="pruned", finished=files.now())
            raise
        except Exception as error:
            with suppress(OSError):  # the log may be on the full disk
                traceback.print_exc()
            failure = classify(error, run, stages.phase(error) if stages else "load")
            _record_failure(run, failure)
            raise failure from error
        finally:
            _record_memory(run, plan, meter)


@contextmanager
def _watched(run: Run, plan: Plan, view: View) -> Iterator[Callable[[dict], None]]:
    """What looks on and can fail without harm: the report, now and then, and the trackers."""
    page = Live(run, view.note)
    config = {"preset": plan.preset_name} | plan.recipe.model_dump(mode="json", exclude={"track"})
    checkpoint = run.last_checkpoint()
    trackers = Trackers(
        plan.recipe.track,
        run.folder,
        config,
        view.note,
        first_step=checkpoint[1] + 1 if checkpoint else 1,
    )

    def on_row(row: dict) -> None:
        trackers.log(row)
        page.step()

    try:
        yield on_row
    finally:
        page.write()
        trackers.close(run.adapter.exists())


def _saved(run: Run) -> str:
    checkpoint = run.last_checkpoint()
    if run.adapter.exists():
        return "training is done and saved"
    return f"step {checkpoint[1]} is saved" if checkpoint else "no step is saved yet"


def _record_failure(run: Run, failure: R1RecipesError) -> None:
    kind = getattr(failure, "kind", "input")
    try:
        run.update(status="failed", error={"kind": kind, "message": str(failure)})
    except (OSError, RecipeError):  # a full disk: the message on the screen is all there can be
        pass


def _record_memory(run: Run, plan: Plan, meter: Meter) -> None:
    """The peak beside its prediction; of several attempts the highest. Both None on a CPU."""
    with suppress(OSError, RecipeError):  # as above
        earlier = (run.read().get("vram") or {}).get("measured_bytes")
        peaks = [peak for peak in (earlier, meter.peak_bytes) if peak is not None]
        predicted = plan.predicted.peak_bytes if plan.predicted else None
        run.update(vram={"predicted_bytes": predicted, "measured_bytes": max(peaks, default=None)})


def classify(error: Exception, run: Run, phase: out_of_memory.Phase) -> R1RecipesError:
    """What an exception means to the user; the traceback is in train.log."""
    if isinstance(error, R1RecipesError):
        return error
    if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
        return disk_error(error, Path(error.filename or run.folder))
    name, text = type(error).__name__, out_of_memory.telling_line(str(error))
    if is_full(error):
        return disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), run.folder)
    if name == "OutOfMemoryError" or out_of_memory.is_out_of_memory(str(error)):
        found = out_of_memory.explain(str(error), phase, run.plan())
        return RunError(
            f"out of memory, {found.kind}: {text}", kind="oom", hint=f"try `{found.change}`"
        )
    return RunError(f"{name}: {text}", kind="crash", hint=f"the whole story is in {run.log}")

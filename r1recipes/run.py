"""Execute a plan in this process, from data to the evaluation after; go on with a stopped one.

    prepare   data, tokenizer, preflight, rewards: before a folder is made or a weight is loaded
    start     a new run folder, then execute
    resume    an old run folder, from its last whole checkpoint

Each stage writes what it found and is skipped when that is there, so a kill at any moment loses at
most the stage that ran, and in training the steps since the last checkpoint.
"""

import hashlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes import answers, data, evaluate, health, preflight, record, rewards
from r1recipes.backends import Backend, Hooks, create, prepare_environment
from r1recipes.errors import R1RecipesError, RecipeError, RunError
from r1recipes.plan import Plan
from r1recipes.progress import View
from r1recipes.recipe import Loaded
from r1recipes.record import CHECKPOINT_DONE, Run
from r1recipes.settings import Settings
from r1recipes.terminal import Capture, Interrupts

NUM_CHECKPOINTS = 4
"""Two are kept, one is being written, and the adapter at the end is no larger than one."""
NAN_STEPS = 3
"""Steps in a row without a finite gradient after which a run is stopped; assumed."""


class Stopped(R1RecipesError):
    """The user stopped the run; what was done is saved."""

    exit_code = 130


@dataclass(frozen=True)
class Options:
    """What the user allowed on the command line."""

    allow_code: bool = False
    force: bool = False


@dataclass(frozen=True)
class Prepared:
    """Everything that can be known and refused before weights are loaded."""

    splits: data.Splits
    backend: Backend
    rewards: dict[str, rewards.Reward]
    decisive: rewards.Reward
    code: dict[str, str]
    """Reward in user code -> sha256 of its file."""
    data_sha256: str


def prepare(plan: Plan, view: View, settings: Settings, options: Options, stack: ExitStack):
    """Load and check data, tokenizer and rewards. Closed with `stack`.

    Raises: RecipeError or PlanError with everything that is wrong.
    """
    prepare_environment(plan, settings.cache_dir)
    recipe, offline = plan.recipe, settings.offline
    view.phase("Loading data")
    splits = data.load(recipe, plan.base_dir, offline=offline)
    backend = create(plan, offline=offline)
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
    code = {r: rewards.code_sha256(r, plan.base_dir) for r in names if rewards.is_user_code(r)}
    return Prepared(
        splits=splits,
        backend=backend,
        rewards={name: by_name[name] for name in recipe.rewards},
        decisive=by_name[recipe.eval.reward],
        code=code,
        data_sha256=_rows_sha256(splits),
    )


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
    options: Options = Options(),
) -> Run:
    """Make a run folder and execute the plan. Returns the finished run.

    Raises: RecipeError, PlanError before anything is written; RunError, Stopped after.
    """
    with ExitStack() as stack:
        capture = stack.enter_context(Capture())
        prepared = prepare(plan, view, settings, options, stack)
        run = record.create(loaded, plan, folder, settings.runs_dir)
        capture.move_to(run.log)
        run.update_lock(
            data_sha256=prepared.data_sha256,
            data_revision=prepared.splits.revision,
            code_sha256=prepared.code,
        )
        _execute(run, plan, prepared, view, options)
    return run


def resume(run: Run, view: View, settings: Settings, *, options: Options = Options()) -> Run:
    """Go on with a run that was stopped, killed or failed.

    Raises: RecipeError when data or code are no longer what the run began with.
    """
    plan, lock = run.plan(), json.loads(run.lock.read_text())
    known_code = lock.get("code_sha256", {})
    # Code that was allowed when the run began is allowed again as long as it is the same.
    allowed = Options(allow_code=options.allow_code or bool(known_code), force=options.force)
    for name, sha256 in known_code.items():
        if rewards.code_sha256(name, plan.base_dir) != sha256:
            raise RecipeError(
                f"the code of reward `{name}` has changed since this run began",
                hint="start a new run, or put the old file back",
            )
    with ExitStack() as stack:
        capture = stack.enter_context(Capture())
        prepared = prepare(plan, view, settings, allowed, stack)
        if lock.get("data_sha256", prepared.data_sha256) != prepared.data_sha256:
            raise RecipeError(
                "the data are not those that this run began with",
                hint="start a new run, or put the old data back",
            )
        capture.move_to(run.log)
        _execute(run, plan, prepared, view, options)
    return run


def version_changes(run: Run) -> list[str]:
    """What has another version than when the run began, such as `trl 1.12.0 -> 1.12.1`."""
    from r1recipes import machine

    then, today = json.loads(run.lock.read_text())["versions"], machine.versions()
    names = sorted(then.keys() | today.keys())
    changed = [name for name in names if then.get(name) != today.get(name)]
    return [f"{name} {then.get(name, 'absent')} -> {today.get(name, 'absent')}" for name in changed]


def _execute(run: Run, plan: Plan, prepared: Prepared, view: View, options: Options) -> None:
    with run.owned():
        run.update(status="running", error=None, attempts=run.read()["attempts"] + 1)
        view.begin(run, plan)
        try:
            with Interrupts(view.note) as interrupts:
                Stages(run, plan, prepared, view, options, interrupts).all()
        except KeyboardInterrupt:
            run.update(status="stopped")
            raise Stopped(
                f"stopped; {_saved(run)}",
                hint=f"go on with `python -m r1recipes run --resume {run.folder}`",
            ) from None
        except Exception as error:
            traceback.print_exc()  # into train.log
            failure = classify(error, run)
            _record_failure(run, failure)
            raise failure from error


def _saved(run: Run) -> str:
    checkpoint = run.last_checkpoint()
    if run.adapter.exists():
        return "training is done and saved"
    return f"step {checkpoint[1]} is saved" if checkpoint else "no step is saved yet"


def _record_failure(run: Run, failure: R1RecipesError) -> None:
    kind = getattr(failure, "kind", "input")
    try:
        run.update(status="failed", error={"kind": kind, "message": str(failure)})
    except OSError:  # the disk is full: the message on the screen is all there can be
        pass


def classify(error: Exception, run: Run) -> R1RecipesError:
    """What an exception means to the user; the traceback is in train.log."""
    if isinstance(error, R1RecipesError):
        return error
    if isinstance(error, OSError) and error.filename != "" and error.errno is not None:
        return record.disk_error(error, run.folder)
    name, text = type(error).__name__, str(error).strip().splitlines() or [""]
    if "No space left on device" in str(error):
        return record.disk_error(OSError(28, "No space left on device"), run.folder)
    if name == "OutOfMemoryError" or "out of memory" in str(error).lower():
        return RunError(
            f"out of memory: {text[0]}",
            kind="oom",
            hint="set `per_device_train_batch_size` to half, or a smaller `max_completion_length`",
        )
    return RunError(f"{name}: {text[0]}", kind="crash", hint=f"the whole story is in {run.log}")


class Stages:
    """The stages of a run, in order; each is skipped when its result is there."""

    def __init__(self, run, plan, prepared, view, options, interrupts):
        self.run: Run = run
        self.plan: Plan = plan
        self.prepared: Prepared = prepared
        self.backend: Backend = prepared.backend
        self.view: View = view
        self.options: Options = options
        self.interrupts: Interrupts = interrupts
        self.nan_rows: list[dict[str, Any]] = []

    def all(self) -> None:
        self.clear_drafts()
        if self.plan.recipe.cold_start:
            self.cold_start()
        self.load()
        self.evaluate("before", adapter=False)
        self.probe()
        self.train()
        self.evaluate("after", adapter=True)
        self.finish()

    def clear_drafts(self) -> None:
        """Remove what a killed attempt left half done."""
        for draft in self.run.folder.glob(".draft-*"):
            shutil.rmtree(draft)

    def hooks(self) -> Hooks:
        return Hooks(
            on_progress=self.view.progress,
            on_step=self.on_step,
            on_checkpoint=lambda folder: (folder / CHECKPOINT_DONE).touch(),
            should_stop=lambda: self.interrupts.requested,
        )

    def cold_start(self) -> None:
        if self.run.base.exists():
            return
        start = self.plan.recipe.cold_start
        assert start is not None
        with self.stage("cold_start", "Cold start"):
            rows = data.demonstrations(
                self.plan.recipe,
                self.plan.base_dir,
                start.steps * start.batch_size,
                held_out=self.prepared.splits.held_out,
            )
            with self.whole_folder(self.run.base) as draft:
                self.backend.cold_start(rows, draft, self.hooks())

    def load(self) -> None:
        with self.stage("load", "Loading the model"):
            base = self.run.base if self.plan.recipe.cold_start else None
            adapter = self.run.adapter if self.run.adapter.exists() else None
            revision = self.backend.load(base, adapter)
            self.run.update_lock(model_revision=revision)

    def evaluate(self, when: str, *, adapter: bool) -> None:
        path = self.run.evaluation(when)
        if when in self.run.read()["evaluation"] and path.exists():
            return
        with self.stage(f"evaluate_{when}", f"Evaluation {when}"):
            rows = list(self.prepared.splits.held_out)
            items = evaluate.evaluate(
                rows,
                self.plan.recipe.eval.samples,
                lambda prompts, n, greedy: self.backend.generate(
                    prompts, n, greedy, adapter, self.hooks()
                ),
                self.prepared.decisive,
            )
            record.write_text(path, "".join(json.dumps(item) + "\n" for item in items))
            found = self.run.read()["evaluation"] | {when: evaluate.summary(items)}
            self.run.update(evaluation=found)
            self.view.evaluated(when, found[when])

    def probe(self) -> None:
        """Stop at once when nothing can be learned."""
        if self.options.force or self.run.adapter.exists() or self.run.last_checkpoint():
            return
        items = record.read_lines(self.run.evaluation("before"))
        weights = self.plan.recipe.rewards
        payers = {reward: weights[name] for name, reward in self.prepared.rewards.items()}
        found = evaluate.probe(items, list(self.prepared.splits.held_out), payers)
        train = self.plan.recipe.train
        self.run.update(probe=vars(found))
        evaluate.refuse_hopeless(found, self.plan.preset.max_completion_length, train.temperature)

    def train(self) -> None:
        if self.run.adapter.exists():
            return
        checkpoint = self.run.last_checkpoint()
        self.run.rewind(checkpoint[1] if checkpoint else 0)
        self.view.resume_at(record.read_lines(self.run.metrics))
        preflight.check_disk(self.run.folder, NUM_CHECKPOINTS * self.backend.checkpoint_bytes())
        with self.stage("train", "Training"), self.interrupts.after_this_step():
            self.backend.train(
                self.prepared.splits.train,
                self.prepared.rewards,
                self.run.checkpoints,
                checkpoint[0] if checkpoint else None,
                self.hooks(),
            )
        if self.interrupts.requested:
            raise KeyboardInterrupt
        with self.whole_folder(self.run.adapter) as draft:
            self.backend.save_adapter(draft)

    def on_step(self, row: dict[str, Any], samples: list[dict[str, Any]]) -> None:
        record.append_line(self.run.metrics, row)
        for sample in samples:
            record.append_line(self.run.completions, {"step": row["step"]} | sample)
        self.view.step(row)
        self.nan_rows = [*self.nan_rows, row][-NAN_STEPS:]
        if len(self.nan_rows) == NAN_STEPS and health.not_finite(self.nan_rows):
            raise RunError(
                f"the gradient was not finite for {NAN_STEPS} steps, at step {row['step']}",
                kind="nan",
                hint="lower `train.learning_rate` or `train.max_grad_norm`",
            )

    def finish(self) -> None:
        before, after = (
            record.read_lines(self.run.evaluation(when)) for when in ("before", "after")
        )
        evaluation = self.run.read()["evaluation"]
        evaluation["difference"] = evaluate.difference(before, after)
        self.run.update(status="complete", evaluation=evaluation, finished=record.now())

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Show a stage and add the time that it took to the record."""
        self.view.phase(title)
        began = time.monotonic()
        try:
            yield
        finally:
            spent = self.run.read()["duration_s"]
            spent[name] = round(spent.get(name, 0.0) + time.monotonic() - began, 2)
            self.run.update(duration_s=spent)

    @contextmanager
    def whole_folder(self, folder: Path) -> Iterator[Path]:
        """A draft folder that takes its name only when it is complete."""
        draft = folder.with_name(f".draft-{folder.name}")
        draft.mkdir()
        yield draft
        os.rename(draft, folder)

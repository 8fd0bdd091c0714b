"""The stages of a run, in order; each is skipped when its result is already there.

A stage writes its result at once and whole, so a kill loses at most the stage that was running,
and in training the steps since the last checkpoint. Observers hear of a step or an evaluation only
after it is on the disk.
"""

import faulthandler
import json
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1recipes.data.splits import Splits, demonstrations
from r1recipes.errors import RunError
from r1recipes.machine import files
from r1recipes.machine.terminal import Interrupts
from r1recipes.planning import disk, out_of_memory
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.runs import health, record, statistics
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training.backends.base import Backend, Hooks, Messages, Sample
from r1recipes.training.evaluation import evaluate
from r1recipes.training.observers import Observer
from r1recipes.training.probe import Judge, outlook, probe, refuse_hopeless
from r1recipes.training.warm import Warm, base_key, evaluation_key

NAN_STEPS = 3
"""Steps in a row without a finite gradient after which a run is stopped; assumed."""
FLOAT16_NAN_STEPS = 17
"""The same in float16; derived. A step whose gradient overflows is skipped there and the scale of
the loss is halved, from 2^16 down (torch.amp.GradScaler), so after 17 steps the scale is 1 and not
the cause any more."""

SLOW_LOAD_S = 600
"""Seconds of loading after which the user is warned; assumed. The slowest load of the committed
rehearsals, which download nothing, took 107 s."""


@dataclass(frozen=True)
class Options:
    """What the user allowed on the command line."""

    allow_code: bool = False
    """Run rewards from the recipe's own Python files."""
    force: bool = False
    """Train even if the probe sees nothing to learn from."""


@dataclass(frozen=True)
class Prepared:
    """A plan with everything that can be loaded and checked before the weights."""

    plan: Plan
    splits: Splits
    backend: Backend
    rewards: dict[str, Reward]
    """The rewards that training pays, by their name in the recipe."""
    decisive: Reward
    """The reward that decides whether a completion is right."""
    inputs: dict[str, str]
    """Each thing that the run reads beside its recipe -> its sha256."""
    judge: Judge | None = None
    """Judges answers wherever they stand in a completion, if it is answers that decide."""
    warm: Warm | None = None
    """What earlier runs in this process have loaded and computed."""


class Stages:
    """Runs the stages of one run."""

    def __init__(
        self,
        run: Run,
        prepared: Prepared,
        observer: Observer,
        options: Options,
        interrupts: Interrupts,
    ):
        self.run = run
        self.plan = prepared.plan
        self.prepared = prepared
        self.backend = prepared.backend
        self.observer = observer
        self.options = options
        self.interrupts = interrupts
        self.checkpoint: tuple[Path, int] | None = None
        """The last whole checkpoint of an earlier attempt, and its step."""
        self.name: str | None = None
        """The stage that is running, or that failed."""
        self.rows: list[Row] = []
        """The last metrics of this process."""

    def all(self) -> None:
        """Run every stage whose result is missing."""
        self.clear_drafts()
        self.count_killed_stage()
        self.checkpoint = self.run.last_checkpoint()
        if self.plan.recipe.cold_start:
            self.cold_start()
        self.load()
        self.evaluate("before", adapter=False)
        self.probe()
        self.train()
        self.evaluate("after", adapter=True)
        self.finish()

    def clear_drafts(self) -> None:
        """Remove the half-written files and folders of a killed attempt."""
        files.clear_drafts(self.run.folder, ".draft-*", ".*.tmp")
        files.clear_drafts(self.run.folder / "nf4", ".*.[0-9]*")

    def count_killed_stage(self) -> None:
        """Add the time of a stage that was killed, up to the last step that it wrote."""
        killed = self.run.read().get("stage")
        if killed and self.run.metrics.exists():
            self.spent(killed["name"], self.run.metrics.stat().st_mtime - killed["began_s"])

    def spent(self, name: str, seconds: float) -> None:
        """Add the time of a stage that ended to the record."""
        durations = self.run.read()["duration_s"]
        durations[name] = round(durations.get(name, 0.0) + max(0.0, seconds), 2)
        self.run.update(duration_s=durations, stage=None)

    def hooks(self) -> Hooks:
        """What the backend calls while it works."""
        return Hooks(
            on_progress=self.observer.progress,
            on_step=self.on_step,
            on_checkpoint=record.mark_checkpoint,
            should_stop=self.interrupts.asked,
        )

    def half_hooks(self, before: int) -> Hooks:
        """Hooks for one of the two passes of an evaluation, after `before` completions of both."""
        return replace(
            self.hooks(),
            on_progress=lambda done, total: self.observer.progress(before + done, 2 * total),
        )

    def cold_start(self) -> None:
        """Train all weights on demonstrations."""
        if self.run.base.exists():
            return
        start = self.plan.recipe.cold_start
        assert start is not None
        key = self.shared_key(base_key(self.plan))
        if source := self.reuse("base", key, self.run.base):
            lock = Run(source.parent).read_lock()
            self.run.update_lock(model_revision=lock.get("model_revision"))
            return
        with self.stage("cold_start", "Cold start"):
            rows = demonstrations(
                self.plan.recipe,
                self.plan.base_dir,
                start.steps * start.batch_size,
                held_out=self.prepared.splits.held_out,
            )
            with files.draft(self.run.base) as draft:
                draft.mkdir()
                revision = self.backend.cold_start(rows, draft, self.hooks())
            self.run.update_lock(model_revision=revision)
        self.remember("base", key, self.run.base)

    def shared_key(self, key: str) -> str:
        """The key of a result that also depends on what the run reads beside its recipe."""
        return key + json.dumps(self.prepared.inputs, sort_keys=True)

    def reuse(self, name: str, key: str, path: Path) -> Path | None:
        """Copy the result of an earlier run in this process to `path`, and return its source."""
        return self.prepared.warm.copy(name, key, path) if self.prepared.warm else None

    def remember(self, name: str, key: str, path: Path) -> None:
        """Let later runs in this process reuse a result."""
        if self.prepared.warm:
            self.prepared.warm.remember(name, key, path)

    def load(self) -> None:
        """Load the base, with the saved adapter or a fresh one."""
        with self.stage("load", "Loading the model"), self.warned_when_slow():
            base = self.run.base if self.plan.recipe.cold_start else None
            revision = self.backend.load(base, self.saved_adapter())
            if base is None:
                self.run.update_lock(model_revision=revision)

    @contextmanager
    def warned_when_slow(self) -> Iterator[None]:
        """Warn the user when loading takes long, and write to the log where it is: an engine that
        hangs prints nothing."""

        def warn() -> None:
            with open(self.run.log, "a") as log:
                faulthandler.dump_traceback(log)
            self.observer.note(
                f"loading has taken {SLOW_LOAD_S / 60:.0f} minutes: it is downloading, or it "
                f"hangs; the end of {self.run.log} shows where it is"
            )

        timer = threading.Timer(SLOW_LOAD_S, warn)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def saved_adapter(self) -> Path | None:
        """The trained adapter, or that of the last step's checkpoint, which is the same."""
        return self.run.adapter if self.run.adapter.exists() else self.last_step()

    def last_step(self) -> Path | None:
        """The checkpoint of the last step, if it is there: a trainer would go one step further."""
        if self.checkpoint and self.checkpoint[1] >= self.plan.recipe.train.max_steps:
            return self.checkpoint[0]
        return None

    def evaluate(self, when: str, *, adapter: bool) -> None:
        """Answer and score the held-out problems, with the base alone or with the adapter."""
        path = self.run.evaluation(when)
        if when in self.run.read()["evaluation"] and path.exists():
            return
        key = self.shared_key(evaluation_key(self.plan))
        if not adapter and self.reuse("evaluation", key, path):
            self.evaluated(when, files.read_lines(path))
            return

        def generate(prompts: list[Messages], n: int, greedy: bool) -> list[list[Sample]]:
            hooks = self.half_hooks(len(prompts) * greedy)
            return self.backend.generate(prompts, n, greedy, adapter, hooks)

        with self.stage(f"evaluate_{when}", f"Evaluation {when}"):
            rows = list(self.prepared.splits.held_out)
            samples = self.plan.recipe.eval.samples
            items = evaluate(rows, samples, generate, self.prepared.decisive)
            files.write_text(path, "".join(json.dumps(item) + "\n" for item in items))
            self.evaluated(when, items)
        if not adapter:
            self.remember("evaluation", key, path)

    def evaluated(self, when: str, items: list[dict[str, Any]]) -> None:
        """Record the summary of an evaluation."""
        summary = statistics.summary(items)
        self.run.update(evaluation=self.run.read()["evaluation"] | {when: summary})
        self.observer.evaluated(when, summary)

    def probe(self) -> None:
        """Say what can be learned, and stop the run before training when nothing can."""
        if self.run.adapter.exists() or self.checkpoint:
            return
        items = files.read_lines(self.run.evaluation("before"))
        weights = self.plan.recipe.rewards
        weighted = [(reward, weights[name]) for name, reward in self.prepared.rewards.items()]
        result = probe(items, list(self.prepared.splits.held_out), weighted, self.prepared.judge)
        self.run.update(probe=vars(result))
        self.observer.note(outlook(result, self.plan.recipe.eval.reward))
        if not self.options.force:
            refuse_hopeless(result, self.plan)

    def train(self) -> None:
        """Train the adapter, from the last checkpoint if there is one, and save it."""
        if self.run.adapter.exists():
            return
        self.run.rewind(self.checkpoint[1] if self.checkpoint else 0)
        self.observer.resume_at(files.read_lines(self.run.metrics))
        size = disk.NUM_CHECKPOINTS * self.backend.checkpoint_bytes()
        disk.check(disk.Need(self.run.folder, size))
        if not self.last_step():
            with self.stage("train", "Training"), self.interrupts.after_this_step():
                try:
                    self.backend.train(
                        self.prepared.splits.train,
                        self.prepared.rewards,
                        self.run.checkpoints,
                        self.checkpoint[0] if self.checkpoint else None,
                        self.hooks(),
                    )
                finally:
                    self.observer.trained()
        if self.interrupts.requested:
            raise KeyboardInterrupt
        with files.draft(self.run.adapter) as draft:
            draft.mkdir()
            self.backend.save_adapter(draft)

    def on_step(self, row: Row, samples: list[dict[str, Any]]) -> None:
        """Write a step to the disk, then show it. Raises: RunError (nan), Pruned."""
        files.append_line(self.run.metrics, row)
        files.append_line(self.run.completions, *({"step": row["step"]} | s for s in samples))
        self.observer.step(row)
        allowed = FLOAT16_NAN_STEPS if self.plan.dtype == "float16" else NAN_STEPS
        self.rows = [*self.rows, row][-allowed:]
        if len(self.rows) == allowed and health.not_finite(self.rows):
            raise RunError(
                f"the gradient was not finite for {allowed} steps, at step {row['step']}",
                kind="nan",
                hint="lower `train.learning_rate` or `train.max_grad_norm`",
            )

    def finish(self) -> None:
        """Record the difference of the two evaluations, and that the run is complete."""
        before, after = (
            files.read_lines(self.run.evaluation(when)) for when in ("before", "after")
        )
        evaluation = self.run.read()["evaluation"]
        evaluation["difference"] = statistics.difference(before, after)
        self.run.update(status="complete", evaluation=evaluation, finished=files.now())

    def phase(self, error: Exception) -> out_of_memory.Phase:
        """What the GPU was doing when an error was raised."""
        if self.name == "cold_start":
            return "cold start"
        if self.name != "train":
            return "generate" if self.name and self.name.startswith("evaluate") else "load"
        frames = traceback.walk_tb(error.__traceback__)
        if any(frame.f_code.co_name == "_generate" for frame, _ in frames):
            return "generate"
        return "steps" if self.rows else "first step"

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Show that a stage is running, and add its time to the record."""
        self.name = name
        self.observer.phase(title)
        self.run.update(stage={"name": name, "began_s": time.time()})
        began = time.monotonic()
        try:
            yield
        finally:
            with suppress(OSError):  # on a full disk the first error is the one to report
                self.spent(name, time.monotonic() - began)

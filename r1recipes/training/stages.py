"""The stages of a run, in order; each is skipped when its result is there.

Each writes what it found at once and whole, so a kill at any moment loses at most the stage that
ran, and in training the steps since the last checkpoint.
"""

import faulthandler
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1recipes import data, rewards
from r1recipes.data.splits import demonstrations
from r1recipes.errors import RunError
from r1recipes.machine import files
from r1recipes.machine.terminal import Interrupts
from r1recipes.planning import disk, out_of_memory
from r1recipes.planning.plan import Plan
from r1recipes.runs import health, record, statistics
from r1recipes.runs.record import Run
from r1recipes.training.backends.base import Backend, Hooks
from r1recipes.training.evaluation import evaluate, probe, refuse_hopeless
from r1recipes.training.view import View
from r1recipes.training.warm import Warm, base_key, evaluation_key

NAN_STEPS = 3
"""Steps in a row without a finite gradient after which a run is stopped; assumed."""
FLOAT16_NAN_STEPS = 17
"""In float16 a step whose gradient overflows is skipped and the scale of the loss halved, from 2^16
on (torch.amp.GradScaler): at a scale of 1 it is not the scale's fault any more."""

SLOW_LOAD_S = 600
"""Assumed: of the committed rehearsals, which download nothing, the slowest load took 107 s."""


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
    inputs: dict[str, str]
    """What the run reads beside its recipe -> its sha256."""
    warm: Warm | None = None
    """What an earlier run in this process has left."""


class Stages:
    """The stages of a run, in order; each is skipped when its result is there."""

    def __init__(self, run, plan, prepared, view, options, interrupts, on_row):
        self.run: Run = run
        self.plan: Plan = plan
        self.prepared: Prepared = prepared
        self.backend: Backend = prepared.backend
        self.view: View = view
        self.options: Options = options
        self.interrupts: Interrupts = interrupts
        self.on_row: Callable[[dict[str, Any]], None] = on_row
        self.checkpoint: tuple[Path, int] | None = None
        self.name: str | None = None
        """The stage that goes on, or that failed."""
        self.rows: list[dict[str, Any]] = []
        """The last metrics of this process."""

    def all(self) -> None:
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
        """Remove what a killed attempt left half done."""
        files.clear_drafts(self.run.folder, ".draft-*", ".*.tmp")
        files.clear_drafts(self.run.folder / "nf4", ".*.[0-9]*")

    def count_killed_stage(self) -> None:
        """Add the time of a stage that a kill ended, up to the last step that it wrote."""
        killed = self.run.read().get("stage")
        if killed and self.run.metrics.exists():
            self.spent(killed["name"], self.run.metrics.stat().st_mtime - killed["began_s"])

    def spent(self, name: str, seconds: float) -> None:
        """The stage ended; add its time to the record."""
        spent = self.run.read()["duration_s"]
        spent[name] = round(spent.get(name, 0.0) + max(0.0, seconds), 2)
        self.run.update(duration_s=spent, stage=None)

    def hooks(self) -> Hooks:
        return Hooks(
            on_progress=self.view.progress,
            on_step=self.on_step,
            on_checkpoint=record.mark_checkpoint,
            should_stop=self.interrupts.asked,
        )

    def half_hooks(self, before: int) -> Hooks:
        """Progress of one of an evaluation's two passes, sampled and then greedy."""
        return replace(
            self.hooks(),
            on_progress=lambda done, total: self.view.progress(before + done, 2 * total),
        )

    def cold_start(self) -> None:
        if self.run.base.exists():
            return
        start = self.plan.recipe.cold_start
        assert start is not None
        key = self.shared_key(base_key(self.plan))
        if kept := self.given("base", key, self.run.base):
            lock = Run(kept.parent).read_lock()
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
        self.keep("base", key, self.run.base)

    def shared_key(self, key: str) -> str:
        return key + json.dumps(self.prepared.inputs, sort_keys=True)

    def given(self, what: str, key: str, path: Path) -> Path | None:
        """Put at `path` what an earlier run in this process had of the same; where it was."""
        return self.prepared.warm.give(what, key, path) if self.prepared.warm else None

    def keep(self, what: str, key: str, path: Path) -> None:
        if self.prepared.warm:
            self.prepared.warm.keep(what, key, path)

    def load(self) -> None:
        with self.stage("load", "Loading the model"), self.told_when_slow():
            base = self.run.base if self.plan.recipe.cold_start else None
            revision = self.backend.load(base, self.saved_adapter())
            if base is None:
                self.run.update_lock(model_revision=revision)

    @contextmanager
    def told_when_slow(self) -> Iterator[None]:
        """An engine that hangs says nothing: after a while, say so and note where it is."""

        def tell() -> None:
            with open(self.run.log, "a") as log:
                faulthandler.dump_traceback(log)
            self.view.note(
                f"loading takes more than {SLOW_LOAD_S / 60:.0f} minutes: a download, or it hangs; "
                f"the end of {self.run.log} shows where it is"
            )

        timer = threading.Timer(SLOW_LOAD_S, tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def saved_adapter(self) -> Path | None:
        """The trained adapter, or the one of the last step's checkpoint, which is the same."""
        if self.run.adapter.exists():
            return self.run.adapter
        return self.checkpoint[0] if self.steps_are_done() else None

    def steps_are_done(self) -> bool:
        """Whether the last checkpoint is that of the last step: a trainer would go one further."""
        return bool(self.checkpoint) and self.checkpoint[1] >= self.plan.recipe.train.max_steps

    def evaluate(self, when: str, *, adapter: bool) -> None:
        path = self.run.evaluation(when)
        if when in self.run.read()["evaluation"] and path.exists():
            return
        key = self.shared_key(evaluation_key(self.plan))
        if not adapter and self.given("evaluation", key, path):
            self.evaluated(when, files.read_lines(path))
            return
        with self.stage(f"evaluate_{when}", f"Evaluation {when}"):
            rows = list(self.prepared.splits.held_out)
            items = evaluate(
                rows,
                self.plan.recipe.eval.samples,
                lambda prompts, n, greedy: self.backend.generate(
                    prompts, n, greedy, adapter, self.half_hooks(len(prompts) * greedy)
                ),
                self.prepared.decisive,
            )
            files.write_text(path, "".join(json.dumps(item) + "\n" for item in items))
            self.evaluated(when, items)
        if not adapter:
            self.keep("evaluation", key, path)

    def evaluated(self, when: str, items: list[dict[str, Any]]) -> None:
        found = self.run.read()["evaluation"] | {when: statistics.summary(items)}
        self.run.update(evaluation=found)
        self.view.evaluated(when, found[when])

    def probe(self) -> None:
        """Stop at once when nothing can be learned."""
        if self.options.force or self.run.adapter.exists() or self.checkpoint:
            return
        items = files.read_lines(self.run.evaluation("before"))
        weights = self.plan.recipe.rewards
        payers = {reward: weights[name] for name, reward in self.prepared.rewards.items()}
        found = probe(items, list(self.prepared.splits.held_out), payers)
        train = self.plan.recipe.train
        self.run.update(probe=vars(found))
        refuse_hopeless(found, self.plan.preset.max_completion_length, train.temperature)

    def train(self) -> None:
        if self.run.adapter.exists():
            return
        self.run.rewind(self.checkpoint[1] if self.checkpoint else 0)
        self.view.resume_at(files.read_lines(self.run.metrics))
        size = disk.NUM_CHECKPOINTS * self.backend.checkpoint_bytes()
        disk.check(disk.Need(self.run.folder, size))
        if not self.steps_are_done():
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
                    self.view.trained()
        if self.interrupts.requested:
            raise KeyboardInterrupt
        with files.draft(self.run.adapter) as draft:
            draft.mkdir()
            self.backend.save_adapter(draft)

    def on_step(self, row: dict[str, Any], samples: list[dict[str, Any]]) -> None:
        files.append_line(self.run.metrics, row)
        files.append_line(self.run.completions, *({"step": row["step"]} | s for s in samples))
        self.view.step(row)
        self.on_row(row)
        allowed = FLOAT16_NAN_STEPS if self.plan.dtype == "float16" else NAN_STEPS
        self.rows = [*self.rows, row][-allowed:]
        if len(self.rows) == allowed and health.not_finite(self.rows):
            raise RunError(
                f"the gradient was not finite for {allowed} steps, at step {row['step']}",
                kind="nan",
                hint="lower `train.learning_rate` or `train.max_grad_norm`",
            )

    def finish(self) -> None:
        before, after = (
            files.read_lines(self.run.evaluation(when)) for when in ("before", "after")
        )
        evaluation = self.run.read()["evaluation"]
        evaluation["difference"] = statistics.difference(before, after)
        self.run.update(status="complete", evaluation=evaluation, finished=files.now())

    def phase(self, error: Exception) -> out_of_memory.Phase:
        """Where on a card it happened."""
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
        """Show a stage and add the time that it took to the record."""
        self.name = name
        self.view.phase(title)
        self.run.update(stage={"name": name, "began_s": time.time()})
        began = time.monotonic()
        try:
            yield
        finally:
            with suppress(OSError):  # on a full disk, the first error is the one that is told
                self.spent(name, time.monotonic() - began)

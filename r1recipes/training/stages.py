"""The stages of a run, in order; each is skipped when its result is already there.

A stage writes its result at once and whole, so a kill loses at most the stage that was running,
and in training the steps since the last checkpoint. Observers hear of a step or an evaluation only
after it is on the disk.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1recipes.data.examples import demonstrations
from r1recipes.machine import files
from r1recipes.machine.meter import TOTAL, Stopwatch
from r1recipes.machine.terminal import Interrupts, warned_when_slow
from r1recipes.planning import disk
from r1recipes.runs import health, statistics
from r1recipes.runs.origin import verify
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run, checkpoints, schema
from r1recipes.training.backends import merged
from r1recipes.training.backends.base import Hooks, Messages, Sample
from r1recipes.training.evaluation import WhileTraining, evaluate, keep, own_samples
from r1recipes.training.evaluation.judging import Judging
from r1recipes.training.evaluation.probe import outlook, probe, refuse_hopeless
from r1recipes.training.observers import Observer
from r1recipes.training.prepared import Options, Prepared
from r1recipes.training.warm import base_key, evaluation_key, link

SLOW_LOAD_S = 600
"""Seconds of loading after which the user is warned; assumed. The slowest load of the committed
rehearsals, which download nothing, took 107 s."""


class Stages:
    """Runs the stages of one run."""

    def __init__(
        self,
        run: Run,
        prepared: Prepared,
        observer: Observer,
        options: Options,
        interrupts: Interrupts,
        watch: Stopwatch,
    ):
        self.run = run
        self.plan = prepared.plan
        self.prepared = prepared
        self.backend = prepared.backend
        self.warm = prepared.warm
        self.observer = observer
        self.options = options
        self.interrupts = interrupts
        self.watch = watch
        self._stepped: float | None = None
        """When the last step was written; a checkpoint of it is saved from then on."""
        self.start: Path | None = None
        """The merged model that a cold start begins with."""
        self.checkpoint: tuple[Path, int] | None = None
        """The last whole checkpoint of an earlier attempt, and its step."""
        self.name: str | None = None
        """The stage that is running, or that failed."""
        self.rows: list[Row] = []
        """The last metrics of this process."""
        self.judging = Judging(prepared, run.read().get("judge"))

    def all(self) -> None:
        """Run every stage whose result is missing."""
        self.clear_drafts()
        self.count_killed_stage()
        self.checkpoint = self.run.last_checkpoint()
        if self.plan.origin and not self.run.base.exists():
            self.merge()
        if self.plan.recipe.cold_start:
            self.cold_start()
        self.load()
        self.evaluate("before", adapter=False)
        self.probe()
        self.keep_problems()
        self.sample_examples()
        self.train()
        self.evaluate("after", adapter=True)
        self.finish()

    def clear_drafts(self) -> None:
        """Remove the half-written files and folders of a killed attempt."""
        files.clear_drafts(self.run.folder, ".draft-*", ".*.tmp")
        files.clear_drafts(self.run.quantised(self.plan.preset.weights), files.OLDER_DRAFTS)

    def count_killed_stage(self) -> None:
        """Add the time of a stage that was killed, up to the last step that it wrote."""
        killed = self.run.read().get("stage")
        if killed and self.run.metrics.exists():
            seconds = self.run.metrics.stat().st_mtime - killed["began_s"]
            self.watch.add(TOTAL, seconds)
            self.spent(killed["name"], seconds)

    def spent(self, name: str, seconds: float) -> None:
        """Add the time of a stage that ended to the record."""
        durations = self.run.read()["duration_s"]
        durations[name] = round(durations.get(name, 0.0) + max(0.0, seconds), 2)
        times = {"duration_s": durations, "time": self.watch.read()}
        self.run.update(**times, stage=None, **self.judging.record())

    def hooks(self) -> Hooks:
        """What the backend calls while it works."""
        return Hooks(
            on_progress=self.observer.progress,
            on_step=self.on_step,
            on_checkpoint=self.on_checkpoint,
            should_stop=self.interrupts.asked,
        )

    def half_hooks(self, before: int) -> Hooks:
        """Hooks for one of the two passes of an evaluation, after `before` completions of both."""
        return replace(
            self.hooks(),
            on_progress=lambda done, total: self.observer.progress(before + done, 2 * total),
        )

    def merge(self) -> None:
        """Merge the adapter that the run starts from, for the cold start or as the run's base."""
        assert self.plan.origin is not None and self.prepared.settings is not None
        settings = self.prepared.settings
        with self.stage("merge", "Merging the adapter"):
            verify(self.plan.origin)
            folder, commit = merged(self.plan, settings.cache_dir, offline=settings.offline)
            origin = self.plan.origin.model_dump(mode="json")
            revision = commit or origin["revision"]
            self.run.update_lock(origin=origin | {"revision": revision})
            if self.plan.recipe.cold_start:
                self.start = folder
                return
            with files.draft(self.run.base) as draft:
                shutil.copytree(folder, draft, copy_function=link)

    def cold_start(self) -> None:
        """Train all weights on demonstrations."""
        if self.run.base.exists():
            shutil.rmtree(self.run.cold_start, ignore_errors=True)
            return
        start = self.plan.recipe.cold_start
        assert start is not None
        key = self.shared_key(base_key(self.plan))
        if source := self.warm.copy("base", key, self.run.base):
            lock = Run(source.parent).read_lock()
            self.run.update_lock(model_revision=lock.get("model_revision"))
            return
        with self.stage("cold_start", "Cold start"), self.interrupts.after_this_step():
            rows = demonstrations.make(
                self.plan.recipe,
                self.plan.base_dir,
                start.steps * start.batch_size,
                held_out=self.prepared.splits.held_out,
                lengths=self.prepared.demonstration_lengths(),
            )
            checkpoint = checkpoints.newest_whole(self.run.cold_start)
            with files.draft(self.run.base) as draft:
                draft.mkdir()
                revision, is_complete = self.backend.cold_start(
                    rows,
                    draft,
                    self.start,
                    self.run.cold_start,
                    checkpoint[0] if checkpoint else None,
                    self.hooks(),
                )
                if not self.plan.origin:
                    self.run.update_lock(model_revision=revision)
                if not is_complete:
                    raise KeyboardInterrupt
        shutil.rmtree(self.run.cold_start, ignore_errors=True)
        self.warm.remember("base", key, self.run.base)
        self.interrupts.stop_if_requested()

    def shared_key(self, key: str) -> str:
        """The key of a result that also depends on what the run reads beside its recipe."""
        return key + json.dumps(self.prepared.inputs, sort_keys=True)

    def load(self) -> None:
        """Load the base, with the saved adapter or a fresh one."""
        slow = warned_when_slow(SLOW_LOAD_S, self.run.log, self.observer.note, "loading")
        with self.stage("load", "Loading the model"), slow:
            base = self.run.base if self.plan.has_own_base else None
            quantised = self.run.quantised(self.plan.preset.weights)
            revision = self.backend.load(base, self.saved_adapter(), quantised=quantised)
            if base is None:
                self.run.update_lock(model_revision=revision)

    def saved_adapter(self) -> Path | None:
        """The trained adapter, or that of the last step's checkpoint, which is the same."""
        return self.run.adapter if self.run.adapter.exists() else self.last_step()

    def last_step(self) -> Path | None:
        """The checkpoint that ends the training: that of the last step, since a trainer would go
        one step further, or with `finish` the last one there is."""
        is_last = self.checkpoint and self.checkpoint[1] >= self.plan.recipe.train.max_steps
        return self.checkpoint[0] if self.checkpoint and (is_last or self.options.finish) else None

    def evaluate(self, when: str, *, adapter: bool) -> None:
        """Answer and score the held-out problems, with the base alone or with the adapter."""
        path = self.run.evaluation(when)
        if when in self.run.read()["evaluation"] and path.exists():
            return
        key = self.shared_key(evaluation_key(self.plan))
        if not adapter and self.warm.copy("evaluation", key, path):
            self.evaluated(when, self.run.answers(when))
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
            self.warm.remember("evaluation", key, path)

    def evaluated(self, when: str, items: list[dict[str, Any]]) -> None:
        """Record the summary of an evaluation."""
        summary = statistics.summary(items)
        self.run.update(evaluation=self.run.read()["evaluation"] | {when: summary})
        self.observer.evaluated(when, summary)

    def probe(self) -> None:
        """Say what can be learned, and stop the run before training when nothing can."""
        if self.run.adapter.exists() or self.checkpoint or not self.plan.algorithm.samples:
            return
        items = self.run.answers("before")
        weights = self.plan.recipe.rewards
        weighted = [(reward, weights[name]) for name, reward in self.prepared.rewards.items()]
        held_out = list(self.prepared.splits.held_out)
        with self.watch.part("probe"):
            result = probe(items, held_out, weighted, self.prepared.judge)
        self.run.update(probe=vars(result))
        is_filtered = self.plan.recipe.data.keep is not None
        self.observer.note(outlook(result, self.plan.recipe.eval.reward, is_filtered=is_filtered))
        if not self.options.force:
            refuse_hopeless(result, self.plan)

    def keep_problems(self) -> None:
        """Train only on problems whose pass rate is within `data.keep`, if the recipe has it."""
        if self.plan.recipe.data.keep is None or self.saved_adapter():
            return
        if "kept_rows" not in self.run.read_lock():
            with self.stage("pass_rates", "Pass rates"):
                keep.choose(self.run, self.prepared, self.hooks(), self.observer.note)
        self.prepared = keep.apply(self.run, self.prepared, self.observer.note)

    def sample_examples(self) -> None:
        """Sample the problems and choose examples, for an algorithm that learns from these."""
        if not own_samples.are_needed(self.plan) or self.saved_adapter():
            return
        path, key = self.run.own_samples, self.shared_key(own_samples.key(self.plan))
        if "own_samples" not in self.run.read() and not self.warm.copy("samples", key, path):
            with self.stage("own_samples", "Sampling the problems"):
                own_samples.sample(self.run, self.prepared, self.hooks(), self.observer.note)
        self.prepared = own_samples.apply(self.run, self.prepared, self.observer.note)
        self.warm.remember("samples", key, path)

    def train(self) -> None:
        """Train the adapter, from the last checkpoint if there is one, and save it."""
        if self.run.adapter.exists():
            return
        self.run.rewind(self.checkpoint[1] if self.checkpoint else 0)
        self.observer.resume_at(self.run.rows(self.run.metrics, schema.Step))
        size = disk.NUM_CHECKPOINTS * self.backend.checkpoint_bytes()
        disk.check(disk.Need(self.run.folder, size))
        if not self.last_step():
            held_out, score = self.prepared.splits.held_out, self.prepared.decisive
            small = WhileTraining(self.plan, held_out, self.backend, score)
            self.judging.of_step()  # what came before the first step belongs to none
            with self.stage("train", "Training"), self.interrupts.after_this_step():
                try:
                    self.backend.train(
                        self.prepared.training_rows,
                        self.prepared.rewards,
                        self.run.checkpoints,
                        self.checkpoint[0] if self.checkpoint else None,
                        replace(self.hooks(), evaluate=small.after_step),
                    )
                finally:
                    self.observer.trained()
                    small.record_cost(self.run, self.observer.note)
        if self.plan.algorithm.resumes:  # from the checkpoint of its last step
            self.interrupts.stop_if_requested()
        self.note_step()
        with self.watch.part("checkpoints"), files.draft(self.run.adapter) as draft:
            draft.mkdir()
            self.backend.save_adapter(draft)
        self.interrupts.stop_if_requested()

    def note_step(self) -> None:
        """Record where a run that is finished early ended, before its adapter says that it ended;
        an earlier attempt to finish it may have noted a step."""
        step = self.checkpoint[1] if self.options.finish and self.checkpoint else None
        is_early = step is not None and step < self.plan.recipe.train.max_steps
        if is_early or "stopped_at_step" in self.run.read():
            self.run.update(stopped_at_step=step if is_early else None)

    def on_step(self, row: Row, samples: list[dict[str, Any]]) -> None:
        """Write a step to the disk, then show it. Raises: RunError (nan), Pruned."""
        row = row | self.judging.of_step()
        files.append_line(self.run.metrics, row)
        files.append_line(self.run.completions, *({"step": row["step"]} | s for s in samples))
        with self.watch.part("report"):
            self.observer.step(row)
        self._stepped = time.monotonic()
        allowed = health.num_not_finite_allowed(self.plan.dtype)
        self.rows = [*self.rows, row][-allowed:]
        health.refuse_not_finite(self.rows, allowed)

    def on_checkpoint(self, folder: Path) -> None:
        """Mark a checkpoint as whole."""
        checkpoints.mark_checkpoint(folder)
        if self._stepped is not None:  # else it is one of the cold start
            self.watch.add("checkpoints", time.monotonic() - self._stepped)

    def finish(self) -> None:
        """Record the difference of the two evaluations, and that the run is complete."""
        before, after = (self.run.answers(when) for when in ("before", "after"))
        evaluation = self.run.read()["evaluation"]
        evaluation["difference"] = statistics.difference(before, after)
        self.run.update(status="complete", evaluation=evaluation, finished=files.now())

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

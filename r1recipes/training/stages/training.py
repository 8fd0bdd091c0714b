"""One training, from the probe to the adapter; each part is skipped when its result is there.

It is the training that `algorithm` and [train] describe, or that of a [[stage]] before it. Limits:
what is loaded before it begins, and what is evaluated, is decided by `run` and `earlier`.
"""

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1recipes.machine import files
from r1recipes.machine.meter import Stopwatch
from r1recipes.machine.terminal import Interrupts
from r1recipes.planning import disk
from r1recipes.planning.plan import Plan
from r1recipes.runs import health, statistics
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run, checkpoints, schema
from r1recipes.training.backends.base import Hooks, Messages, Sample
from r1recipes.training.evaluation import WhileTraining, evaluate, own_samples
from r1recipes.training.evaluation.judging import Judging
from r1recipes.training.evaluation.probe import outlook, probe, refuse_hopeless, unpaid
from r1recipes.training.observers import Observer
from r1recipes.training.prepared import Options, Prepared


class Training:
    """Trains one adapter, in the folder of the run or in one of its `stages/`."""

    def __init__(
        self,
        run: Run,
        part: Run,
        prepared: Prepared,
        observer: Observer,
        options: Options,
        interrupts: Interrupts,
        watch: Stopwatch,
        judging: Judging,
    ):
        """`run` has the record; `part` the files of this training: it is `run`, or within it."""
        self.run, self.part = run, part
        self.plan = prepared.plan
        self.prepared = prepared
        self.backend = prepared.backend
        self.warm = prepared.warm
        self.observer = observer
        self.options = options
        self.interrupts = interrupts
        self.watch = watch
        self.judging = judging
        self._stepped: float | None = None
        """When the last step was written; a checkpoint of it is saved from then on."""
        self.adapter_before: Path | None = None
        """The adapter of the stage before, which this training goes on with; None for a fresh one.
        """
        self.newest_evaluation = run.evaluation("before")
        """The answers of the model that this training begins with."""
        self.checkpoint = part.last_checkpoint()
        """The last whole checkpoint of an earlier attempt, and its step."""
        self.name: str | None = None
        """The stage that is running, or that failed."""
        self.rows: list[Row] = []
        """The last metrics of this process."""

    def write_down(self, **changes: Any) -> None:
        """Write down what this training has done."""
        self.run.update(**changes)

    def recorded(self) -> dict[str, Any]:
        """What was written down of this training."""
        return self.run.read()

    def result(self, items: list[dict[str, Any]], stages: Collection[str]) -> dict[str, Any]:
        """What the record says of a training after which the held-out problems have these answers;
        `stages` are those whose time it took."""
        before = files.read_lines(self.newest_evaluation)
        spent = self.run.read()["duration_s"]
        return {
            "steps": self.recorded().get("stopped_at_step") or self.plan.recipe.train.max_steps,
            "seconds": round(sum(spent[name] for name in spent if name in stages), 2),
            "evaluation": statistics.summary(items),
            "difference": statistics.difference(before, items),
        }

    def use(self, plan: Plan, adapter: Path | None) -> None:
        """Go on with another adapter on the base that is loaded, or with a fresh one."""
        base = self.run.base if plan.has_own_base else None
        self.backend.reset(plan)
        self.backend.load(base, adapter, quantised=self.run.quantised(plan.preset.weights))

    def hooks(self) -> Hooks:
        """What the backend calls while it works."""
        return Hooks(
            on_progress=self.observer.progress,
            on_loss=self.observer.loss,
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

    def answers(self, path: Path, *, adapter: bool) -> list[dict[str, Any]]:
        """Answer and score the held-out problems, and write the answers to a file."""

        def generate(prompts: list[Messages], n: int, greedy: bool) -> list[list[Sample]]:
            hooks = self.half_hooks(len(prompts) * greedy)
            return self.backend.generate(prompts, n, greedy, adapter, hooks)

        rows = list(self.prepared.splits.held_out)
        items = evaluate(rows, self.plan.recipe.eval.samples, generate, self.prepared.decisive)
        files.write_text(path, "".join(json.dumps(item) + "\n" for item in items))
        return items

    def adapter_to_begin_with(self) -> Path | None:
        """The trained adapter, that of the last step, or that of the stage before."""
        return self.saved_adapter() or self.adapter_before

    def saved_adapter(self) -> Path | None:
        """The trained adapter, or that of the last step's checkpoint, which is the same."""
        return self.part.adapter if self.part.adapter.exists() else self.last_step()

    def last_step(self) -> Path | None:
        """The checkpoint that ends the training: that of the last step, since a trainer would go
        one step further, or with `finish` the last one there is."""
        is_last = self.checkpoint and self.checkpoint[1] >= self.plan.recipe.train.max_steps
        return self.checkpoint[0] if self.checkpoint and (is_last or self.options.finish) else None

    def probe(self) -> None:
        """Say what can be learned, and stop the run before training when nothing can."""
        if self.part.adapter.exists() or self.checkpoint or not self.plan.algorithm.samples:
            return
        items = files.read_lines(self.newest_evaluation)
        weights = self.plan.recipe.rewards
        weighted = {name: (pay, weights[name]) for name, pay in self.prepared.rewards.items()}
        held_out = list(self.prepared.splits.held_out)
        with self.watch.part("probe"):
            result = probe(items, held_out, weighted, self.prepared.judge)
        self.write_down(probe=vars(result))
        is_filtered = self.plan.recipe.data.keep is not None
        decisive = self.plan.recipe.eval.reward
        self.observer.note(outlook(result, decisive, is_filtered=is_filtered))
        if warning := unpaid(result, decisive):
            self.observer.note(warning)
        if not self.options.force:
            refuse_hopeless(result, self.plan)

    def sample_examples(self) -> None:
        """Sample the problems and choose examples, for an algorithm that learns from these."""
        if not own_samples.are_needed(self.plan) or self.saved_adapter():
            return
        path, key = self.part.own_samples, self.shared_key(own_samples.key(self.plan))
        is_shared = self.adapter_before is None  # else no other run has the model to sample from
        has_copy = "own_samples" in self.recorded()
        if not has_copy and not (is_shared and self.warm.copy("samples", key, path)):
            with self.stage("own_samples", "Sampling the problems"):
                own_samples.sample(
                    path,
                    self.prepared,
                    self.hooks(),
                    self.observer.note,
                    adapter=self.adapter_before is not None,
                )
        note = self.observer.note
        self.prepared = own_samples.apply(path, self.prepared, note, self.write_down)
        if is_shared:
            self.warm.remember("samples", key, path)

    def shared_key(self, key: str) -> str:
        """The key of a result that also depends on what the run reads beside its recipe."""
        return key + json.dumps(self.prepared.inputs, sort_keys=True)

    def train(self) -> None:
        """Train the adapter, from the last checkpoint if there is one, and save it."""
        if self.part.adapter.exists():
            return
        self.part.rewind(self.checkpoint[1] if self.checkpoint else 0)
        self.observer.resume_at(self.part.rows(self.part.metrics, schema.Step))
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
                        self.part.checkpoints,
                        self.checkpoint[0] if self.checkpoint else None,
                        replace(self.hooks(), evaluate=small.after_step),
                    )
                finally:
                    self.observer.trained()
                    small.record_cost(self.run, self.observer.note)
        if self.plan.algorithm.resumes:  # from the checkpoint of its last step
            self.interrupts.stop_if_requested()
        self.note_step()
        with self.watch.part("checkpoints"), files.draft(self.part.adapter) as draft:
            draft.mkdir()
            self.backend.save_adapter(draft)
        self.interrupts.stop_if_requested()

    def note_step(self) -> None:
        """Record where a run that is finished early ended, before its adapter says that it ended;
        an earlier attempt to finish it may have noted a step."""
        step = self.checkpoint[1] if self.options.finish and self.checkpoint else None
        is_early = step is not None and step < self.plan.recipe.train.max_steps
        if is_early or "stopped_at_step" in self.recorded():
            self.write_down(stopped_at_step=step if is_early else None)

    def on_step(self, row: Row, samples: list[dict[str, Any]]) -> None:
        """Write a step to the disk, then show it. Raises: RunError (nan), Pruned."""
        row = row | self.judging.of_step()
        files.append_line(self.part.metrics, row)
        files.append_line(self.part.completions, *({"step": row["step"]} | s for s in samples))
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

    def spent(self, name: str, seconds: float) -> None:
        """Add the time of a stage that ended to the record."""
        durations = self.run.read()["duration_s"]
        durations[name] = round(durations.get(name, 0.0) + max(0.0, seconds), 2)
        times = {"duration_s": durations, "time": self.watch.read()}
        self.run.update(**times, stage=None, **self.judging.record())

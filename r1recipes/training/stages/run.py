"""The stages of a run, in order; each is skipped when its result is already there.

A stage writes its result at once and whole, so a kill loses at most the stage that was running,
and in training the steps since the last checkpoint. Observers hear of a step or an evaluation only
after it is on the disk.
"""

import shutil
from pathlib import Path
from typing import Any

from r1recipes.data.examples import demonstrations
from r1recipes.machine import files
from r1recipes.machine.meter import TOTAL, Stopwatch
from r1recipes.machine.terminal import Interrupts, warned_when_slow
from r1recipes.runs import statistics
from r1recipes.runs.origin import verify
from r1recipes.runs.record import Run, checkpoints
from r1recipes.training.backends import merged
from r1recipes.training.evaluation import keep
from r1recipes.training.evaluation.judging import Judging
from r1recipes.training.observers import Observer
from r1recipes.training.prepared import Options, Prepared
from r1recipes.training.stages.earlier import Earlier
from r1recipes.training.stages.training import Training
from r1recipes.training.warm import base_key, evaluation_key, link

SLOW_LOAD_S = 600
"""Seconds of loading after which the user is warned; assumed. The slowest load of the committed
rehearsals, which download nothing, took 107 s."""


class Stages(Training):
    """Runs the stages of one run; it is the last training itself, and has those before it."""

    def __init__(
        self,
        run: Run,
        prepared: Prepared,
        observer: Observer,
        options: Options,
        interrupts: Interrupts,
        watch: Stopwatch,
    ):
        judging = Judging(prepared, run.read().get("judge"))
        super().__init__(run, run, prepared, observer, options, interrupts, watch, judging)
        self.start: Path | None = None
        """The merged model that a cold start begins with."""
        self.earlier: list[Earlier] = []
        """The trainings before the last."""
        for title, own in zip(self.plan.recipe.stage_names, prepared.earlier, strict=True):
            before = self.earlier[-1] if self.earlier else None
            self.earlier.append(Earlier(self, title, own, before))

    def all(self) -> None:
        """Run every stage whose result is missing."""
        self.clear_drafts()
        self.count_killed_stage()
        if self.plan.origin and not self.run.base.exists():
            self.merge()
        if self.plan.recipe.cold_start:
            self.cold_start()
        self.load()
        self.evaluate("before", adapter=False)
        if self.earlier:
            self.train_earlier()
        self.probe()
        self.keep_problems()
        self.sample_examples()
        self.train()
        self.evaluate("after", adapter=True)
        self.finish()

    def train_earlier(self) -> None:
        """Train the stages before the last training, and load what that begins with."""
        for stage in self.earlier:
            stage.all()
        self.adapter_before, self.newest_evaluation = stage.part.adapter, stage.evaluation
        self.use(self.plan, self.adapter_to_begin_with())
        self.observer.stage(self.title, self.plan, is_last=True)

    @property
    def title(self) -> str:
        """The name that the last training has beside stages, such as "2-grpo"."""
        return f"{len(self.earlier) + 1}-{self.plan.recipe.algorithm}"

    def clear_drafts(self) -> None:
        """Remove the half-written files and folders of a killed attempt."""
        files.clear_drafts(self.run.folder, ".draft-*", ".*.tmp")
        files.clear_drafts(self.run.quantised(self.plan.preset.weights), files.OLDER_DRAFTS)

    def count_killed_stage(self) -> None:
        """Add the time of a stage that was killed, up to the last step that it wrote."""
        killed = self.run.read().get("stage")
        title = killed["name"].rpartition("/")[0] if killed else ""
        metrics = (self.run.stage(title) if title else self.run).metrics
        if killed and metrics.exists():
            seconds = metrics.stat().st_mtime - killed["began_s"]
            self.watch.add(TOTAL, seconds)
            self.spent(killed["name"], seconds)

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

    def load(self) -> None:
        """Load the base, with the saved adapter or a fresh one; stages bring their own."""
        slow = warned_when_slow(SLOW_LOAD_S, self.run.log, self.observer.note, "loading")
        with self.stage("load", "Loading the model"), slow:
            base = self.run.base if self.plan.has_own_base else None
            quantised = self.run.quantised(self.plan.preset.weights)
            adapter = None if self.earlier else self.saved_adapter()
            revision = self.backend.load(base, adapter, quantised=quantised)
            if base is None:
                self.run.update_lock(model_revision=revision)

    def evaluate(self, when: str, *, adapter: bool) -> None:
        """Answer and score the held-out problems, with the base alone or with the adapter."""
        path = self.run.evaluation(when)
        if when in self.run.read()["evaluation"] and path.exists():
            return
        key = self.shared_key(evaluation_key(self.plan))
        if not adapter and self.warm.copy("evaluation", key, path):
            self.evaluated(when, self.run.answers(when))
            return

        with self.stage(f"evaluate_{when}", f"Evaluation {when}"):
            self.evaluated(when, self.answers(path, adapter=adapter))
        if not adapter:
            self.warm.remember("evaluation", key, path)

    def evaluated(self, when: str, items: list[dict[str, Any]]) -> None:
        """Record the summary of an evaluation."""
        summary = statistics.summary(items)
        self.run.update(evaluation=self.run.read()["evaluation"] | {when: summary})
        self.observer.evaluated(when, summary)

    def keep_problems(self) -> None:
        """Train only on problems whose pass rate is within `data.keep`, if the recipe has it."""
        if self.plan.recipe.data.keep is None or self.saved_adapter():
            return
        if "kept_rows" not in self.run.read_lock():
            with self.stage("pass_rates", "Pass rates"):
                note, adapter = self.observer.note, self.adapter_before is not None
                keep.choose(self.run, self.prepared, self.hooks(), note, adapter=adapter)
        self.prepared = keep.apply(self.run, self.prepared, self.observer.note)

    def finish(self) -> None:
        """Record the difference of the two evaluations, and that the run is complete."""
        before, after = (self.run.answers(when) for when in ("before", "after"))
        evaluation = self.run.read()["evaluation"]
        evaluation["difference"] = statistics.difference(before, after)
        stages = {}
        if self.earlier:
            own = ("pass_rates", "own_samples", "train", "evaluate_after")
            about = {"name": self.title, "algorithm": self.plan.recipe.algorithm}
            done = [stage.recorded() for stage in self.earlier]
            stages = {"stages": [*done, about | self.result(after, own)]}
        self.run.update(status="complete", evaluation=evaluation, finished=files.now(), **stages)

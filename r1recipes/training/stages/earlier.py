"""A training before the last one, a [[stage]] of the recipe, with its files in `stages/`.

A stage is done when its adapter is evaluated; then its checkpoints are removed. One that was killed
goes on from its last checkpoint. Limits: what a stage takes is one part of the run's time, with
its pages and its checkpoints.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from r1recipes.machine import files
from r1recipes.machine.meter import Stopwatch
from r1recipes.runs.reading import Row
from r1recipes.training.prepared import Prepared
from r1recipes.training.stages.training import Training


class Earlier(Training):
    """The training of a stage, and the evaluation after it."""

    def __init__(self, whole: Training, title: str, prepared: Prepared, before: "Earlier | None"):
        """`whole` is the run with its last training; `before` the stage before this one."""
        super().__init__(
            whole.run,
            whole.run.stage(title),
            prepared,
            whole.observer,
            replace(whole.options, finish=False),
            whole.interrupts,
            Stopwatch(),  # its parts are in the time of the stage
            whole.judging,
        )
        self.whole, self.title = whole, title
        self.evaluation = self.part.evaluation("after")
        if before:
            self.adapter_before, self.newest_evaluation = before.part.adapter, before.evaluation

    def all(self) -> None:
        """Train and evaluate what is missing."""
        files.clear_drafts(self.part.folder, ".draft-*", ".*.tmp")
        if self.part.adapter.exists() and "evaluation" in self.recorded():
            return
        self.observer.stage(self.title, self.plan, is_last=False)
        if not self.part.adapter.exists():
            self.part.folder.mkdir(parents=True, exist_ok=True)
            self.use(self.plan, self.adapter_to_begin_with())
            self.probe()
            self.sample_examples()
            self.train()
        shutil.rmtree(self.part.checkpoints, ignore_errors=True)
        self.evaluate()

    def evaluate(self) -> None:
        """Answer the held-out problems as before and after the run, and record the stage."""
        with self.stage("evaluate", "Evaluation"):
            self.use(self.whole.plan, self.part.adapter)
            items = self.answers(self.evaluation, adapter=True)
        own = [f"{self.title}/{name}" for name in ("own_samples", "train", "evaluate")]
        result = self.result(items, own)
        self.write_down(**result)
        self.observer.evaluated(f"stage {self.title}", result["evaluation"])

    def write_down(self, **changes: Any) -> None:
        stages = {stage["name"]: stage for stage in self.run.read().get("stages", [])}
        about = {"name": self.title, "algorithm": self.plan.recipe.algorithm}
        stages[self.title] = about | stages.get(self.title, {}) | changes
        self.run.update(stages=list(stages.values()))

    def recorded(self) -> dict[str, Any]:
        stages: list[dict[str, Any]] = self.run.read().get("stages", [])
        return next((stage for stage in stages if stage["name"] == self.title), {})

    def on_step(self, row: Row, samples: list[dict[str, Any]]) -> None:
        super().on_step(row, samples)
        self.whole.rows = self.rows

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        with self.whole.stage(f"{self.title}/{name}", f"{title} (stage {self.title})"):
            yield

"""The run folder: which files it has, how they are written, and how they are read.

    recipe.toml       as the user wrote it         resolved.json     the plan
    lock.json         versions, revisions, seed    record.json       status, times, evaluation
    metrics.jsonl     one line per step            completions.jsonl samples with their rewards
    evaluation-before.jsonl, evaluation-after.jsonl                  one line per held-out problem
    pass-rates.jsonl  one line per training problem that was measured for `data.keep`
    own-samples.jsonl one line per training problem that was sampled for examples
    base/             model after the cold start, or with the adapter that it starts from merged
    checkpoints/      adapter/                     train.log         report.html
    cold-start/       checkpoint of a cold start that was stopped, until it is resumed
    stages/1-sft/     the files of a [[stage]], with the names that they have here
    nf4/ or fp8/      base/ in 4 bits or FP8       evaluations/      a folder for each `eval`
    export/           forms of the result          tensorboard/      its event files, if asked for

JSON is written under a temporary name, synced and renamed, so a file is whole or absent. A torn
last line of a .jsonl is dropped on reading and cut before appending. One process at a time owns a
folder, by a lock that the system releases when the process dies. A folder may be a stranger's: its
files are read without links, within limits, by their schema. Limits: a folder is never reused.
"""

import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r1recipes import recipe
from r1recipes.algorithms.base import LoadIn
from r1recipes.errors import Problem, RecipeError, command, disk_error
from r1recipes.machine import files
from r1recipes.machine.files import foreign, now, write_json, write_text
from r1recipes.planning.plan import Plan, pinned
from r1recipes.recipe.loading import Loaded
from r1recipes.runs import lock
from r1recipes.runs.record import following, going_on, schema, special
from r1recipes.runs.record.checkpoints import checkpoint_step, is_whole, newest_whole
from r1recipes.runs.record.first import first_record


class Run:
    """One run folder, and the names of its files. `data`, which is below this package, knows
    record.json by itself, and wandb makes a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipe = folder / "recipe.toml"
        self.resolved = folder / "resolved.json"
        self.lock = folder / "lock.json"
        self.record = folder / "record.json"
        self.metrics = folder / "metrics.jsonl"
        self.completions = folder / "completions.jsonl"
        self.pass_rates = folder / "pass-rates.jsonl"
        self.own_samples = folder / "own-samples.jsonl"
        self.log = folder / "train.log"
        self.base = folder / "base"
        self.cold_start = folder / "cold-start"
        self.checkpoints = folder / "checkpoints"
        self.adapter = folder / "adapter"
        self.report = folder / "report.html"
        self.evaluations = folder / "evaluations"
        self.export = folder / "export"
        self.tensorboard = folder / "tensorboard"

    def stage(self, title: str) -> "Run":
        """The files of a stage before the last training; it has no record of its own."""
        return Run(self.folder / "stages" / title)

    def quantised(self, load_in: LoadIn) -> Path:
        """The folder for `base` in 4 bits or FP8. Unsloth takes weights for FP8 by its name."""
        return self.folder / ("fp8" if load_in == "fp8" else "nf4")

    def evaluation(self, when: str) -> Path:
        """The answers of the evaluation `before` or `after` training."""
        return self.folder / f"evaluation-{when}.jsonl"

    def plan(self) -> Plan:
        """The plan. Raises: RecipeError when the file is not a plan of this version."""
        data = self.table(self.resolved, Plan, is_strict=False)
        return Plan.model_validate_json(json.dumps(data))

    def pinned_plan(self) -> Plan:
        """The plan with the commits that the run began with, and where it has merged an adapter,
        with the tokenizer of its own base. Raises: RecipeError."""
        plan = pinned(self.plan(), self.read_lock())
        if plan.origin and self.base.is_dir():
            origin = plan.origin.model_copy(update={"tokenizer": str(self.base.absolute())})
            plan = plan.with_origin(origin)
        return plan

    def read(self, *needed: str) -> dict[str, Any]:
        """The record, with the keys that are `needed`, such as `evaluation.before`. Raises:
        RecipeError when this is not a run folder, or it is damaged."""
        record = self.table(self.record, schema.Record)
        for key in needed:
            value: Any = record
            for part in key.split("."):
                value = value.get(part)
                if value is None:
                    raise _damaged(self.record, f"`{key}` is missing")
        return record

    def table(
        self, path: Path, model: type[BaseModel], *, is_strict: bool = True
    ) -> dict[str, Any]:
        """The object in a JSON file of this folder, which is as `model` says. Raises: RecipeError
        that names the file and the field."""
        with _readable(path):
            data = foreign.read_object(self.folder, str(path.relative_to(self.folder)))
            if fault := schema.fault(data, model, is_strict=is_strict):
                raise foreign.Damaged(fault)
        return data

    def rows(self, path: Path, model: type[BaseModel]) -> list[dict[str, Any]]:
        """The objects on the lines of a .jsonl file, each as `model` says; without a file none.
        Raises: RecipeError that names the file, the line and the field."""
        with _readable(path):
            rows = list(foreign.read_rows(self.folder, path.name))
            for number, row in rows:
                if fault := schema.fault(row, model):
                    raise foreign.Damaged(f"line {number}: {fault}")
        return [row for _, row in rows]

    def follow(self, rows: following.Rows) -> list[dict[str, Any]]:
        """The rows of a file of this folder as they are now; what was read is not read again.
        Raises: RecipeError that names the file, the line and the field."""
        with _readable(rows.path):
            return rows.follow()

    def answers(self, when: str) -> list[dict[str, Any]]:
        """The lines of the evaluation `before` or `after` training. Raises: RecipeError."""
        return self.rows(self.evaluation(when), schema.Item)

    def refuse_special(self) -> None:
        special.refuse(self.folder)

    def status(self) -> str:
        """The recorded status, or "killed" if it says "running" and no process works on the run."""
        recorded = self.read()["status"]
        return "killed" if recorded == "running" and not self._is_owned() else recorded

    def standing(self) -> str:
        """The status and the last step in words: `was killed at step 4`."""
        step, status = "step 0", self.status()
        folders = sorted((self.folder / "stages").glob("[0-9]*-*"), key=lambda path: path.name)
        for run in (*map(Run, folders), self):
            with suppress(RecipeError, LookupError):  # damaged metrics do not hide the status
                number = run.rows(run.metrics, schema.Step)[-1]["step"]
                step = f"step {number}" + (
                    f" of stage {run.folder.name}" if run is not self else ""
                )
        verb = {"running": "is ", "complete": "is ", "failed": ""}.get(status, "was ")
        return f"{verb}{status} at {step}"

    def to_go_on(self) -> str:
        """What the user can do to complete the run."""
        status = self.status()
        if status == "running":
            return going_on.wait()
        if status != "failed":
            return going_on.resume(self.folder)
        overrides = self.read_lock().get("overrides", [])
        return going_on.of_failed(self.folder, self.read(), self.began_with(), overrides)

    def began_with(self) -> Path:
        """The recipe's file that the run began with, or the copy of it where that is gone."""
        with suppress(RecipeError, OSError):
            return going_on.recipe_file(self.plan().base_dir, self.read()["recipe"], self.recipe)
        return self.recipe

    def read_lock(self) -> dict[str, Any]:
        """Versions, revisions and hashes. Raises: RecipeError when they cannot be read."""
        return self.table(self.lock, lock.Lock)

    def update(self, **changes: Any) -> dict[str, Any]:
        """Merge `changes` into the record, and return it."""
        record = self.read() | changes | {"updated": now()}
        write_json(self.record, record)
        return record

    def update_lock(self, **changes: Any) -> None:
        """Merge `changes` into the lock."""
        write_json(self.lock, self.read_lock() | changes)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder within the context. Raises: RecipeError when another process owns it."""
        try:
            flags = os.O_WRONLY | os.O_CREAT
            file = open(foreign.open_plain(self.folder, ".owner", flags), "w")
        except OSError as error:
            raise disk_error(error, self.folder) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RecipeError(
                    f"{self.folder} is in use by another process",
                    hint="wait until it ends, or stop it with Ctrl-C and then resume",
                ) from error
            yield

    def _is_owned(self) -> bool:
        """Whether a process owns the folder, or this cannot be determined; writes nothing."""
        try:
            with foreign.reading(self.folder, ".owner") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except RecipeError:  # a link, or another thing that no run has made
            return False
        except OSError as error:
            return not isinstance(error, FileNotFoundError)
        return False

    def last_checkpoint(self) -> tuple[Path, int] | None:
        """The newest whole checkpoint of the training, and its step."""
        return newest_whole(self.checkpoints)

    def rewind(self, step: int) -> None:
        """Delete metrics, samples and checkpoints after `step`, and checkpoints that are not whole.

        Raises: RecipeError when metrics of a step up to there are missing.
        """
        steps = self.rows(self.metrics, schema.Step)
        if [row["step"] for row in steps][:step] != [*range(1, step + 1)]:
            raise _damaged(self.metrics, f"it does not have steps 1 to {step}")
        samples = self.rows(self.completions, schema.Completion)
        for path, every in ((self.metrics, steps), (self.completions, samples)):
            rows = [json.dumps(row) + "\n" for row in every if row.get("step", 0) <= step]
            write_text(path, "".join(rows))
        for folder in self.checkpoints.glob("checkpoint-*"):
            number = checkpoint_step(folder)
            if not is_whole(folder) or number is None or number > step:
                shutil.rmtree(folder)


def refuse_used(folder: Path) -> None:
    """Raises: RecipeError if the folder of a new run exists."""
    if folder.exists():
        raise RecipeError(
            f"{folder} exists, and a run folder is never reused",
            hint=f"choose another name, or {going_on.resume(folder)} with it",
        )


def create(loaded: Loaded, plan: Plan, folder: Path | None, runs_dir: Path) -> Run:
    """Make the folder of a new run, with its recipe, plan, lock and first record.

    The folder appears under its name only when it is complete enough to be resumed.
    Raises: RecipeError if `folder` exists; RunError if it cannot be written.
    """
    fingerprint = recipe.fingerprint(loaded.recipe)
    parent, stem = runs_dir / loaded.name, f"{files.stamp()}-{fingerprint[:8]}"
    while True:
        target = folder or files.free_name(parent, stem)
        if folder:
            refuse_used(folder)
        try:
            _write_first(target, loaded, plan, fingerprint, runs_dir)
            return Run(target)
        except OSError as error:
            if not os.path.lexists(target):  # else another run that began in this second has it
                raise disk_error(error, target) from error


def _write_first(
    folder: Path, loaded: Loaded, plan: Plan, fingerprint: str, runs_dir: Path
) -> None:
    """Make a run folder, which appears when it is complete. Raises: OSError."""
    is_ours = runs_dir.absolute() in folder.absolute().parents
    older_name = "*" if is_ours else glob.escape(folder.name)
    files.clear_drafts(folder.parent, f".{older_name}.[0-9]*.tmp")
    with files.draft(folder) as path:
        path.mkdir()
        draft = Run(path)
        draft.recipe.write_text(loaded.text, encoding="utf-8")
        draft.resolved.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
        write_json(draft.lock, lock.make(loaded, plan))
        write_json(draft.record, first_record(loaded, plan, fingerprint))


def find_unfinished(runs_dir: Path, recipe_name: str | None = None) -> Run:
    """The newest run that can be resumed, of this recipe or of any.

    Trials are left out: `sweep` resumes a study. Raises: RecipeError when there is none.
    """
    unfinished: list[Run] = []
    running: list[Path] = []
    has_trials = False
    for run in all_runs(runs_dir):
        with suppress(RecipeError):  # a damaged folder does not hide the others
            record = run.read()
            status = run.status()
            if status in ("complete", "pruned") or recipe_name not in (None, record.get("recipe")):
                continue
            if status == "running":
                running.append(run.folder)
            elif "study" in record:
                has_trials = True
            else:
                unfinished.append(run)
    if not unfinished:
        known = last_runs(runs_dir)
        raise going_on.no_unfinished(runs_dir, recipe_name, running, known, has_trials)
    return unfinished[-1]


def all_runs(runs_dir: Path) -> list[Run]:
    """All run folders, `runs/NAME` and `runs/RECIPE/NAME`, the oldest first."""
    runs = map(Run, following.run_folders(runs_dir))
    return sorted(runs, key=lambda run: (_started(run), run.folder.name))


def _started(run: Run) -> str:
    """When a run began; empty where the record is damaged."""
    with suppress(RecipeError):
        return str(run.read().get("started", ""))
    return ""


def last_runs(runs_dir: Path) -> str:
    """The newest three runs, for a hint."""
    names = [str(run.folder) for run in all_runs(runs_dir)[-3:]]
    if not names:
        return f"there are no runs yet; `{command('run', 'tiny')}` makes one"
    return "the last runs: " + ", ".join(names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises: RecipeError when a file cannot be read within the context, or is not what it must."""
    try:
        yield
    except foreign.Damaged as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error.strerror or error}") from error


def _damaged(path: Path, why: str) -> RecipeError:
    problem = Problem(
        f"is damaged: {why}", str(path), "put back a copy of this file, or leave out this run"
    )
    return RecipeError(problems=[problem])

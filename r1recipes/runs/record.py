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
    nf4/ or fp8/      base/ in 4 bits or FP8       evaluations/      a folder for each `eval`
    export/           forms of the result          tensorboard/      its event files, if asked for

JSON is written under a temporary name, synced and renamed, so a file is whole or absent. A torn
last line of a .jsonl is dropped on reading and cut before appending. One process at a time owns a
folder, by a lock that the system releases when the process dies. Limits: a folder is never reused
for another run.
"""

import fcntl
import glob
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r1recipes import recipe
from r1recipes.algorithms.base import LoadIn
from r1recipes.errors import Problem, RecipeError, disk_error
from r1recipes.machine import files
from r1recipes.machine.files import now, read_lines, write_json, write_text
from r1recipes.planning.plan import Plan, pinned
from r1recipes.recipe.loading import Loaded
from r1recipes.runs import lock

STATUSES = ("running", "complete", "failed", "stopped", "pruned")
CHECKPOINT_DONE = "r1recipes-complete"
"""The file in a checkpoint that says that it is whole, and how large its files are."""


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

    def quantised(self, load_in: LoadIn) -> Path:
        """The folder for `base` in 4 bits or FP8. Unsloth takes weights for FP8 by its name."""
        return self.folder / ("fp8" if load_in == "fp8" else "nf4")

    def evaluation(self, when: str) -> Path:
        """The answers of the evaluation `before` or `after` training."""
        return self.folder / f"evaluation-{when}.jsonl"

    def plan(self) -> Plan:
        """The plan. Raises: RecipeError when the file is not a plan of this version."""
        try:
            return Plan.model_validate_json(self.resolved.read_text())
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RecipeError(f"{self.resolved} cannot be read: {reason}") from error

    def pinned_plan(self) -> Plan:
        """The plan with the commits that the run began with, and where it has merged an adapter,
        with the tokenizer of its own base. Raises: RecipeError."""
        plan = pinned(self.plan(), self.read_lock())
        if plan.origin and self.base.is_dir():
            origin = plan.origin.model_copy(update={"tokenizer": str(self.base.absolute())})
            plan = plan.model_copy(update={"origin": origin})
        return plan

    def read(self) -> dict[str, Any]:
        """The record. Raises: RecipeError when this is not a run folder, or it is damaged."""
        record = _read_json(self.record)
        if record.get("status") not in STATUSES:
            raise _damaged(self.record, "its status is missing or unknown")
        return record

    def status(self) -> str:
        """The recorded status, or "killed" if it says "running" and no process works on the run."""
        recorded = self.read()["status"]
        return "killed" if recorded == "running" and not self._is_owned() else recorded

    def standing(self) -> str:
        """The status and the last step in words: `was killed at step 4`."""
        step, status = 0, self.status()
        with suppress(OSError, ValueError, LookupError):  # damaged metrics do not hide the status
            step = read_lines(self.metrics)[-1]["step"]
        verb = {"running": "is ", "complete": "is ", "failed": ""}.get(status, "was ")
        return f"{verb}{status} at step {step}"

    def to_go_on(self) -> str:
        """What the user can do to complete the run."""
        if self.status() == "running":
            return "wait until it ends; `r1recipes list runs` shows its progress"
        return f"`python -m r1recipes run --resume {self.folder}` goes on"

    def read_lock(self) -> dict[str, Any]:
        """Versions, revisions and hashes. Raises: RecipeError when they cannot be read."""
        return _read_json(self.lock)

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
            file = open(self.folder / ".owner", "w")
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
            with open(self.folder / ".owner") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
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
        if [row.get("step") for row in read_lines(self.metrics)][:step] != [*range(1, step + 1)]:
            raise _damaged(self.metrics, f"it does not have steps 1 to {step}")
        for path in (self.metrics, self.completions):
            rows = [row for row in read_lines(path) if row.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        for folder in self.checkpoints.glob("checkpoint-*"):
            number = folder.name.removeprefix("checkpoint-")
            if not is_whole(folder) or not number.isdigit() or int(number) > step:
                shutil.rmtree(folder)


def refuse_used(folder: Path) -> None:
    """Raises: RecipeError if the folder of a new run exists."""
    if folder.exists():
        raise RecipeError(
            f"{folder} exists, and a run folder is never reused",
            hint=f"choose another name, or `r1recipes run --resume {folder}` to resume it",
        )


def create(loaded: Loaded, plan: Plan, folder: Path | None, runs_dir: Path) -> Run:
    """Make the folder of a new run, with its recipe, plan, lock and first record.

    The folder appears under its name only when it is complete enough to be resumed.
    Raises: RecipeError if `folder` exists; RunError if it cannot be written.
    """
    fingerprint = recipe.fingerprint(loaded.recipe)
    try:
        if folder is None:
            folder = files.free_name(runs_dir / loaded.name, f"{files.stamp()}-{fingerprint[:8]}")
        else:
            refuse_used(folder)
        is_ours = runs_dir.absolute() in folder.absolute().parents
        older_name = "*" if is_ours else glob.escape(folder.name)
        files.clear_drafts(folder.parent, f".{older_name}.[0-9]*.tmp")
        with files.draft(folder) as path:
            path.mkdir()
            draft = Run(path)
            draft.recipe.write_text(loaded.text, encoding="utf-8")
            draft.resolved.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
            write_json(draft.lock, lock.make(loaded, plan))
            write_json(draft.record, _first_record(loaded, plan, fingerprint))
    except OSError as error:
        raise disk_error(error, folder or runs_dir) from error
    return Run(folder)


def mark_checkpoint(folder: Path) -> None:
    """Mark a checkpoint as whole: its files are on the disk, with the sizes in the mark."""
    files.sync(folder)
    sizes = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }
    write_json(folder / CHECKPOINT_DONE, sizes)


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is marked as whole, and all its files have the sizes in the mark."""
    try:
        sizes = json.loads((folder / CHECKPOINT_DONE).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def newest_whole(checkpoints: Path) -> tuple[Path, int] | None:
    """The whole checkpoint of the highest step in a folder, and that step."""
    steps = []
    for folder in checkpoints.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        if number.isdigit() and is_whole(folder):
            steps.append((int(number), folder))
    return (max(steps)[1], max(steps)[0]) if steps else None


def _first_record(loaded: Loaded, plan: Plan, fingerprint: str) -> dict[str, Any]:
    return {
        "format": 1,
        "status": "running",
        "recipe": loaded.name,
        "description": plan.recipe.description,
        "fingerprint": fingerprint,
        "preset": plan.preset_name,
        "started": now(),
        "updated": now(),
        "attempts": 0,
        "duration_s": {},
        "evaluation": {},
        "vram": {
            "predicted_bytes": plan.predicted.peak_bytes if plan.predicted else None,
            "measured_bytes": None,
        },
        "error": None,
    }


def find(runs_dir: Path, name: str) -> Run:
    """The run with this folder, or this name in `runs_dir`.

    Raises: RecipeError when there is none.
    """
    for folder in (Path(name), runs_dir / name):
        if (folder / "record.json").is_file():
            return Run(folder)
        inner = sorted([*folder.glob("*/record.json"), *folder.glob("*/*/record.json")])
        if inner:
            hint = f"name one of them, such as `{inner[-1].parent}`; `study` shows those of a study"
            raise RecipeError(f"`{folder}` holds runs and is none itself", hint=hint)
    raise RecipeError(f"there is no run folder `{name}`", hint=_last_runs(runs_dir))


def find_unfinished(runs_dir: Path, recipe_name: str | None = None) -> Run:
    """The newest run that can be resumed, of this recipe or of any.

    Trials are left out, because it is `sweep` that resumes a study.
    Raises: RecipeError when there is none.
    """
    unfinished: list[Run] = []
    has_trials = False
    for run in all_runs(runs_dir):
        with suppress(RecipeError):  # a damaged folder does not hide the others
            record = run.read()
            if run.status() in ("complete", "running", "pruned"):
                continue
            if recipe_name not in (None, record.get("recipe")):
                continue
            if "study" in record:
                has_trials = True
            else:
                unfinished.append(run)
    if not unfinished:
        of_recipe = f" of `{recipe_name}`" if recipe_name else ""
        hint = "`sweep` resumes the trials of a study" if has_trials else _last_runs(runs_dir)
        raise RecipeError(f"there is no unfinished run{of_recipe} in `{runs_dir}`", hint=hint)
    return unfinished[-1]


def all_runs(runs_dir: Path) -> list[Run]:
    """All run folders, `runs/NAME` and `runs/RECIPE/NAME`, the oldest first."""
    records = [*runs_dir.glob("*/record.json"), *runs_dir.glob("*/*/record.json")]
    folders = [path.parent for path in records]
    runs = [
        Run(folder)
        for folder in folders
        if not any(part.startswith(".") for part in folder.relative_to(runs_dir).parts)
    ]
    return sorted(runs, key=lambda run: (_started(run), run.folder.name))


def _started(run: Run) -> str:
    """When a run began; empty where the record is damaged."""
    with suppress(RecipeError):
        return str(run.read().get("started", ""))
    return ""


def _last_runs(runs_dir: Path) -> str:
    names = [str(run.folder) for run in all_runs(runs_dir)[-3:]]
    return "the last runs: " + ", ".join(names) if names else "there are no runs yet"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, f"it cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict):
        raise _damaged(path, "it is not a JSON object")
    return data


def _damaged(path: Path, why: str) -> RecipeError:
    problem = Problem(
        f"is damaged: {why}", str(path), "start a new run, or put back a copy of this file"
    )
    return RecipeError(problems=[problem])

"""Trackers that a recipe may ask for in addition to metrics.jsonl: wandb, TensorBoard, trackio.

Their settings are the section [track] of a recipe, which is not part of its fingerprint. `check`
refuses what cannot work before anything is loaded; after that each tracker runs in its own thread,
so that one that fails or hangs costs the run nothing. No tracker may ask the user anything.
"""

import importlib.util
import math
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from r1recipes.errors import Problem, RecipeError
from r1recipes.machine import packages
from r1recipes.planning.plan import Plan
from r1recipes.recipe.targets import Track, Trackio, Wandb
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training.observers import Observer

MAX_WAITING = 10_000
"""Rows that wait for a tracker; assumed. One with more has hung, and further rows are dropped."""
FINISH_S = 60.0
"""Seconds that a run waits at its end for all trackers together; assumed."""
WANDB_TIMEOUT_S = 30
"""Seconds that wandb may take to answer; assumed."""


def check(track: Track, *, offline: bool) -> None:
    """Refuse trackers that cannot work here. Raises: RecipeError.

    If runs are to be sent to wandb, its server is asked whether the API key is valid.
    """
    if sends(track) and offline:
        raise RecipeError("wandb cannot be online in a run that is offline", hint=_KEEP_HERE)
    problems = [
        Problem(f"`track.{name}` needs {name}", None, f"`{packages.extra(name)}`")
        for name in track.names()
        if importlib.util.find_spec(name) is None
    ]
    if track.trackio:
        problems += [
            Problem(f"trackio would upload this run: {name} is set", None, f"unset {name}")
            for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
            if os.environ.get(name)
        ]
    if problems:
        raise RecipeError(problems=problems)
    if sends(track):
        _check_wandb()


def sends(track: Track) -> bool:
    """Whether a tracker sends something from this machine."""
    return track.wandb is not None and wandb_mode(track.wandb) == "online"


def wandb_mode(wandb: Wandb) -> str:
    """The mode of the recipe, or a more private one that WANDB_MODE names."""
    mode = os.environ.get("WANDB_MODE", "")
    return mode if mode in ("offline", "disabled") else wandb.mode


_KEEP_HERE = "`--wandb offline` or WANDB_MODE=offline sends nothing now; `wandb sync` does it later"


def _check_wandb() -> None:
    _quiet_wandb()
    import wandb

    try:
        has_key = wandb.login(prompt=False, verify=True, timeout=WANDB_TIMEOUT_S)
    except Exception as error:  # its errors have no common root; each means that it cannot send
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RecipeError(f"wandb cannot send: {reason[0]}", hint=_KEEP_HERE) from error
    if not has_key:
        raise RecipeError(
            "wandb has no API key on this machine",
            hint=f"`wandb login`, or WANDB_API_KEY; {_KEEP_HERE}",
        )


def _quiet_wandb() -> None:
    """Stop wandb from printing and from reporting its own errors to its maker, whose server it
    contacts for that even offline (0.31.0, seen with strace). Must run before wandb is imported."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"


class Sink(Protocol):
    """One tracker's library. Any method may raise."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, complete: bool) -> None: ...


class WandbSink:
    """A run of Weights & Biases, which a resumed run goes on with."""

    def __init__(self, section: Wandb, folder: Path, config: dict[str, Any]):
        _quiet_wandb()
        import wandb

        mode = wandb_mode(section)
        if mode == "online" and not wandb.login(prompt=False):  # or `init` might ask for a key
            raise ValueError("there is no API key on this machine")
        self._run = wandb.init(
            project=section.project,
            entity=section.entity,
            mode=mode,
            dir=folder,
            id=folder.name,
            name=folder.name,
            resume="allow",
            config=config,
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                init_timeout=WANDB_TIMEOUT_S,
                finish_timeout=FINISH_S / 2,
            ),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


class TensorboardSink:
    """Event files in a folder."""

    def __init__(self, folder: Path, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard then hides the steps of an earlier attempt that are done again.
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, complete: bool) -> None:
        self._writer.close()


class TrackioSink:
    """A run of trackio, in its database on this machine."""

    def __init__(self, section: Trackio, folder: Path, config: dict[str, Any]):
        import trackio

        self._run = trackio.init(
            project=section.project,
            name=folder.name,
            resume="allow",
            config=config,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self, complete: bool) -> None:
        self._run.finish()


class Worker:
    """Runs one tracker in its own thread."""

    def __init__(self, name: str, make: Callable[[], Sink], note: Callable[[str], None]):
        self.name = name
        self._make = make
        self._note = note
        self._is_behind = False
        self._rows: queue.Queue[tuple[int, dict[str, float]] | bool] = queue.Queue(MAX_WAITING)
        self.thread = threading.Thread(target=self._work, name=f"track-{name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            sink = self._make()
            while not isinstance(item := self._rows.get(), bool):
                sink.log(*item)
            sink.close(item)
        except Exception as error:  # of three libraries; a tracker is worth less than the run
            reason = str(error).strip().splitlines() or [""]
            self._note(f"warning: {self.name} stopped: {type(error).__name__}: {reason[0]}")

    def put(self, item: tuple[int, dict[str, float]] | bool) -> None:
        """Hand over a row, or at the end whether the run is complete.

        The first one that finds no place is told of, since it and others after it are lost.
        """
        try:
            self._rows.put_nowait(item)
        except queue.Full:
            if not self._is_behind:
                self._is_behind = True
                self._note(
                    f"warning: {self.name} has {MAX_WAITING:,} rows waiting; it does not get "
                    "those that find no place behind them (metrics.jsonl has all)"
                )


def _is_complete(run: Run) -> bool:
    """Whether the record says so; one that cannot be read says it of no run."""
    try:
        return run.read()["status"] == "complete"
    except RecipeError:
        return False


class Trackers(Observer):
    """All trackers that the recipe of a run asks for; without any, nothing happens."""

    name: ClassVar[str] = "the trackers"

    def __init__(self, note: Callable[[str], None]):
        """`note` shows a warning to the user, and is called from the threads of the trackers."""
        self._note = note
        self._workers: list[Worker] = []

    def begin(self, run: Run, plan: Plan) -> None:
        """Start the trackers."""
        track, folder = plan.recipe.track, run.folder.absolute()
        recipe = plan.recipe.model_dump(mode="json", exclude={"track"})
        config = {"preset": plan.preset_name} | recipe
        checkpoint = run.last_checkpoint()
        first_step = checkpoint[1] + 1 if checkpoint else 1
        makers: dict[str, Callable[[], Sink]] = {
            "wandb": lambda: WandbSink(track.wandb or Wandb(), folder, config),
            "tensorboard": lambda: TensorboardSink(run.tensorboard.absolute(), first_step),
            "trackio": lambda: TrackioSink(track.trackio or Trackio(), folder, config),
        }
        self._workers = [Worker(name, makers[name], self._note) for name in track.names()]

    def step(self, row: Row) -> None:
        """Hand over a row of metrics.jsonl, without values that are not finite numbers."""
        values = {
            key: float(value)
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float) and math.isfinite(value)
        }
        for worker in self._workers:
            worker.put((row["step"], values))

    def end(self, run: Run) -> None:
        """Wait a little until everything is written or sent."""
        is_complete = _is_complete(run)
        for worker in self._workers:
            worker.put(is_complete)
        for worker in self._workers:
            worker.thread.join(FINISH_S / len(self._workers))
            if worker.thread.is_alive():
                self._note(f"warning: {worker.name} has not finished; the run goes on without it")

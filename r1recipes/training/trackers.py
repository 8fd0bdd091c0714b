"""Trackers beside metrics.jsonl, for those who ask: wandb, TensorBoard, trackio.

Settings are the section [track] of a recipe, which is no part of its fingerprint. Whatever can be
refused is refused before anything is loaded (`check`); after that a tracker works in a thread of
its own, so that one that fails or hangs costs the run nothing. No prompt is ever shown.
"""

import importlib.util
import math
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from r1recipes.errors import Problem, RecipeError
from r1recipes.recipe.targets import Track, Trackio, Wandb

MAX_WAITING = 10_000
"""Rows that wait for a tracker; beyond that they are dropped, as it must have hung."""
FINISH_S = 60.0
"""Seconds that a run waits at its end for all trackers together."""
WANDB_TIMEOUT_S = 30


def check(wanted: Track, *, offline: bool) -> None:
    """Raises: RecipeError when a tracker that is asked for cannot work.

    Asks wandb's server whether the key is valid where runs are to be sent to it.
    """
    if sends(wanted) and offline:
        raise RecipeError("wandb cannot be online in a run that is offline", hint=_STAY)
    problems = [
        Problem(f"`track.{name}` needs {name}", None, f"`pip install 'r1recipes[{name}]'`")
        for name in wanted.names()
        if importlib.util.find_spec(name) is None
    ]
    if wanted.trackio:
        problems += [
            Problem(f"trackio would send this run away: {name} is set", None, f"unset {name}")
            for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
            if os.environ.get(name)
        ]
    if problems:
        raise RecipeError(problems=problems)
    if sends(wanted):
        _check_wandb()


def sends(wanted: Track) -> bool:
    """Whether something leaves this machine."""
    return wanted.wandb is not None and wandb_mode(wanted.wandb) == "online"


def wandb_mode(wanted: Wandb) -> str:
    """How wandb is to work: as asked, or less where WANDB_MODE says so."""
    said = os.environ.get("WANDB_MODE", "")
    return said if said in ("offline", "disabled") else wanted.mode


_STAY = "`--wandb offline` or WANDB_MODE=offline sends nothing now; `wandb sync` does it later"


def _check_wandb() -> None:
    _quiet_wandb()
    import wandb

    try:
        found = wandb.login(prompt=False, verify=True, timeout=WANDB_TIMEOUT_S)
    except Exception as error:  # its errors have no common root; each means that it cannot send
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise RecipeError(f"wandb cannot send: {reason[0]}", hint=_STAY) from error
    if not found:
        raise RecipeError(
            "wandb has no API key on this machine", hint=f"`wandb login`, or WANDB_API_KEY; {_STAY}"
        )


def _quiet_wandb() -> None:
    """Before wandb is imported: no lines on the screen, and no reports of its own errors, for which
    it looks its maker up even offline (0.31.0, seen with strace)."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"


class Sink(Protocol):
    """Where a tracker writes to. Any method may raise."""

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, complete: bool) -> None: ...


class WandbSink:
    def __init__(self, wanted: Wandb, folder: Path, config: dict[str, Any]):
        _quiet_wandb()
        import wandb

        mode = wandb_mode(wanted)
        if mode == "online" and not wandb.login(prompt=False):  # else `init` might ask for a key
            raise ValueError("there is no API key on this machine")
        self._run = wandb.init(
            project=wanted.project,
            entity=wanted.entity,
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
    def __init__(self, folder: Path, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        # Steps of an earlier attempt that are done again are hidden.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, complete: bool) -> None:
        self._writer.close()


class TrackioSink:
    def __init__(self, wanted: Trackio, folder: Path, config: dict[str, Any]):
        import trackio

        self._run = trackio.init(
            project=wanted.project,
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
    """One tracker in a thread of its own."""

    def __init__(self, name: str, make: Callable[[], Sink], say: Callable[[str], None]):
        self.name = name
        self._make = make
        self._say = say
        self._rows: queue.Queue = queue.Queue(MAX_WAITING)
        self.thread = threading.Thread(target=self._work, name=f"track-{name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            sink = self._make()
            while not isinstance(item := self._rows.get(), bool):
                sink.log(*item)
            sink.close(item)
        except Exception as error:
            reason = str(error).strip().splitlines() or [""]
            self._say(f"warning: {self.name} stopped: {type(error).__name__}: {reason[0]}")

    def put(self, item: tuple[int, dict[str, float]] | bool) -> None:
        """A row, or at the end whether the run is complete."""
        try:
            self._rows.put_nowait(item)
        except queue.Full:
            pass


class Trackers:
    """The trackers of one run; without any, nothing happens."""

    def __init__(
        self,
        wanted: Track,
        folder: Path,
        config: dict[str, Any],
        say: Callable[[str], None],
        *,
        first_step: int,
    ):
        folder = folder.absolute()
        makers: dict[str, Callable[[], Sink]] = {
            "wandb": lambda: WandbSink(wanted.wandb or Wandb(), folder, config),
            "tensorboard": lambda: TensorboardSink(folder, first_step),
            "trackio": lambda: TrackioSink(wanted.trackio or Trackio(), folder, config),
        }
        self._say = say
        self._workers = [Worker(name, makers[name], say) for name in wanted.names()]

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl; what is no finite number is left out."""
        values = {
            key: float(value)
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float) and math.isfinite(value)
        }
        for worker in self._workers:
            worker.put((row["step"], values))

    def close(self, complete: bool) -> None:
        """Wait a little until all is written or sent."""
        for worker in self._workers:
            worker.put(complete)
        for worker in self._workers:
            worker.thread.join(FINISH_S / len(self._workers))
            if worker.thread.is_alive():
                self._say(f"warning: {worker.name} has not finished; the run goes on without it")

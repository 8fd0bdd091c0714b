"""The live view of a run: a panel in a terminal, plain lines elsewhere.

The panel is headed by the reward, its spread, the accuracy and one sentence on whether the run is
learning; the loss is in small print, with the note of its algorithm. Limits: the view only prints;
nothing that it computes is recorded.
"""

import textwrap
import time
from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from r1recipes.errors import visible
from r1recipes.machine.units import duration
from r1recipes.planning.plan import Plan
from r1recipes.runs import health
from r1recipes.runs.health import GOOD, HeldOut, Terms, Verdict
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training.observers import Observer
from r1recipes.training.view.lines import (
    GAP,
    accuracy_line,
    fact_parts,
    flow,
    held_out_text,
    number,
    pace_parts,
    plain_line,
    reward_parts,
    small_parts,
    sparkline,
)

LINES = 20
"""Lines that a training or a cold start prints where there is no terminal."""
MIN_BAR, MAX_BAR = 10, 32
"""Columns of the bar; assumed."""


class Pace:
    """How long the steps of a stage take."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.seconds: deque[float] = deque(maxlen=health.WINDOW)
        self._is_later = False

    def restart(self) -> None:
        """A step begins now: what came before belongs to none."""
        self._last = time.monotonic()

    def step(self) -> None:
        """A step is done."""
        now = time.monotonic()
        if self._is_later:
            self.seconds.append(now - self._last)
        self._is_later, self._last = True, now

    @property
    def step_s(self) -> float | None:
        """Mean seconds of the last steps, with the evaluations and checkpoints between them. None
        after the first step alone, which also loads and compiles."""
        return sum(self.seconds) / len(self.seconds) if self.seconds else None


def say(console: Console, text: str) -> None:
    """Print a line; a terminal gets it broken between words, with each path whole."""
    text = visible(text, lines=True)
    if console.is_terminal:
        text = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class View(Observer):
    """What a person sees of one run. Without a terminal each event is printed once, as a line."""

    name: ClassVar[str] = "the live view"
    sees_stages: ClassVar[bool] = True

    def __init__(self, console: Console, live: bool | None = None):
        self.console = console
        self.run: Run | None = None
        self.plan: Plan | None = None
        self.rows: list[Row] = []
        self.held_out: list[HeldOut] = []
        self._judged: tuple[int, Verdict] | None = None
        self._phase, self._done, self._total = "", 0, 0
        self._phase_began = time.monotonic()
        self._pace = Pace()
        self._losses: list[float | None] = []
        is_live = live if live is not None else console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)
            if is_live
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        say(self.console, text)

    def begin(self, run: Run, plan: Plan) -> None:
        """The run folder exists: say what will be done in it."""
        self.run, self.plan = run, plan
        recipe = plan.recipe
        self.note(f"{recipe.model.name}  preset {plan.preset_name}  {plan.batch_sentence()}")
        if plan.origin:
            for line in plan.origin.sentences(recipe.cold_start is not None):
                self.note(line)
        if plan.predicted:
            self.note(f"memory: {plan.predicted.sentence()}")
            if plan.predicted.why:
                ways = "; or ".join(plan.predicted.ways)
                self.note(f"warning: {plan.predicted.why}" + (f"; {ways} fits" if ways else ""))
        if plan.device == "cuda" and plan.backend == "trl":
            self.note("warning: plain TRL generates slowly; `pip install -e '.[gpu]'` brings vLLM")
        if plan.eval_problems:
            every = f"every {plan.recipe.eval.every} steps"
            self.note(f"{every} {plan.eval_problems} held-out problems are answered once")
        self.note(f"run folder {run.folder}")

    def phase(self, title: str) -> None:
        """A stage begins."""
        self._phase, self._done, self._total = title, 0, 0
        self._phase_began = time.monotonic()
        self._pace, self._losses = Pace(), []
        if not self._live:
            self.note(f"{title} ...")

    def stage(self, title: str, plan: Plan, *, is_last: bool) -> None:
        """A stage begins: what is shown from here on is of it."""
        self.plan, self.rows, self._judged = plan, [], None
        self.note(f"Stage {title}: {plan.algorithm.title}, {plan.batch_sentence()}")

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` steps or completions of the stage are done."""
        self._done, self._total = done, total

    def loss(self, value: float) -> None:
        """A step of the cold start is done, which had this loss."""
        self._pace.step()
        self._losses.append(value)
        done, total = self._done, self._total
        if self._live and done == total:
            spent = duration(time.monotonic() - self._phase_began)
            self.note(f"{self._phase}: {total} steps in {spent}, loss {value:.3f}")
        if not self._live and self._has_line(done, total):
            line = [f"step {done}/{total}", f"loss {value:.3f}", *self._times()]
            self.note(GAP.join(line))

    def resume_at(self, rows: Sequence[Row]) -> None:
        """Training goes on after the steps of an earlier attempt, if there are any."""
        self.rows = list(rows)
        self._pace.restart()
        if rows:
            self.note(f"Going on after step {rows[-1]['step']}")

    def step(self, row: Row) -> None:
        """An optimiser step is done."""
        self._pace.step()
        self.rows.append(row)
        assert self.plan is not None
        total = self.plan.recipe.train.max_steps
        self.progress(row["step"], total)
        if not self._live and self._has_line(row["step"], total):
            self.note(plain_line(row, total, self._times(), self.plan.algorithm))
            if row["step"] % (5 * _every(total)) == 0 or row["step"] == total:
                self.note(f"  {self.sentence()}")
        if not self._live and (text := held_out_text([row])):
            self.note(f"  {text}")

    def _has_line(self, step: int, total: int) -> bool:
        return step % _every(total) == 0 or step in (1, total)

    def trained(self) -> None:
        """Training ended or was stopped: leave a line where the panel was."""
        if self.rows and self._live:
            spent = duration(time.monotonic() - self._phase_began)
            self.note(f"Trained to step {self.rows[-1]['step']} in {spent}. {self.sentence()}")

    def evaluated(self, when: str, evaluation: Row) -> None:
        """An evaluation is done: print its accuracy."""
        self.note(f"{when.capitalize():<7} {accuracy_line(evaluation)}")
        if when == "before":
            self.held_out = [HeldOut.of_summary(0, evaluation)]

    def verdict(self) -> Verdict:
        """Whether the run is learning; judged once a step, though the panel is drawn more often."""
        assert self.plan is not None
        if self._judged is None or self._judged[0] != len(self.rows):
            terms = Terms.of(self.plan.model_dump())
            self._judged = len(self.rows), health.verdict(self.rows, terms, self.held_out)
        return self._judged[1]

    def sentence(self) -> str:
        """The verdict in words."""
        return self.verdict().sentence

    def seconds_left(self) -> float | None:
        """Time to the end of the stage: from its last steps, or else from all that it has done."""
        remaining = self._total - self._done
        if self._pace.step_s is not None:
            return self._pace.step_s * remaining
        if not self._done or self._has_steps():
            return None
        return (time.monotonic() - self._phase_began) / self._done * remaining

    def _has_steps(self) -> bool:
        """Whether the stage has steps, which may begin in its middle: it goes on from one."""
        return self._phase.startswith(("Training", "Cold start"))

    def _times(self) -> list[str]:
        return pace_parts(self._pace.step_s, self.seconds_left())

    def render(self) -> RenderableType:
        """The panel of the terminal, in lines of at most its width."""
        parts: list[RenderableType] = [self._bar()]
        if self._phase.startswith("Training") and self.rows:
            parts += self._metrics()
        elif self._losses:
            parts.append(self._head("loss", f"{self._losses[-1]:.3f}", "", self._losses))
        return Group(*parts)

    def _bar(self) -> RenderableType:
        """Stage, bar, count and times: on one line, or on as many as the width needs."""
        spent = duration(time.monotonic() - self._phase_began)
        count = f"{self._done}/{self._total}" if self._total else ""
        times, width = ", ".join([spent, *reversed(self._times())]), self.console.width
        room = width - sum(cell_len(text) + 1 for text in (self._phase, count, times))
        end = Text(times, "dim")
        if room >= MIN_BAR:
            return _row(Text(self._phase, "bold"), self._progress_bar(room), count, end)
        head, room = Text.assemble((self._phase, "bold"), GAP, count), width - cell_len(times) - 1
        if room >= MIN_BAR:
            return Group(head, _row(self._progress_bar(room), end))
        return Group(head, _row(self._progress_bar(width)), end)

    def _progress_bar(self, room: int) -> ProgressBar:
        return ProgressBar(
            total=self._total or None,
            completed=self._done,
            width=min(MAX_BAR, max(MIN_BAR, room)),
            pulse=not self._total,
        )

    def _head(self, key: str, value: str, most: str, values: Sequence[float | None]) -> Text:
        """The number that matters most, and how it got there."""
        head = Text.assemble((f"{key} ", "dim"), (f"{value} ", "bold"), (most, "dim"))
        room = self.console.width - head.cell_len
        if room >= MIN_BAR:
            head.append(sparkline(values, min(40, room)), "cyan")
        return head

    def _metrics(self) -> list[RenderableType]:
        assert self.plan is not None
        row, verdict, algorithm = self.rows[-1], self.verdict(), self.plan.algorithm
        style, width = "green" if verdict.kind in GOOD else "yellow", self.console.width
        key = "reward" if algorithm.samples else "loss"
        most = f"of {self._max_reward():g}" if algorithm.samples else algorithm.title
        values = [r.get(key) for r in self.rows]
        lines = [
            self._head(key, f"{number(row, key):.2f}", f"{most}{GAP}", values),
            Text(flow(reward_parts(row), width), "dim"),
            Text(flow(fact_parts(row, algorithm, with_interval=True), width)),
            Text(verdict.sentence, style),
            Text(flow(small_parts(row, self._loss_note()), width), "dim"),
        ]
        if text := held_out_text(self.rows):
            lines.insert(3, Text(text))
        for line in lines:
            line.overflow = "fold"
        return list(lines)

    def _loss_note(self) -> str:
        assert self.plan is not None
        return self.plan.algorithm.note_on_loss

    def _max_reward(self) -> float:
        assert self.plan is not None
        return sum(self.plan.recipe.rewards.values())


def _row(*cells: RenderableType) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_row(*cells)
    return table


def _every(total: int) -> int:
    """Steps from one line to the next."""
    return max(1, total // LINES)

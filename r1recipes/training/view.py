"""The live view of a run: a panel in a terminal, plain lines elsewhere.

The panel is headed by the reward, its spread, the accuracy and one sentence on whether the run is
learning; the loss is in small print, with the note of its algorithm. Limits: the view only prints;
nothing that it computes is recorded.
"""

import math
import statistics
import textwrap
import time
from collections.abc import Sequence
from typing import ClassVar, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from r1recipes.algorithms import GRPO, Algorithm
from r1recipes.errors import visible
from r1recipes.machine import packages
from r1recipes.machine.units import clock, percent
from r1recipes.planning.plan import Plan
from r1recipes.runs import health
from r1recipes.runs.health import GOOD, HeldOut, Terms, Verdict
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training.observers import Observer

BLOCKS = "▁▂▃▄▅▆▇█"
LINES = 20
"""Lines that a run prints where there is no terminal."""


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
        self.plan: Plan | None = None
        self.rows: list[Row] = []
        self.held_out: list[HeldOut] = []
        self._judged: tuple[int, Verdict] | None = None
        self._phase, self._done, self._total = "", 0, 0
        self._phase_began = self._step_began = time.monotonic()
        self._step_times: list[float] = []
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
        self.plan = plan
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
            self.note(f"warning: plain TRL generates slowly; `{packages.extra('gpu')}` brings vLLM")
        if plan.eval_problems:
            every = f"every {plan.recipe.eval.every} steps"
            self.note(f"{every} {plan.eval_problems} held-out problems are answered once")
        self.note(f"run folder {run.folder}")

    def phase(self, title: str) -> None:
        """A stage begins."""
        self._phase, self._done, self._total = title, 0, 0
        self._phase_began = time.monotonic()
        if not self._live:
            self.note(f"{title} ...")

    def stage(self, title: str, plan: Plan, *, is_last: bool) -> None:
        """A stage begins: what is shown from here on is of it."""
        self.plan, self.rows, self._judged, self._step_times = plan, [], None, []
        self.note(f"Stage {title}: {plan.algorithm.title}, {plan.batch_sentence()}")

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` steps or completions of the stage are done."""
        self._done, self._total = done, total

    def resume_at(self, rows: Sequence[Row]) -> None:
        """Training goes on after the steps of an earlier attempt, if there are any."""
        self.rows = list(rows)
        self._step_began = time.monotonic()
        if rows:
            self.note(f"Going on after step {rows[-1]['step']}")

    def step(self, row: Row) -> None:
        """An optimiser step is done."""
        now = time.monotonic()
        self._step_times = [*self._step_times, now - self._step_began][-health.WINDOW :]
        self._step_began = now
        self.rows.append(row)
        assert self.plan is not None
        total = self.plan.recipe.train.max_steps
        self.progress(row["step"], total)
        every = max(1, total // LINES)
        if not self._live and (row["step"] % every == 0 or row["step"] in (1, total)):
            self.note(plain_line(row, total, self.seconds_left(), self.plan.algorithm))
            if row["step"] % (5 * every) == 0 or row["step"] == total:
                self.note(f"  {self.sentence()}")
        if not self._live and (text := held_out_text([row])):
            self.note(f"  {text}")

    def trained(self) -> None:
        """Training ended or was stopped: leave a line where the panel was."""
        if self.rows and self._live:
            spent = clock(time.monotonic() - self._phase_began)
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
        """Time to the end of the stage, in training from the median of the last steps."""
        remaining = self._total - self._done
        if self._phase.startswith("Training"):
            return statistics.median(self._step_times) * remaining if self._step_times else None
        spent = time.monotonic() - self._phase_began
        return spent / self._done * remaining if self._done else None

    def render(self) -> RenderableType:
        """The panel of the terminal."""
        parts: list[RenderableType] = [self._bar()]
        if self._phase.startswith("Training") and self.rows:
            parts += self._metrics()
        return Group(*parts)

    def _bar(self) -> Table:
        seconds_left = self.seconds_left()
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(
            total=self._total or None,
            completed=self._done,
            width=min(32, max(10, self.console.width - 48)),
            pulse=not self._total,
        )
        count = f"{self._done}/{self._total}" if self._total else ""
        spent = clock(time.monotonic() - self._phase_began)
        times = spent if seconds_left is None else f"{spent}, {clock(seconds_left)} left"
        table.add_row(Text(self._phase, "bold"), bar, count, Text(times, "dim"))
        return table

    def _metrics(self) -> list[RenderableType]:
        assert self.plan is not None
        row, verdict, algorithm = self.rows[-1], self.verdict(), self.plan.algorithm
        style = "green" if verdict.kind in GOOD else "yellow"
        key = "reward" if algorithm.samples else "loss"
        most = f"of {self._max_reward():g}" if algorithm.samples else algorithm.title
        head = Text.assemble(
            (f"{key} ", "dim"),
            (f"{number(row, key):.2f} ", "bold"),
            (f"{most}  ", "dim"),
            (sparkline([r.get(key) for r in self.rows]), "cyan"),
        )
        parts = Text("  ".join(reward_parts(row)), "dim")
        facts = "  ".join(fact_parts(row, algorithm, with_interval=True))
        small = Text("  ".join(small_parts(row, self._loss_note())), "dim")
        lines = [head, parts, Text(facts), Text(verdict.sentence, style), small]
        if text := held_out_text(self.rows):
            lines.insert(3, Text(text))
        for line in lines:
            line.no_wrap, line.overflow = line is head, "fold"
        return list(lines)

    def _loss_note(self) -> str:
        assert self.plan is not None
        return self.plan.algorithm.note_on_loss

    def _max_reward(self) -> float:
        assert self.plan is not None
        return sum(self.plan.recipe.rewards.values())


def number(row: Row, key: str) -> float:
    """A value of a row, NaN where it is missing."""
    value = row.get(key)
    return math.nan if value is None else float(value)


def reward_parts(row: Row) -> list[str]:
    """The mean of each reward, without its weight: `correctness 0.62`."""
    means = [key for key in row if key.startswith("rewards/") and key.endswith("/mean")]
    return [f"{key[8:-5]} {number(row, key):.2f}" for key in means]


def fact_parts(row: Row, algorithm: Algorithm = GRPO, *, with_interval: bool = False) -> list[str]:
    """Accuracy, spread, length and share of cut completions of a step; of an algorithm that samples
    none, how well it fits its examples."""
    if algorithm.learned:
        facts = [fact for fact in algorithm.learned.facts if row.get(fact[0]) is not None]
        values = [(name, number(row, key), unit) for key, name, unit in facts]
        return [f"{name} {percent(v) if unit else f'{v:.2f}'}" for name, v, unit in values]
    parts = [f"spread {number(row, 'reward_std'):.2f}"]
    if row.get("accuracy") is not None:
        keys = ("accuracy_low", "accuracy_high") if with_interval else ()
        parts.insert(0, f"accuracy {percent(number(row, 'accuracy'))}{interval_text(row, *keys)}")
    if row.get("frac_reward_zero_std") is not None:
        parts.append(f"groups without spread {percent(number(row, 'frac_reward_zero_std'))}")
    parts.append(f"length {number(row, 'completions/mean_length'):.0f}")
    parts.append(f"cut {percent(number(row, 'completions/clipped_ratio'))}")
    if calls := row.get("judge/calls"):
        tokens, seconds = row["judge/tokens"], row["judge/seconds"]
        parts.append(f"judge {calls} calls, {tokens:,} tokens, {seconds:.1f} s")
    failures = sum(row.get("reward_failures", {}).values())
    return parts + ([f"reward failures {failures}"] if failures else [])


def interval_text(row: Row, low: str = "", high: str = "") -> str:
    """` (38% to 50%)`; empty where the row has no such interval."""
    if row.get(low) is None or row.get(high) is None:
        return ""
    return f" ({percent(number(row, low))} to {percent(number(row, high))})"


def held_out_text(rows: Sequence[Row]) -> str:
    """The last evaluation of `eval.every`; empty where the rows have none."""
    row = next((row for row in reversed(rows) if row.get(health.ACCURACY) is not None), None)
    if row is None:
        return ""
    accuracy = percent(number(row, health.ACCURACY)) + interval_text(row, health.LOW, health.HIGH)
    return (
        f"held out, step {row['step']}: accuracy {accuracy}, "
        f"{row[health.NUM_PROBLEMS]} problems x 1 sample"
    )


def small_parts(row: Row, loss_note: str) -> list[str]:
    """Values for experts, and what is to be known of the loss."""
    parts = [f"grad norm {number(row, 'grad_norm'):.2f}", f"lr {number(row, 'learning_rate'):.1e}"]
    if row.get("kl") is not None:
        parts.append(f"KL {row['kl']:.4f}")
    loss = f"loss {number(row, 'loss'):.4f}"
    return [*parts, f"{loss} ({loss_note})" if loss_note else loss]


def plain_line(row: Row, total: int, seconds_left: float | None, algorithm: Algorithm) -> str:
    """One step as a line of a log file."""
    paid = f"reward {number(row, 'reward'):.2f}"
    first = paid if algorithm.samples else f"loss {number(row, 'loss'):.3f}"
    time_left = [f"{clock(seconds_left)} left"] if seconds_left else []
    parts = [f"step {row['step']}/{total}", first, *fact_parts(row, algorithm), *time_left]
    return "  ".join(parts)


def accuracy_line(evaluation: Row) -> str:
    """`accuracy 42.1% (38.0% to 46.3%), greedy 61.0%, ... length 31, cut 0%`."""
    low, high = evaluation["interval"]
    return (
        f"accuracy {evaluation['accuracy']:.1%} ({low:.1%} to {high:.1%}), "
        f"greedy {evaluation['greedy']:.1%}, "
        f"{evaluation['num_problems']} problems x {evaluation['num_samples']} samples, "
        f"length {evaluation['mean_length']:.0f}, cut {evaluation['share_cut']:.0%}"
    )


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """The values as at most `width` block characters, each the mean of some; NaN is left out."""
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return ""
    size = max(1, math.ceil(len(finite) / width))
    means = [statistics.fmean(finite[i : i + size]) for i in range(0, len(finite), size)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in means)

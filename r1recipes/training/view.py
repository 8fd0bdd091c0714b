"""The live view of a run: a panel in a terminal, plain lines elsewhere. It prints and computes
nothing that is recorded.

The headline is the reward, its spread, the accuracy and one sentence on whether it is learning;
the loss is small, since its value says nothing in GRPO.
"""

import math
import statistics
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from r1recipes.machine.units import clock, percent
from r1recipes.planning.plan import Plan
from r1recipes.runs import health
from r1recipes.runs.record import Run

BLOCKS = "▁▂▃▄▅▆▇█"
GOOD = ("Learning", "Learned", "Nothing left", "Nearly all right")
"""How `health.sentence` begins when nothing has to be done."""
LINES = 20
"""Lines that a run prints where there is no terminal."""


def say(console: Console, text: str) -> None:
    """Print a line; a terminal gets it broken between words, with each path whole."""
    if console.is_terminal:
        text = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class View:
    """What a person sees of one run. Without a terminal each thing is printed once, as a line."""

    def __init__(self, console: Console, live: bool | None = None):
        self.console = console
        self.plan: Plan | None = None
        self.rows: list[dict[str, Any]] = []
        self._phase, self._done, self._total = "", 0, 0
        self._phase_began = self._step_began = time.monotonic()
        self._step_times: list[float] = []
        is_live = live if live is not None else console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)
            if is_live
            else None
        )

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        say(self.console, text)

    def begin(self, run: Run, plan: Plan) -> None:
        """The run folder is there; say what will be done in it."""
        self.plan = plan
        recipe = plan.recipe
        self.note(f"{recipe.model.name}  preset {plan.preset_name}  {plan.batch_sentence()}")
        if plan.predicted:
            self.note(f"memory: {plan.predicted.sentence()}")
            if plan.predicted.why:
                ways = "; or ".join(plan.predicted.ways)
                self.note(f"warning: {plan.predicted.why}" + (f"; {ways} fits" if ways else ""))
        if plan.device == "cuda" and plan.backend == "trl":
            self.note("warning: plain TRL generates slowly; `pip install -e '.[gpu]'` brings vLLM")
        self.note(f"run folder {run.folder}")

    def phase(self, title: str) -> None:
        """A stage begins."""
        self._phase, self._done, self._total = title, 0, 0
        self._phase_began = time.monotonic()
        if not self._live:
            self.note(f"{title} ...")

    def progress(self, done: int, total: int) -> None:
        """Steps or problems of the stage that are done."""
        self._done, self._total = done, total

    def resume_at(self, rows: Sequence[dict[str, Any]]) -> None:
        """Training goes on after the steps of an earlier attempt."""
        self.rows = list(rows)
        self._step_began = time.monotonic()
        if rows:
            self.note(f"Going on after step {rows[-1]['step']}")

    def step(self, row: dict[str, Any]) -> None:
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
            self.note(plain_line(row, total, self.seconds_left()))
            if row["step"] % (5 * every) == 0 or row["step"] == total:
                self.note(f"  {self.sentence()}")

    def trained(self) -> None:
        """Training ended, or stopped: a line stays where the panel was."""
        if self.rows and self._live:
            spent = clock(time.monotonic() - self._phase_began)
            self.note(f"Trained to step {self.rows[-1]['step']} in {spent}. {self.sentence()}")

    def evaluated(self, when: str, found: dict[str, Any]) -> None:
        """An evaluation is done."""
        self.note(f"{when.capitalize():<7} {accuracy_line(found)}")

    def sentence(self) -> str:
        """Whether the run is learning."""
        assert self.plan is not None
        return health.sentence(
            self.rows,
            max_completion_length=self.plan.preset.max_completion_length,
            max_reward=sum(self.plan.recipe.rewards.values()),
        )

    def seconds_left(self) -> float | None:
        """Time to the end of the stage, from the median of the last steps."""
        left = self._total - self._done
        if self._phase == "Training":
            return statistics.median(self._step_times) * left if self._step_times else None
        spent = time.monotonic() - self._phase_began
        return spent / self._done * left if self._done else None

    def render(self) -> RenderableType:
        """The panel of the terminal."""
        parts: list[RenderableType] = [self._bar()]
        if self._phase == "Training" and self.rows:
            parts += self._metrics()
        return Group(*parts)

    def _bar(self) -> Table:
        left = self.seconds_left()
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(
            total=self._total or None,
            completed=self._done,
            width=min(32, max(10, self.console.width - 48)),
            pulse=not self._total,
        )
        count = f"{self._done}/{self._total}" if self._total else ""
        spent = clock(time.monotonic() - self._phase_began)
        times = f"{spent}, {clock(left)} left" if left is not None else spent
        table.add_row(Text(self._phase, "bold"), bar, count, Text(times, "dim"))
        return table

    def _metrics(self) -> list[RenderableType]:
        row, sentence = self.rows[-1], self.sentence()
        style = "green" if sentence.startswith(GOOD) else "yellow"
        head = Text.assemble(
            ("reward ", "dim"),
            (f"{number(row, 'reward'):.2f} ", "bold"),
            (f"of {self._max_reward():g}  ", "dim"),
            (sparkline([r.get("reward") for r in self.rows]), "cyan"),
        )
        parts = Text("  ".join(reward_parts(row)), "dim")
        facts = "  ".join(fact_parts(row))
        small = Text("  ".join(small_parts(row)), "dim")
        lines = [head, parts, Text(facts), Text(sentence, style), small]
        for line in lines:
            line.no_wrap, line.overflow = line is head, "fold"
        return list(lines)

    def _max_reward(self) -> float:
        assert self.plan is not None
        return sum(self.plan.recipe.rewards.values())


def number(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    return math.nan if value is None else float(value)


def reward_parts(row: dict[str, Any]) -> list[str]:
    """Mean of each reward before its weight, such as `correctness 0.62`."""
    means = [key for key in row if key.startswith("rewards/") and key.endswith("/mean")]
    return [f"{key[8:-5]} {number(row, key):.2f}" for key in means]


def fact_parts(row: dict[str, Any]) -> list[str]:
    """Accuracy, spread, length and cut of a step."""
    parts = [f"spread {number(row, 'reward_std'):.2f}"]
    if row.get("accuracy") is not None:
        parts.insert(0, f"accuracy {percent(number(row, 'accuracy'))}")
    parts.append(f"groups without spread {percent(number(row, 'frac_reward_zero_std'))}")
    parts.append(f"length {number(row, 'completions/mean_length'):.0f}")
    parts.append(f"cut {percent(number(row, 'completions/clipped_ratio'))}")
    failures = sum(row.get("reward_failures", {}).values())
    return parts + ([f"reward failures {failures}"] if failures else [])


def small_parts(row: dict[str, Any]) -> list[str]:
    """What experts look at."""
    parts = [f"grad norm {number(row, 'grad_norm'):.2f}", f"lr {number(row, 'learning_rate'):.1e}"]
    if row.get("kl") is not None:
        parts.append(f"KL {row['kl']:.4f}")
    return [*parts, f"loss {number(row, 'loss'):.4f} (near 0 is normal for GRPO)"]


def plain_line(row: dict[str, Any], total: int, left: float | None) -> str:
    """One step as a line of a log file."""
    ahead = f"  {clock(left)} left" if left else ""
    return (
        f"step {row['step']}/{total}  reward {number(row, 'reward'):.2f}  "
        + "  ".join(fact_parts(row))
        + ahead
    )


def accuracy_line(found: dict[str, Any]) -> str:
    """`accuracy 42.1 % (38.0 to 46.3), greedy 61.0 %, length 31, cut 0 %`."""
    low, high = found["interval"]
    return (
        f"accuracy {found['accuracy']:.1%} ({low:.1%} to {high:.1%}), "
        f"greedy {found['greedy']:.1%}, "
        f"{found['num_problems']} problems x {found['num_samples']} samples, "
        f"length {found['mean_length']:.0f}, cut {found['share_cut']:.0%}"
    )


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """Means of `width` slices of the values as block characters."""
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not known:
        return ""
    size = max(1, math.ceil(len(known) / width))
    means = [statistics.fmean(known[i : i + size]) for i in range(0, len(known), size)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in means)

"""The page of all runs and studies of a folder: what each cell of its tables shows.

The reader sorts, filters and selects in the browser (`overview.js`), by what the cells carry.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from r1recipes.machine.units import duration
from r1recipes.report import page
from r1recipes.report.charts import scales
from r1recipes.report.charts.scales import Scale
from r1recipes.report.serve.folder import Snapshot
from r1recipes.report.serve.summary import DAMAGED, Summary
from r1recipes.runs.record.schema import STATUSES

STATES = (*STATUSES, "killed", DAMAGED)
WIDTH, HEIGHT, AIR = 96, 24, 2
"""Units of a sparkline, which is shown at one pixel each; and the room round it."""


@dataclass(frozen=True)
class Live:
    """What every page of the server knows of itself. `tag` changes when the page does."""

    tag: str
    num_pending: int = 0
    """Runs that are not read yet: the page asks again soon."""
    place: str = ""
    is_overview: bool = False


@dataclass(frozen=True)
class Shown:
    """A run as its row shows it; what is not there is an empty text."""

    run: Summary

    @staticmethod
    def sorted(value: float | None) -> str:
        """A number by which the rows are sorted."""
        return "" if value is None else f"{value:.9g}"

    @property
    def id(self) -> str:
        """The part of the key that the recipe's name does not say."""
        return self.run.key.removeprefix(f"{self.run.recipe}/")

    @property
    def seconds(self) -> str:
        return scales.text(self.run.seconds_a_step)

    @property
    def left(self) -> str:
        return "" if self.run.seconds_left is None else duration(self.run.seconds_left)

    @property
    def value(self) -> str:
        return scales.text(self.run.value)

    @property
    def curve(self) -> Markup:
        return spark(self.run.curve)

    @property
    def before(self) -> str:
        """The accuracy before training, where there is another one to compare it with."""
        has_newer = self.run.after is not None or self.run.latest is not None
        return scales.text(self.run.before, "%").removesuffix(" %") if has_newer else ""

    @property
    def accuracy(self) -> str:
        return scales.text(self.run.accuracy, "%").replace(" ", "\u00a0")

    @property
    def when(self) -> str:
        return self.run.started.replace("T", " ")[:16]


def spark(values: Sequence[float]) -> Markup:
    """A curve without axes, from its lowest to its highest value; a drawing for the eye alone."""
    if not values:
        return Markup("")
    low, high = min(values), max(values)
    x = Scale(0, max(1, len(values) - 1), AIR, WIDTH - AIR)
    y = Scale(low, high, HEIGHT - AIR, AIR) if high > low else Scale(low - 1, low + 1, HEIGHT, 0)
    points = [f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values)]
    path = "M" + "L".join(points if len(points) > 1 else points * 2)
    return Markup(
        '<svg class="t0" viewBox="0 0 {} {}" aria-hidden="true"><path d="{}"/></svg>'
    ).format(WIDTH, HEIGHT, path)


def html(snapshot: Snapshot, tag: str, place: str) -> str:
    """The page; `place` says which runs it has, such as the path of their folder."""
    num_pending = snapshot.num_pending
    return page.render_live(
        "live_overview.html",
        title="Runs",
        kicker="",
        live=Live(tag, num_pending, place, is_overview=True),
        counts=counts(snapshot),
        states=STATES,
        runs=[Shown(run) for run in snapshot.runs],
        studies=snapshot.studies,
    )


def counts(snapshot: Snapshot) -> str:
    """`3 running, 90 complete, 7 failed.`, and what is not shown or not read yet."""
    numbers = Counter(run.state for run in snapshot.runs)
    parts = [f"{numbers[state]} {state}" for state in STATES if numbers[state]]
    text = f"{', '.join(parts)}." if parts else ""
    if snapshot.num_hidden:
        text += f" {snapshot.num_hidden:,} older runs are not shown."
    if snapshot.num_pending:
        text += f" The steps of {snapshot.num_pending} are being read."
    return text

"""The templates of the pages: one environment, and the data that every page may hold.

A page is one HTML file that asks for nothing. Whatever a template is handed is text and is escaped;
only the drawings, the style and the script are markup. A content security policy forbids every
request, and every script other than the page's own, whatever a completion may contain.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from r1recipes.errors import visible
from r1recipes.report.charts import Chart, Plot, csv, drawing, has_data

TEMPLATES = Path(__file__).with_name("templates")
LIVE_TEMPLATES = Path(__file__).parent / "serve" / "templates"
"""What `serve` adds to the pages."""
CHARACTERS_OF_LINE = 44
"""Characters of a line of text on a phone; assumed, a longer text can be opened."""


@dataclass(frozen=True)
class Pill:
    """A short word on a coloured ground; `tone` is good, bad or empty."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Key:
    """The name of a run, or of another thing that charts draw in the colour `tone`."""

    text: str
    tone: int


@dataclass(frozen=True)
class Link:
    """A text that leads to a file beside the page; `path` is relative to the page's folder."""

    text: str
    path: str

    @property
    def address(self) -> str:
        """The path as a browser wants it, never one of a scheme such as `javascript:`."""
        return "./" + quote(self.path)


Cell = str | int | float | Pill | Key | Link | None


@dataclass(frozen=True)
class Command:
    """A line for a terminal, and the sentence that says what it does."""

    sentence: str
    line: str


@dataclass(frozen=True)
class Headline:
    """The result in large letters, with sentences below; `tone` is better, worse or empty."""

    headline: str
    """Empty where no one result can be named; the sentences then stand alone."""
    sentences: Sequence[str] = ()
    """The first is the verdict, in larger letters than the others."""
    tone: str = ""
    label: str = ""
    """What the number is, above it."""
    before: str = ""
    """The value before training, in front of a headline that is the value after it."""
    is_sentence: bool = False
    """Whether the headline is a sentence, not a number."""
    command: Command | None = None
    """What goes on from here, where something is left to do."""


@dataclass(frozen=True)
class Figures:
    """Charts under one title; those without data are left out."""

    title: str
    charts: Sequence[Chart]
    note: str = ""
    is_folded: bool = False
    """Closed at first on a phone, where few look at it."""


@dataclass(frozen=True)
class Placed:
    """A chart in a grid: the class of its card, and whether that card is ever a wide one."""

    chart: Chart
    kind: str
    is_wide: bool


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways where it does not fit. Every column has a name."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers only, which are aligned on the right."""
        return [
            bool(self.rows) and all(row[i] is None or _is_number(row[i]) for row in self.rows)
            for i in range(len(self.header))
        ]


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float)


@cache
def environment() -> Environment:
    """Jinja2 with the templates: everything is escaped, and a name that is missing is an error."""
    jinja = Environment(
        loader=FileSystemLoader([TEMPLATES, LIVE_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "svg": drawing.svg,
        "wide": lambda chart: drawing.svg(chart, drawing.WIDE),
        "csv": csv,
        "attributes": attributes,
        "placed": placed,
    }
    jinja.tests |= {
        "drawable": has_data,
        "longer": is_longer,
        "pill": lambda cell: isinstance(cell, Pill),
        "key": lambda cell: isinstance(cell, Key),
        "link": lambda cell: isinstance(cell, Link),
    }
    return jinja


def placed(charts: Sequence[Chart]) -> list[Placed]:
    """The charts that have data, as cards that fill their rows, so that none is left over alone.

    A row has three columns. Of charts that are one or two too many for full rows, the first two or
    four are half a row wide each; one chart has a row. In two columns, the first of an odd number
    has a row (page.css).
    """
    drawable = [chart for chart in charts if has_data(chart)]
    num_halves = {0: 0, 1: 4, 2: 2}[len(drawable) % 3]
    cards = []
    for number, chart in enumerate(drawable):
        is_row = number == 0 and len(drawable) % 2 == 1
        kind = "whole" if len(drawable) == 1 else "half" if number < num_halves else "third"
        is_wide = is_row or kind != "third"
        cards.append(Placed(chart, f"{kind} row" if is_row else kind, is_wide))
    return cards


def is_longer(text: str, num_lines: int) -> bool:
    """Whether a text needs more than `num_lines` lines on a phone."""
    return sum(1 + len(line) // CHARACTERS_OF_LINE for line in text.split("\n")) > num_lines


def render(template: str, **data: object) -> str:
    """A whole page. `data` are the names that the template uses.

    Raises: jinja2.UndefinedError when one of them is missing.
    """
    return _render(template, Assets((TEMPLATES / "page.js",), (TEMPLATES / "page.css",)), data)


def render_live(template: str, **data: object) -> str:
    """A page that asks the server that it came from for what is new, and nobody else.

    Raises: jinja2.UndefinedError when one of the names that it uses is missing.
    """
    return _render(template, live_assets(), data)


@dataclass(frozen=True)
class Assets:
    """The files that become the script and the style of a page, and what else it is allowed."""

    scripts: tuple[Path, ...]
    styles: tuple[Path, ...]
    allowed: str = ""

    @cached_property
    def policy(self) -> str:
        """The content security policy of a page with them."""
        digest = base64.b64encode(hashlib.sha256(_joined(self.scripts).encode()).digest()).decode()
        return (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
            f"{self.allowed}img-src data: blob:; base-uri 'none'; form-action 'none'"
        )

    def names(self) -> dict[str, object]:
        """What `page.html` needs of them."""
        style, script = Markup(_joined(self.styles)), Markup(_joined(self.scripts))
        return {"policy": self.policy, "style": style, "script": script}


@cache
def live_assets() -> Assets:
    """What the pages of the server are made of."""
    scripts = (TEMPLATES / "page.js", LIVE_TEMPLATES / "live.js", LIVE_TEMPLATES / "overview.js")
    styles = (TEMPLATES / "page.css", LIVE_TEMPLATES / "live.css")
    return Assets(scripts, styles, "connect-src 'self'; ")


def _render(template: str, assets: Assets, data: dict[str, object]) -> str:
    text = environment().get_template(template).render(assets.names() | data)
    # Of foreign text nothing is hidden; a lone surrogate, which JSON can hold, is no UTF-8 either.
    return visible(text, lines=True)


@cache
def _joined(paths: tuple[Path, ...]) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def attributes(chart: Chart) -> dict[str, str | int]:
    """Attributes of a chart's figure, from which the script names the values under the pointer.

    Bars, and points with labels, have titles instead.
    """
    if not isinstance(chart, Plot) or any(series.labels for series in chart.series):
        return {"data-key": chart.key}
    return {
        "data-key": chart.key,
        "data-series": json.dumps(_columns(chart), ensure_ascii=False),
        "data-count": len(chart.table()) - 1,
        "data-x": chart.x_label,
        "data-unit": chart.unit,
        "data-x-unit": chart.x_unit,
    }


def _columns(plot: Plot) -> list[tuple[str, int, bool]]:
    """Of each series its name, its tone, and whether two columns with its interval follow."""
    return [
        (series.name, drawing.colour(series.tone, index), bool(series.low and series.high))
        for index, series in enumerate(plot.series)
    ]

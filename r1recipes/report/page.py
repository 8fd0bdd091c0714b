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
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from r1recipes.errors import visible
from r1recipes.report.charts import Chart, Plot, csv, drawing, has_data

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Pill:
    """A short word on a coloured ground; `tone` is good, bad or empty."""

    text: str
    tone: str = ""


Cell = str | int | float | Pill | None


@dataclass(frozen=True)
class Headline:
    """The result in large letters, with sentences below; `tone` is better, worse or empty."""

    headline: str
    sentences: Sequence[str] = ()
    tone: str = ""
    before: str = ""
    """The value before training, in front of a headline that is the value after it."""
    is_sentence: bool = False
    """Whether the headline is a sentence, not a number."""


@dataclass(frozen=True)
class Figures:
    """Charts under one title; those without data are left out."""

    title: str
    charts: Sequence[Chart]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways where it does not fit."""

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
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"svg": drawing.svg, "csv": csv, "attributes": attributes}
    jinja.tests |= {"drawable": has_data, "pill": lambda cell: isinstance(cell, Pill)}
    return jinja


def render(template: str, **data: object) -> str:
    """A whole page. `data` are the names that the template uses.

    Raises: jinja2.UndefinedError when one of them is missing.
    """
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    assets = {"policy": policy, "style": Markup(_asset("page.css")), "script": Markup(script)}
    text = environment().get_template(template).render(assets | data)
    # Of foreign text nothing is hidden; a lone surrogate, which JSON can hold, is no UTF-8 either.
    return visible(text, lines=True)


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def attributes(chart: Chart) -> dict[str, str | int]:
    """Attributes of a chart's figure, from which the script names the values under the pointer.

    Bars, and points with labels, have titles instead.
    """
    if not isinstance(chart, Plot) or any(series.labels for series in chart.series):
        return {"data-key": chart.key}
    header, *rows = chart.table()
    return {
        "data-key": chart.key,
        "data-rows": json.dumps(header, ensure_ascii=False),
        "data-count": len(rows),
        "data-unit": chart.unit,
        "data-x-unit": chart.x_unit,
    }

"""The shell of a page: title, style and sections as one HTML file that asks for nothing.

Text is escaped by `markupsafe`: what is not `Markup` is text. A content security policy forbids
every request and every script but the page's own, whatever a completion may contain.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from markupsafe import Markup

from r1recipes.report import charts, drawing

Cell = str | int | float | Markup | None


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def document(
    title: str, blocks: Iterable[Markup], *, kicker: str = "", pill: Markup | str = ""
) -> Markup:
    """A whole HTML page; `blocks` are verdicts, facts, sections, and so on, from top to bottom."""
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    text = Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n'
        '<body>\n<main>\n<header><p class="kicker">{kicker}</p><h1>{title}{pill}</h1></header>\n'
        "{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    ).format(
        policy=policy,
        title=title,
        style=Markup(_asset("page.css")),
        kicker=kicker,
        pill=pill,
        body=Markup("\n").join(blocks),
        script=Markup(script),
    )
    # A lone surrogate, which JSON can hold, cannot be written as UTF-8.
    return Markup(text.encode("utf-8", "replace").decode())


def heading(text: str) -> Markup:
    """A heading within a section."""
    return Markup("<h3>{}</h3>").format(text)


def join(blocks: Iterable[Markup]) -> Markup:
    return Markup("\n").join(blocks)


def pill(text: str, tone: str = "") -> Markup:
    """A short word on a coloured ground; `tone` is good, bad or nothing."""
    return Markup('<span class="pill {}">{}</span>').format(tone, text)


def verdict(headline: str | Markup, *sentences: str, tone: str = "", words: bool = False) -> Markup:
    """What the reader came for, in large letters. `tone` is better, worse or nothing; `words` says
    that the headline is a sentence, not a number."""
    kind = f"{tone} words" if words else tone
    inner = Markup("").join(Markup("<p>{}</p>").format(s) for s in sentences if s)
    return Markup('<div class="verdict {}"><p class="big">{}</p>{}</div>').format(
        kind, headline, inner
    )


def facts(pairs: Iterable[tuple[str, Cell]]) -> Markup:
    """Names and values side by side; a value that is empty or None is left out."""
    inner = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value)
        for name, value in pairs
        if value not in (None, "")
    )
    return Markup('<dl class="facts card">{}</dl>').format(inner)


def section(title: str, *blocks: Markup, note: str = "") -> Markup:
    said = Markup('<p class="note">{}</p>').format(note) if note else Markup("")
    return Markup("<section><h2>{}</h2>{}{}</section>").format(title, said, join(blocks))


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    """A table that scrolls sideways where it does not fit; columns of numbers are set to the
    right."""
    rows = [list(row) for row in rows]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(header))
    ]
    mark = [Markup(' class="n"') if is_right else Markup("") for is_right in right]
    head = Markup("").join(
        Markup("<th{}>{}</th>").format(m, name) for m, name in zip(mark, header, strict=True)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("<td{}>{}</td>").format(m, "" if cell is None else cell)
                for m, cell in zip(mark, row, strict=True)
            )
        )
        for row in rows
    )
    return Markup(
        '<div class="card scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, body)


def details(summary: str, *blocks: Markup, is_open: bool = False) -> Markup:
    """Something that is shown on request."""
    return Markup('<details class="card"{}><summary>{}</summary>{}</details>').format(
        Markup(" open") if is_open else "", summary, join(blocks)
    )


def code(text: str) -> Markup:
    return Markup('<pre class="code">{}</pre>').format(text)


def figures(drawn: Iterable[charts.Chart]) -> Markup:
    """Charts in a grid; those without data are left out."""
    inner = join(_figure(chart) for chart in drawn if charts.has_data(chart))
    return Markup('<div class="grid">{}</div>').format(inner)


def _figure(chart: charts.Chart) -> Markup:
    """A chart with its title, its CSV (hidden, the one source of what is pointed at and of the
    download) and its buttons."""
    note = Markup('<p class="note">{}</p>').format(chart.note) if chart.note else ""
    return Markup(
        '<figure data-key="{}"{}><figcaption><h3>{}</h3>{}</figcaption>{}'
        '<div class="actions"><button type="button" class="as-csv">CSV</button>'
        '<button type="button" class="as-png">PNG</button></div>'
        '<pre class="csv" hidden>\n{}</pre></figure>'
    ).format(chart.key, _pointing(chart), chart.title, note, drawing.svg(chart), charts.csv(chart))


def _pointing(chart: charts.Chart) -> Markup:
    """What the script needs to name the values of a line under the pointer; bars, and points with
    labels, say themselves what they are."""
    if isinstance(chart, charts.Bars) or any(series.labels for series in chart.series):
        return Markup("")
    header, *rows = chart.table()
    return Markup(' data-rows="{}" data-count="{}" data-unit="{}" data-x-unit="{}"').format(
        json.dumps(header, ensure_ascii=False), len(rows), chart.unit, chart.x_unit
    )

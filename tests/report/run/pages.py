"""What a page says, as the tests read it."""

import html
import re
import shlex

from r1recipes.report.charts import Chart, Plot


def keys_of_charts(page: str) -> list[str]:
    return re.findall(r'<figure data-key="([^"]*)"', page)


def names_of_series(charts: list[Chart], key: str) -> list[str]:
    (plot,) = (chart for chart in charts if chart.key == key)
    assert isinstance(plot, Plot)
    return [series.name for series in plot.series]


def shell_line(page: str, number: int = 0) -> list[str]:
    """The words of a command on a page, as a shell takes them."""
    line = re.findall(r'<pre class="code">\n(r1recipes .*)</pre>', page)[number]
    return shlex.split(html.unescape(line))[1:]


def headline(page: str) -> str:
    """The large letters of a page."""
    return page.split('class="big">')[1].split("</p>")[0]

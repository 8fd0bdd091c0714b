"""The report in a real browser: no request, no error, charts that can be read and saved.

Limits: Chromium alone, with its driver (`apt-get install chromium-driver`); skipped without.
"""

import csv
import json
import re
import shutil
import time
from pathlib import Path

import pytest

from r1recipes.report import run
from tests.browser import chromium, needs_browser, open_page, requests

webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("downloads")) as driver:
        yield driver


@pytest.fixture
def page(finished, tmp_path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(run.html([finished]))
    return path


@pytest.fixture
def comparison(finished, tmp_path) -> Path:
    path = tmp_path / "comparison.html"
    path.write_text(run.html([finished, finished]))
    return path


@pytest.mark.parametrize("width", [1280, 768, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("fixture", ["page", "comparison"])
def test_a_page_opens_with_no_request_and_no_error(browser, request, fixture, width, theme):
    path = request.getfixturevalue(fixture)
    open_page(browser, path, width, theme)
    assert requests(browser) == [path.as_uri()]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    empty = """return [...document.querySelectorAll("figure")].filter(f => {
        const shown = [...f.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width);
        if (f.closest("details:not([open])")) return false;
        return shown.filter(width => width > 0).length !== 1 || Math.max(...shown) < 200
            || ![...f.querySelectorAll("svg path, svg rect, svg circle")]
            .some(mark => mark.getBoundingClientRect().width > 1);
    }).map(f => f.dataset.key)"""
    assert browser.execute_script(empty) == []
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    is_dark = sum(int(part) for part in colour[4:-1].split(",")) < 200
    assert is_dark == (theme == "dark")


def test_the_value_under_the_pointer_is_shown(browser, page):
    open_page(browser, page, 1280, "light")
    figure = browser.find_element("css selector", 'figure[data-key="reward"]')
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    pointer = webdriver.ActionChains(browser)
    (svg,) = [one for one in figure.find_elements("tag name", "svg") if one.is_displayed()]
    tip = figure.find_element("css selector", ".tip")
    pointer.move_to_element_with_offset(svg, -svg.size["width"] // 2 + 5, 0).perform()
    step, reward = next(csv.reader(figure_csv(browser, "reward")[1:]))
    head, value = tip.text.splitlines()
    assert head == f"step {step}" and float(value) == pytest.approx(float(reward), rel=1e-3)
    title = figure.find_element("tag name", "h3")
    webdriver.ActionChains(browser).move_to_element(title).perform()
    assert not tip.is_displayed()


def test_the_values_under_the_pointer_have_the_colours_of_their_lines(browser, page):
    open_page(browser, page, 1280, "dark")
    figure = browser.find_element("css selector", 'figure[data-key="rewards"]')
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    (svg,) = [one for one in figure.find_elements("tag name", "svg") if one.is_displayed()]
    webdriver.ActionChains(browser).move_to_element(svg).perform()
    lines = figure.find_elements("css selector", "svg .legend line")[: len(figure_names(figure))]
    swatches = figure.find_elements("css selector", ".tip .swatch")
    drawn = [line.value_of_css_property("stroke") for line in lines]
    shown = [swatch.value_of_css_property("background-color") for swatch in swatches]
    assert len(shown) == len(figure_names(figure)) > 2
    assert [numbers(colour) for colour in shown] == [numbers(colour) for colour in drawn]
    texts = figure.find_element("css selector", ".tip").text.splitlines()[1:]
    assert [text.partition(":")[0] for text in texts] == figure_names(figure)


def figure_names(figure) -> list[str]:
    return [name for name, _, _ in json.loads(figure.get_attribute("data-series"))]


def numbers(colour: str) -> list[str]:
    """Red, green and blue of `rgb(1, 2, 3)` and of `rgba(1, 2, 3, 1)`."""
    return re.findall(r"\d+", colour)[:3]


def figure_csv(browser, key: str) -> list[str]:
    script = f"""return document.querySelector('figure[data-key="{key}"] .csv').textContent"""
    return browser.execute_script(script).splitlines()


def test_a_chart_can_be_saved_as_csv_and_png(browser, page):
    open_page(browser, page, 390, "dark")
    for kind in ("csv", "png"):
        button = f'figure[data-key="rewards"] .as-{kind}'
        browser.execute_script("document.querySelector(arguments[0]).click()", button)
    saved = [browser.downloads / f"rewards.{kind}" for kind in ("csv", "png")]
    end = time.monotonic() + 10
    while not all(path.exists() for path in saved) and time.monotonic() < end:
        time.sleep(0.1)
    assert saved[0].read_text().splitlines() == figure_csv(browser, "rewards")
    content = saved[1].read_bytes()
    width = int.from_bytes(content[16:20], "big")
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and width > 1000 and len(content) > 5000
    assert browser.get_log("browser") == []


def with_completions(finished, folder: Path, **values: object) -> Path:
    """The page of a copy of a run whose completions have these values."""
    shutil.copytree(finished.folder, folder)
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(row | values) + "\n" for row in rows)
    (folder / "completions.jsonl").write_text(text)
    path = folder / "page.html"
    path.write_text(run.html([type(finished)(folder)]))
    return path


def test_what_a_completion_contains_does_not_run(browser, finished, tmp_path):
    attack = "</pre></script><script>document.title='owned'</script>"
    attack += "<img src=//x.invalid onerror=alert(1)>"
    values = {"prompt": attack, "completion": attack, "answer": attack, "rewards": {attack: 1.0}}
    path = with_completions(finished, tmp_path / "run", **values)
    open_page(browser, path, 1280, "light")
    assert attack in browser.find_element("tag name", "main").text
    assert browser.title != "owned" and requests(browser) == [path.as_uri()]


def test_a_question_that_reverses_its_text_leaves_the_answer_as_it_is(browser, finished, tmp_path):
    path = with_completions(finished, tmp_path / "run", prompt="a\u202ebc", answer="12 + 34")
    open_page(browser, path, 1280, "light")
    lefts = browser.execute_script(
        """const spans = [...document.querySelectorAll(".sample .note")];
        const text = spans.find(span => span.textContent === "answer 12 + 34").firstChild;
        return [...text.data].map((_, i) => {
            const range = document.createRange();
            range.setStart(text, i);
            range.setEnd(text, i + 1);
            return range.getBoundingClientRect().left;
        })"""
    )
    assert len(lefts) == len("answer 12 + 34") and lefts == sorted(lefts)

"""The pages of the server in Chromium: they follow a run that trains without a reload, leave alone
what the reader does, ask nobody else, and can be used by everyone."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1recipes.report.serve import folder as following
from r1recipes.runs import Run
from tests.browser import axe_source, axe_violations, chromium, needs_browser, open_page, requests
from tests.report.serve.conftest import RUN, command, settled

pytestmark = [pytest.mark.slow, needs_browser]
RUNNING = "old/running"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("downloads")) as driver:
        yield driver
        driver.get("about:blank")


@contextmanager
def training(runs_dir: Path, num_steps: int) -> Iterator[Callable[[int], None]]:
    """A run that has `num_steps` steps of a real one, and a function that adds more of them."""
    source, run = Run(runs_dir / RUN), Run(runs_dir / RUNNING)
    shutil.copytree(source.folder, run.folder)
    run.evaluation("after").unlink()
    record = source.read()
    changes = {"status": "running", "evaluation": {"before": record["evaluation"]["before"]}}
    run.record.write_text(json.dumps(record | changes | {"started": files_now()}))
    whole = {
        name: [json.loads(line) for line in (source.folder / name).read_text().splitlines()]
        for name in (run.metrics.name, run.completions.name)
    }
    for name in whole:
        (run.folder / name).write_text("")

    def add(first: int, last: int) -> None:
        for name, rows in whole.items():
            with open(run.folder / name, "a") as file:
                for step in range(first, last + 1):
                    same = [row for row in rows if row["step"] == 1 + step % rows[-1]["step"]]
                    file.writelines(json.dumps(row | {"step": step}) + "\n" for row in same)
        with open(run.log, "a") as file:
            file.write(f"the log of step {last}\n")

    steps = [0]

    def more(number: int) -> None:
        add(steps[0] + 1, steps[0] + number)
        steps[0] += number

    with open(run.folder / ".owner", "w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        more(num_steps)
        yield more


def files_now() -> str:
    from r1recipes.machine import files

    return files.now()


def until(browser, script: str, seconds: float = 20.0):
    """The value of a script, once it is true."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"not within {seconds} s: {script}"
        time.sleep(0.05)
    return value


def text(selector: str) -> str:
    return f"document.querySelector('{selector}')?.textContent"


def num_lines(key: str) -> str:
    """How many lines the data of a chart have, the header included."""
    return f"""{text(f"figure[data-key={key}] .csv")}.trim().split('\\n').length"""


ROW = f'tr[data-key="{RUNNING}"]'


def test_the_overview_follows_a_run_without_a_reload(browser, server, runs_dir):
    with training(runs_dir, 3) as more:
        open_page(browser, server.url, 1440, "light")
        until(browser, f"{text(ROW)}?.includes('3 of')")
        assert "running" in browser.execute_script(f"return {text(ROW)}")
        browser.execute_script("window.mark = 1; document.getElementById('filter').focus()")
        path = browser.execute_script(
            f"return {text(ROW)} && document.querySelector('{ROW} path').outerHTML"
        )
        more(2)
        until(browser, f"{text(ROW)}.includes('5 of')")
        now = browser.execute_script(f"return document.querySelector('{ROW} path').outerHTML")
        assert now != path and browser.execute_script("return window.mark") == 1
        assert browser.execute_script("return document.activeElement.id") == "filter"
    until(browser, f"{text(ROW)}.includes('killed')")
    shutil.rmtree(runs_dir / RUNNING)
    until(browser, f"!document.querySelector('{ROW}')")
    assert browser.get_log("browser") == []


def test_the_page_of_a_run_grows_and_leaves_the_reader_alone(browser, server, runs_dir):
    with training(runs_dir, 6) as more:
        open_page(browser, f"{server.url}run/{RUNNING}", 1280, "light")
        until(browser, "document.querySelector('figure[data-key=reward] path')")
        browser.execute_script(
            """window.mark = 1;
            for (const one of document.querySelectorAll("details")) one.open = true;
            const button = document.querySelector("figure[data-key=rewards] .as-csv");
            button.focus({preventScroll: true});
            document.querySelector("figure[data-key=length], figure[data-key=loss]")
                .scrollIntoView();"""
        )
        top = "document.querySelector('figure[data-key=loss]').getBoundingClientRect().top"
        before = browser.execute_script(
            f"return [{top}, document.querySelectorAll('.part[open], .card[open]').length]"
        )
        more(4)
        until(browser, f"{num_lines('reward')} === 11")
        after = browser.execute_script(
            f"return [{top}, document.querySelectorAll('.part[open], .card[open]').length]"
        )
        assert abs(after[0] - before[0]) < 60 and after[1] >= before[1]
        assert browser.execute_script("return document.activeElement.className") == "as-csv"
        assert browser.execute_script("return window.mark") == 1
        steps = "[...document.querySelectorAll('details.step')].map(one => one.dataset.key)"
        assert browser.execute_script(f"return {steps}")[0] == "Step 10"
        assert "the log of step 10" in browser.execute_script(f"return {text('.log')}")
        browser.execute_script("document.activeElement.blur()")
        until(browser, f"{num_lines('rewards')} === 11")  # it waited for the reader to leave it
    assert browser.get_log("browser") == []


def test_a_new_drawing_shows_values_and_is_saved(browser, server, runs_dir):
    with training(runs_dir, 4) as more:
        open_page(browser, f"{server.url}run/{RUNNING}", 1280, "light")
        until(browser, "document.querySelector('figure[data-key=reward] path')")
        more(1)
        until(browser, f"{num_lines('reward')} === 6")
        browser.execute_script("document.querySelector('figure[data-key=reward] .as-csv').click()")
        saved = browser.downloads / "reward.csv"
        end = time.monotonic() + 10
        while not saved.exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert len(saved.read_text().splitlines()) == 6


def test_a_server_that_is_gone_is_said_to_be(browser, runs_dir):
    with command(runs_dir) as (_, address):
        open_page(browser, address, 1280, "light")
        until(browser, f"{text('#live')} === 'following'")
    said = until(browser, f"document.querySelector('#live.lost') && {text('#live')}")
    assert "does not answer" in said and "old/complete" in browser.page_source


def test_the_page_of_a_deleted_run_keeps_its_last_state(browser, server, runs_dir):
    open_page(browser, f"{server.url}run/{RUN}", 1280, "light")
    shutil.rmtree(runs_dir / RUN)
    said = until(browser, f"document.querySelector('#live.lost') && {text('#live')}")
    assert "no longer there" in said
    assert browser.find_elements("css selector", "figure[data-key=reward]")


def shown(browser, what: str = "key") -> list[str]:
    """The keys of the runs that are shown, or another thing of their rows."""
    rows = "[...document.querySelectorAll('#runs tr')].filter(row => !row.hidden)"
    return browser.execute_script(f"return {rows}.map(row => row.dataset.{what})")


def test_the_table_is_sorted_filtered_and_remembered(browser, server, followed, runs_dir):
    shutil.copytree(runs_dir / RUN, runs_dir / "zoo" / "run")
    time.sleep(2 * following.LOOK_EVERY_S)
    settled(followed)
    open_page(browser, server.url, 1440, "light")
    assert set(shown(browser)) == {RUN, "old/stopped", "zoo/run"}
    button = browser.find_element("css selector", "[data-sort=name]")
    for key, order in (("\n", "ascending"), (" ", "descending")):
        button.send_keys(key)
        heading = browser.find_element("css selector", "th[data-key=name]")
        assert heading.get_attribute("aria-sort") == order
        assert shown(browser) == sorted(shown(browser), reverse=order == "descending")
    browser.find_element("id", "filter").send_keys("ZOO comp")
    assert shown(browser) == ["zoo/run"]
    browser.refresh()
    assert shown(browser) == ["zoo/run"]
    assert browser.find_element("id", "filter").get_attribute("value") == "ZOO comp"
    browser.get("about:blank")
    browser.get(server.url)
    assert len(shown(browser)) == 3
    browser.find_element("id", "state").send_keys("stopped")
    assert shown(browser, "state") == ["stopped"]


def test_runs_that_are_selected_are_compared(browser, server, followed, runs_dir):
    settled(followed)
    open_page(browser, server.url, 1440, "light")
    compare = browser.find_element("id", "compare")
    assert compare.get_attribute("href") is None
    for box in browser.find_elements("css selector", "#runs input"):
        box.send_keys(" ")
    with training(runs_dir, 2):
        until(browser, f"document.querySelector('{ROW}')")
        assert len(browser.find_elements("css selector", "#runs input:checked")) == 2
        assert compare.text == "Compare 2 runs"
        compare.click()
        until(browser, "document.querySelector('h1').textContent.trim() === '2 runs compared'")
    assert browser.find_elements("css selector", "figure[data-key=reward] .legend")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_asks_this_server_alone_fits_and_is_accessible(
    browser, server, followed, runs_dir, width, theme
):
    damaged = runs_dir / "bad" / "run"
    damaged.mkdir(parents=True)
    (damaged / "record.json").write_text("{")
    with training(runs_dir, 3):
        time.sleep(2 * following.LOOK_EVERY_S)
        settled(followed)
        paths = ("", f"run/{RUN}", f"run/{RUNNING}", f"compare?run={RUN}&run=old/stopped",
                 "run/bad/run", "nothing")  # fmt: skip
        for path in paths:
            open_page(browser, server.url + path, width, theme)
            assert all(one.startswith(server.url) for one in requests(browser))
            expected = 1 if path == "nothing" else 0  # Chromium notes the 404 itself
            assert len(browser.get_log("browser")) == expected
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            if source := axe_source():
                assert axe_violations(browser, source) == [], path


@pytest.mark.parametrize("width", [1280, 1366, 1440])
def test_the_table_of_runs_fits_a_laptop_and_breaks_no_model_apart(
    browser, server, followed, runs_dir, width
):
    with training(runs_dir, 3):
        time.sleep(2 * following.LOOK_EVERY_S)
        settled(followed)
        open_page(browser, server.url, width, "light")
        (table, *_) = browser.find_elements("css selector", ".card.scroll")
        needed, shown = (table.get_property(name) for name in ("scrollWidth", "clientWidth"))
        assert needed <= shown
        models = browser.find_elements("css selector", "td.model span")
        assert models and all(model.size["height"] < 30 for model in models), "one line"
        (started,) = browser.find_elements("css selector", "th[data-key=started]")
        assert started.is_displayed() == (width > 1400)

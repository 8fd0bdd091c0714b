"""Every kind of page in a browser: no error of accessibility, no page that is too tall, all of its
text without JavaScript, and on paper."""

import pytest

from tests.browser import axe_source, axe_violations, chromium, needs_browser, open_page
from tests.report import gallery

pytestmark = [pytest.mark.slow, needs_browser]
PHONE = 390
MAX_HEIGHT = 6000
"""Pixels that the page of the long run may be tall on a phone."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("downloads")) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(finished, tmp_path_factory):
    return gallery.pages(finished, tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", PHONE)])
def test_no_page_has_an_error_of_accessibility(browser, pages, theme, width):
    """With everything open, since axe passes over what is hidden."""
    source = axe_source()
    if source is None:
        pytest.skip("no package that brings axe-core")
    violations = {}
    for name, path in pages.items():
        open_page(browser, path, width, theme)
        browser.execute_script(
            "for (const one of document.querySelectorAll('details')) one.open = true"
        )
        if broken := axe_violations(browser, source):
            violations[name] = broken
    assert len(pages) > 15 and violations == {}


def height(browser) -> int:
    return browser.execute_script("return document.documentElement.scrollHeight")


def test_a_run_with_sixty_long_prompts_is_read_on_a_phone(browser, pages):
    for theme in ("light", "dark"):
        open_page(browser, pages["long"], PHONE, theme)
        assert height(browser) <= MAX_HEIGHT
    assert "8 of 60 prompts" in browser.page_source, "a few are shown, and the files have all"


def test_no_page_is_wider_than_its_window(browser, pages):
    for name, path in pages.items():
        for width in (320, PHONE, 768, 1440):
            open_page(browser, path, width, "light")
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, name


def test_a_text_is_opened_by_its_button_which_is_there_only_where_it_is_cut(browser, pages):
    open_page(browser, pages["long"], PHONE, "light")
    clamp = browser.find_element("css selector", ".clamp.question")
    text, button = (clamp.find_element("css selector", name) for name in (".text", "summary"))
    closed = text.size["height"]
    assert button.text == "Show all"
    button.click()
    assert button.text == "Show less" and text.size["height"] > 5 * closed
    script = """return [...document.querySelectorAll(".clamp")].filter(one => {
        const text = one.querySelector(".text"), isCut = text.scrollHeight > text.clientHeight + 1;
        return text.clientHeight && !one.querySelector("[open]")
            && isCut === one.classList.contains("fits");
    }).length"""
    assert browser.execute_script(script) == 0


def test_sections_for_experts_are_closed_on_a_phone_alone(browser, pages):
    script = "return [...document.querySelectorAll('details.part')].map(one => one.open)"
    open_page(browser, pages["complete"], PHONE, "light")
    closed = browser.execute_script(script)
    open_page(browser, pages["complete"], 1280, "light")
    assert len(closed) >= 3 and not any(closed) and all(browser.execute_script(script))


def test_all_of_a_page_is_there_without_its_script(browser, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, pages["long"], PHONE, "light")
        shown = browser.find_element("tag name", "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for words in ("Accuracy on", "Optimiser", "Gradient norm", "Problem 1:", "Reproduce"):
        assert words in shown
    assert "Show all" in shown, "a long text can be opened without it"


def test_on_paper_no_text_is_cut(browser, pages):
    open_page(browser, pages["complete"], PHONE, "dark")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        cut = """return [...document.querySelectorAll(".clamp .text")].filter(
            text => text.scrollHeight > text.clientHeight + 1 && text.clientHeight).length"""
        assert browser.execute_script(cut) == 0
        assert not browser.find_elements("css selector", ".part:not([open])")
        assert not browser.find_element("css selector", ".actions").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_cards_fill_their_rows(browser, pages):
    """In each grid every row is as wide as the grid, in three columns and in two."""
    script = """return [...document.querySelectorAll("div.grid")].map(grid => {
        const rows = {};
        for (const card of grid.children) {
            const box = card.getBoundingClientRect();
            rows[Math.round(box.top)] = Math.max(rows[Math.round(box.top)] ?? 0, box.right);
        }
        return [grid.getBoundingClientRect().right, ...Object.values(rows)].map(Math.round);
    })"""
    for name in ("complete", "failed", "several", "study"):
        for width in (768, 1440):
            open_page(browser, pages[name], width, "light")
            for right, *rows in browser.execute_script(script):
                assert rows == pytest.approx([right] * len(rows), abs=1), (name, width)


def test_a_trial_leads_to_its_report(browser, pages):
    open_page(browser, pages["study"], 1280, "light")
    links = browser.find_elements("css selector", ".trials a")
    assert len(links) == 2, "those that have one"

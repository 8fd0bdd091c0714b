"""Chromium without a window, as tests drive it: pages at a size and in a theme, requests, and axe.

Limits: Chromium alone, with its driver (`apt-get install chromium-driver`); whatever uses it is
skipped without. axe-core, which looks for errors of accessibility, is taken from a package that
brings it (`pip install --no-deps axe-playwright-python`); without one its tests are skipped.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
AXE_PACKAGES = ("axe-playwright-python", "axe-core-python")
"""Packages with axe.min.js, the newest axe first; nothing else of them is used."""

needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver")


@contextmanager
def chromium(downloads: Path) -> Iterator[Any]:
    """A browser that logs its errors and requests, and saves files into `downloads`."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.add_argument("--headless=new")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    try:
        yield driver
    finally:
        driver.quit()


def open_page(browser: Any, page: Path | str, width: int, theme: str) -> None:
    """Open a file or an address in a window `width` pixels wide; `theme` is light or dark."""
    browser.get_log("browser"), browser.get_log("performance")  # drops entries of earlier pages
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page if isinstance(page, str) else page.as_uri())


def requests(browser: Any) -> list[str]:
    """The addresses that were asked for since the page was opened, its own first."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def axe_source() -> str | None:
    """The script of axe-core, where a package has brought it."""
    for name in AXE_PACKAGES:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == "axe.min.js":
                return file.read_text(encoding="utf-8")
    return None


def axe_violations(browser: Any, source: str) -> list[str]:
    """What axe finds wrong on the open page: each rule with the elements that break it."""
    browser.execute_script(source)
    found = browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations))"
    )
    return [
        f"{rule['id']}, {rule['impact']}: {[node['html'][:120] for node in rule['nodes'][:3]]}"
        for rule in found
    ]

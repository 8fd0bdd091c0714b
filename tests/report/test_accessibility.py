"""What can be checked of a page's accessibility without a browser: headings, names, contrast.

`test_in_browser` asks axe, where there is a browser and a package that brings it.
"""

import re
from itertools import pairwise

import pytest

from r1recipes.report import page
from tests.report.test_page import Outline, rendered

TEMPLATES = ["run.html", "runs.html", "study.html"]
TEXT, GRAPHICS = 4.5, 3.0
"""Least ratios of contrast (published: WCAG 2.2, 1.4.3 and 1.4.11)."""
ON_CARDS = ["ink", "soft", "good", "bad", "accent"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_headings_go_down_one_level_at_a_time(template):
    tags = [tag for tag, _ in Outline(rendered(template, "plain")).elements]
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(lower - higher <= 1 for higher, lower in pairwise(levels))
    assert tags.count("main") == 1


@pytest.mark.parametrize("template", TEMPLATES)
def test_drawings_tables_and_buttons_have_names(template):
    text = rendered(template, "plain")
    assert '<html lang="en">' in text and "<title>plain</title>" in text
    for svg in re.findall(r"<svg [^>]*>", text):
        assert 'role="img"' in svg and re.search(r'aria-label="[^"]+"', svg)
    for table in re.findall(r'<div class="card scroll[^>]*>', text):
        assert 'tabindex="0"' in table and re.search(r'aria-label="[^"]+"', table)
    headers = re.findall(r"<th[^>]*>(.*?)</th>", text)
    assert headers and all(headers)
    names = re.findall(r'<button[^>]* aria-label="([^"]*)"', text)
    assert len(names) == text.count("<button") and all(" as " in name for name in names)
    summaries = re.findall(r"<summary>(.*?)</summary>", text)
    assert all(re.sub("<[^>]*>", "", summary) for summary in summaries)


def themes() -> list[dict[str, str]]:
    """The colours of the light and of the dark theme."""
    style = (page.TEMPLATES / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks)
    return [light, light | dark]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", themes(), ids=["light", "dark"])
def test_texts_and_lines_stand_out_from_their_ground(colours):
    texts = [(name, ground) for name in ON_CARDS for ground in ("card", "paper")]
    texts += [(name, f"{name}-bg") for name in ("good", "bad", "plain")]
    texts += [("ink", "plain-bg"), ("paper", "ink")]
    lines = [(name, "card") for name in colours if re.fullmatch("t[0-9]|grey", name)]
    assert len(lines) == 8
    for pairs, least in ((texts, TEXT), (lines, GRAPHICS)):
        for name, ground in pairs:
            ratio = contrast(colours[name], colours[ground])
            assert ratio >= least, f"{name} on {ground}: {ratio:.2f}"

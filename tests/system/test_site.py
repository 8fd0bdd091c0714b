"""The site of the documents is built without a warning, and its pages ask no other host.

Limits: where the extra `docs` is not installed it is skipped; how pages look is not tested.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REQUESTS = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?=[^>]*rel=[\"']?(?:stylesheet|preconnect|icon))[^>]*href=[\"']?(?:https?:)?//"
    r"|@import|url\([\"']?https?:"
)
"""What makes a browser ask another host when it opens a page."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_asks_another_host(site):
    pages = [p for p in site.rglob("*.html") if not p.is_relative_to(site / "files")]
    styles = list(site.rglob("*.css"))
    assert len(pages) > 30 and styles
    asked = {path.name: REQUESTS.findall(path.read_text()) for path in [*pages, *styles]}
    assert {name: requests for name, requests in asked.items() if requests} == {}


def test_the_front_page_is_the_readme_and_its_links_lead_to_pages(site):
    page = (site / "index.html").read_text()
    assert "Why not a notebook?" in page and 'href="own-data/"' in page
    assert 'href="files/recipes/tiny.toml"' in page
    assert (site / "files" / "recipes" / "tiny.toml").read_bytes() == (
        ROOT / "recipes" / "tiny.toml"
    ).read_bytes()


def test_every_command_has_a_section(site):
    page = (site / "commands" / "index.html").read_text()
    assert all(f'id="{name}"' in page for name in ("run", "plan", "grade", "doctor"))

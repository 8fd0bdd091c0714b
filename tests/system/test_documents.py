"""What the documents name is there: files that are linked, modules in the map, packages.

Limits: links to other hosts and to headings are not followed.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "r1recipes"
PATTERNS = ("*.md", "docs/*.md", "benchmarks/*/*.md")
DOCUMENTS = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_to_a_file(path):
    links = re.findall(r"\]\(([^)#]+)", path.read_text())
    local = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_benchmark_that_a_document_names_is_there(path):
    paths = re.findall(r"benchmarks/[\w./-]*\w", path.read_text())
    assert [name for name in paths if not (ROOT / name).exists()] == []


def test_every_module_that_the_map_names_is_there():
    names = re.findall(r"`([\w/]+(?:\.py|/))`", CONTRIBUTING)
    places = (ROOT, PACKAGE)
    assert len(names) > 40
    assert [name for name in names if not any((place / name).exists() for place in places)] == []


def test_the_map_has_every_package_in_the_order_of_imports():
    from tests.system.test_imports import ORDER

    rows = re.findall(r"^\| `(\w+)(?:\.py)?` \|", CONTRIBUTING, re.MULTILINE)
    assert rows == [name for name in reversed(ORDER) if name != "__main__"]

"""The sets of versions: the table in docs/install.md, ranges, and what `doctor --update` says."""

from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from r1recipes.planning.doctor import sets
from tests.helpers import in_process

ROOT = Path(__file__).parents[2]
GPU = {
    "torch": "2.11.0",
    "transformers": "5.17.0",
    "trl": "1.12.0",
    "unsloth": "2026.10.7",
    "unsloth_zoo": "2026.10.7",
    "vllm": "0.26.0",
}
NEXT = GPU | {"torch": "2.13.0", "vllm": "0.27.1", "unsloth": "2026.10.9"}
NEXT["unsloth_zoo"] = "2026.10.9"


def ranges() -> dict[str, SpecifierSet]:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    return {r.name: r.specifier for r in map(Requirement, texts)}


def test_the_documents_have_the_table():
    assert "\n".join(sets.table()) in (ROOT / "docs" / "install.md").read_text()


@pytest.mark.parametrize("one", sets.SETS, ids=lambda one: one.name)
def test_the_package_allows_what_was_measured_and_no_other_set(one):
    """The lowest version of each specifier stands for the set."""
    lowest = {
        name: next(iter(sorted(SpecifierSet(spec), key=str, reverse=True))).version
        for name, spec in one.versions.items()
    }
    allowed = {
        name: ranges()[name].contains(Version(version.removesuffix(".*")))
        for name, version in lowest.items()
    }
    assert all(allowed.values()) == one.is_supported, allowed


def test_no_floor_has_a_known_hole():
    """Versions in which holes were closed that are published."""
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for listed in project["optional-dependencies"].values() for text in listed]
    closed = {"transformers": "5.9", "jinja2": "3.1.5", "ray": "2.51", "sentencepiece": "0.2.0"}
    requirements = map(Requirement, [*project["dependencies"], *extras])
    checked = {r.name: r.specifier.contains(Version(closed[r.name])) for r in requirements
               if r.name in closed}  # fmt: skip
    assert checked == dict.fromkeys(closed, False)


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (GPU, "set        GPU, measured on H100"),
        (NEXT, "set        next GPU, never measured"),
        ({"torch": "2.13.0+cpu", "transformers": "5.17.0", "trl": "1.12.0"}, "set        CPU"),
        (GPU | {"vllm": "0.33.0"}, "none of those below"),
        ({}, "none of the packages"),
        (GPU | {"torch": "a private build"}, "none of those below"),
    ],
)
def test_what_is_installed_and_what_is_newer_is_said(installed, words, monkeypatch):
    monkeypatch.setattr(sets, "installed", lambda: installed)
    code, out, _ = in_process("doctor", "--update")
    assert code == 0 and words in out
    if "vllm" in installed and installed != NEXT:
        assert "not measured, not supported yet" in out and "brings: " in out


def test_the_script_resolves_every_supported_python():
    script = (ROOT / ".ci" / "resolve").read_text()
    classifier = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    for version in ("3.11", "3.12", "3.13"):
        assert version in script and SpecifierSet(classifier).contains(Version(version))

"""A machine of one user, and packages that are not there."""

import os

import pytest

from r1recipes.machine import host


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    """Of one user who is not root; tests/planning/test_machines.py has the others."""
    monkeypatch.setattr(host, "place", lambda: None)
    monkeypatch.setattr(host, "cluster", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Metadata of a package that is not there."""

    def install(name: str, version: str, *requires: str) -> None:
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install

"""A run that a test may change."""

import shutil

import pytest

from r1recipes.runs.record import Run


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    """A finished run that a test may change."""
    folder = tmp_path / "runs" / "small" / "copy"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "base"))
    return Run(folder)

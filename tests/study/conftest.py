"""A cell of the small study, and a database that it can be in."""

from pathlib import Path

import pytest

from r1recipes.study import loading
from r1recipes.study.cell import Cell
from tests.study.test_loading import SEARCH, write


@pytest.fixture
def cell(small: Path) -> Cell:
    """Its recipe is `small` with a search of two keys."""
    return loading.load(write(small.parent, SEARCH)).cells[0]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an SQLite database that is not there yet."""
    return f"sqlite:///{tmp_path}/study.db"

"""A short search for hostile inputs; `.ci/run` searches for 30 seconds, a person for an hour."""

import pytest

from tests.hostile import hunt


@pytest.mark.slow
def test_a_short_search_finds_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = hunt.main(0.0, number=1)
    assert len(counts) == 7 and all(count >= 20 for count in counts.values())
    assert not list(tmp_path.iterdir())

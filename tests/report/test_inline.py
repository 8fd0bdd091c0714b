"""The page of a run within a notebook: a frame of its own, without a file."""

from html import unescape

import pytest

from r1recipes import report
from r1recipes.errors import RecipeError
from tests.helpers import in_process

pytestmark = pytest.mark.slow


@pytest.fixture
def runs_dir(finished, monkeypatch):
    """The folder of the finished run."""
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(finished.folder.parent.parent))
    return finished.folder.parent.parent


def test_the_frame_holds_the_whole_page_and_nothing_of_it_is_markup_outside(finished, runs_dir):
    from r1recipes.report import run

    frame = report.show(str(finished.folder), height=300)
    html = frame._repr_html_()
    source = html.removeprefix('<iframe srcdoc="').partition('" sandbox="')[0]
    assert unescape(source) == frame.page == run.html([finished])
    assert "<" not in source and html.count("<") == 2 and "height: 300px" in html
    assert "allow-same-origin" not in html


def test_the_command_prints_the_same_and_writes_nothing(finished, runs_dir, tmp_path):
    before = finished.report.stat().st_mtime_ns
    code, out, _ = in_process("report", finished.folder, "--inline")
    assert code == 0 and out.strip() == report.show(str(finished.folder))._repr_html_()
    assert finished.report.stat().st_mtime_ns == before
    code, _, err = in_process("report", finished.folder, "--inline", "--out", tmp_path / "x")
    assert code == 2 and "--inline writes no file" in err


def test_without_a_run_there_is_a_hint(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path))
    with pytest.raises(RecipeError, match="there is no run yet"):
        report.show()

"""How `run` ends: the page of the run, how long it took, and three commands that can be given."""

import io
import shlex
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from r1recipes import cli
from r1recipes.cli.run import ending
from r1recipes.machine import files
from r1recipes.machine.units import duration
from r1recipes.runs import reading
from r1recipes.runs.record import Run
from r1recipes.training.stages import Stages
from tests.helpers import in_process

pytestmark = pytest.mark.slow


@pytest.fixture
def ended(finished, tmp_path, monkeypatch) -> Run:
    """A complete run below `runs`, with a page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "runs")
    shutil.copytree(finished.folder, tmp_path / "runs" / "small" / finished.folder.name)
    run = Run(Path("runs/small") / finished.folder.name)
    run.report.write_text("a page")
    return run


def improve(run: Run, low: float) -> None:
    """Give a run a difference whose interval begins at `low`."""
    difference = {"mean": low + 0.1, "interval": [low, low + 0.2]}
    run.update(evaluation=run.read()["evaluation"] | {"difference": difference})


def printed(run: Run, *, grading: list[str]) -> list[str]:
    out = io.StringIO()
    ending.print_end(run, Console(file=out, width=60), Path("runs"), grading=grading)
    return out.getvalue().splitlines()


def commands(lines: list[str]) -> list[list[str]]:
    """The words of each command that stands below `Next:`."""
    below = lines[lines.index("Next:") + 1 :]
    return [shlex.split(line[line.index("r1recipes ") :])[1:] for line in below]


@pytest.mark.parametrize(
    ("low", "has_export", "names"),
    [
        (0.2, False, ["ask", "export", "share"]),
        (0.2, True, ["ask", "report", "share"]),
        (-0.1, False, ["ask", "grade", "report"]),
    ],
)
def test_it_names_three_commands_that_suit_the_result(ended, low, has_export, names):
    improve(ended, low)
    if has_export:
        ended.export.mkdir(exist_ok=True)
    else:
        shutil.rmtree(ended.export, ignore_errors=True)
    lines = printed(ended, grading=["small.toml", "--allow-code"])
    assert lines[0] == f"Done in {duration(reading.read(ended).duration_s)}: {ended.folder}"
    assert lines[1] == f"Report: {ended.report}"
    words = commands(lines)
    assert [each[0] for each in words] == names
    for each in words:
        assert "small" in each, "the recipe's name is its newest run"
        assert cli.parser().parse_args(each).title == each[0]


def test_the_commands_run(ended):
    improve(ended, 0.2)
    for words in commands(printed(ended, grading=[])):
        code, _, err = in_process(*words)
        assert code == 0, err


def test_an_older_run_is_named_by_its_folder(ended):
    newer = ended.folder.with_name("20991231T000000Z-aaaa")
    shutil.copytree(ended.folder, newer)
    Run(newer).update(started="2099-12-31T00:00:00Z")
    name = str(ended.folder)
    assert ending.short_name(ended, Path("runs")) == name
    assert all(name in words for words in commands(printed(ended, grading=[])))
    elsewhere = Run(Path("mine"))
    shutil.copytree(ended.folder, elsewhere.folder)
    assert ending.short_name(elsewhere, Path("runs")) == "mine"


@pytest.mark.parametrize("question", ["a " * 40, "two\nlines", "", " "])
def test_a_question_that_is_no_short_line_is_not_shown(ended, question):
    row = files.read_lines(ended.evaluation("after"))[0] | {"question": question}
    ended.evaluation("after").unlink()
    files.append_line(ended.evaluation("after"), row)
    first = commands(printed(ended, grading=[]))[0]
    assert first == ["ask", "small", "your question"]


def test_a_run_that_failed_names_its_page_if_it_has_one(ended):
    out = io.StringIO()
    console = Console(file=out)
    ending.print_page(ended, console)
    assert out.getvalue() == f"Report: {ended.report}\n"
    ended.report.unlink()
    ending.print_page(ended, console)
    ending.print_page(None, console)
    assert out.getvalue().count("\n") == 1


def test_a_run_that_fails_says_where_its_page_is(small, tmp_path, monkeypatch, capfd):
    original = Stages.on_step

    def broken(self, row, samples):
        original(self, row | {"grad_norm": float("nan")}, samples)

    monkeypatch.setattr(Stages, "on_step", broken)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "runs")
    code, _, err = in_process("run", small, "--offline")
    assert code == 1 and "error: " in err
    out = capfd.readouterr().out  # what a run shows goes to the real stdout
    (run,) = Path("runs").glob("*/*")
    assert f"Report: {run / 'report.html'}" in out and "Next:" not in out

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
from r1recipes.report.run import html
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
    ending.print_end(run, Console(file=out, width=60), grading=grading)
    return out.getvalue().splitlines()


def commands(lines: list[str]) -> list[list[str]]:
    """The words of each command that stands below `Next:`."""
    below = lines[lines.index("Next:") + 1 :]
    named = [line for line in below if "r1recipes " in line]
    return [shlex.split(line[line.index("r1recipes ") :])[1:] for line in named]


@pytest.mark.parametrize(
    ("low", "has_export", "names"),
    [
        (0.2, False, ["ask", "export", "share"]),
        (0.2, True, ["ask", "report", "share"]),
        (-0.1, False, ["ask", "grade"]),
    ],
)
def test_it_names_commands_that_suit_the_result(ended, low, has_export, names):
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
        assert str(ended.folder) in each, "the recipe's name may soon be another run"
        assert cli.parser().parse_args(each).title == each[0]
    assert any(ending.ADVICE in line for line in lines) == (low < 0)


def test_the_commands_run(ended):
    improve(ended, 0.2)
    for words in commands(printed(ended, grading=[])):
        code, _, err = in_process(*words)
        assert code == 0, err


def test_a_newer_run_of_the_recipe_changes_no_command(ended):
    before = commands(printed(ended, grading=[]))
    newer = ended.folder.with_name("20991231T000000Z-aaaa")
    shutil.copytree(ended.folder, newer)
    Run(newer).update(started="2099-12-31T00:00:00Z")
    assert commands(printed(ended, grading=[])) == before
    assert all(str(ended.folder) in words for words in before)


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.2, "Better: +30.0 points (95 % interval +20.0 to +40.0)"),
        (-0.1, "No clear difference: +0.0 points (95 % interval -10.0 to +10.0)"),
        (-0.4, "Worse: -30.0 points (95 % interval -40.0 to -20.0)"),
    ],
)
def test_the_result_is_the_headline_of_the_page(ended, low, verdict):
    improve(ended, low)
    out = io.StringIO()
    ending.print_result(ended, Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("Accuracy ") and lines[1] == verdict
    assert verdict in html([ended])


@pytest.mark.parametrize("question", ["a " * 40, "two\nlines", "", " "])
def test_a_question_that_is_no_short_line_is_not_shown(ended, question):
    row = files.read_lines(ended.evaluation("after"))[0] | {"question": question}
    ended.evaluation("after").unlink()
    files.append_line(ended.evaluation("after"), row)
    first = commands(printed(ended, grading=[]))[0]
    assert first == ["ask", str(ended.folder), "your question"]


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

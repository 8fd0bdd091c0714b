"""`report`, `compare`, `list runs`, `clean`: what a user types and reads."""

import io
import json
import shutil
from pathlib import Path

import pytest

from r1recipes.machine import settings
from r1recipes.runs.record import Run
from r1recipes.runs.record.checkpoints import CHECKPOINT_DONE
from tests.helpers import in_process

pytestmark = pytest.mark.slow


@pytest.fixture
def two(finished, tmp_path, monkeypatch) -> list[Run]:
    """A runs folder with a complete run and a stopped one."""
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    runs = []
    for name, status in (("a", "complete"), ("b", "stopped")):
        folder = tmp_path / "runs" / "small" / name
        shutil.copytree(finished.folder, folder)
        runs.append(Run(folder))
        runs[-1].update(status=status)
    return runs


def test_report_of_the_newest_run_of_one_and_of_several(two, tmp_path):
    for run in two:
        run.report.unlink(missing_ok=True)
    assert in_process("report") == (0, f"{two[1].report}\n", "")
    assert two[1].report.exists()
    code, out, _ = in_process("report", "small/a", "--out", "x.html", "--csv", "csv")
    assert code == 0 and out.startswith("x.html\ncsv/accuracy.csv\n")
    assert (tmp_path / "csv" / "reward.csv").exists() and not two[0].report.exists()
    code, out, _ = in_process("report", "small/a", "small/b", "small/a")
    assert (code, out) == (0, f"{tmp_path / 'report.html'}\n")
    assert "2 runs compared" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["report", "nope"], 2, "there is no run folder `nope`"),
        (["report", "--out", "."], 2, "is a folder"),
        (["report", "--out", "no/such/x.html"], 2, "cannot be written"),
        (["report", "--csv", "/dev/null/x"], 2, "cannot be written"),
        (["compare", "small/a", "small/a"], 2, "`compare` needs at least two runs"),
        (["clean", "nope"], 2, "there is no run folder `nope`"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(two, arguments, exit_code, message):
    code, _, err = in_process(*arguments)
    assert code == exit_code and message in err


def test_compare_says_what_differs_and_which_is_better(two):
    plan = json.loads(two[1].resolved.read_text())
    plan["recipe"]["train"]["learning_rate"] = 0.5
    two[1].resolved.write_text(json.dumps(plan))
    code, out, err = in_process("compare", "small/a", "small/b")
    assert (code, err) == (0, "")
    assert "train.learning_rate  0.001" in out and "accuracy after" in out
    assert "on the same 6 problems: No clear difference: +0.0 points" in out


def test_the_page_of_several_runs_replaces_pages_alone(two, tmp_path):
    own = tmp_path / "report.html"
    own.write_text("mine")
    code, out, err = in_process("report", "small/a", "small/b")
    assert (code, out) == (2, "") and f"{own}: exists" in err and own.read_text() == "mine"
    own.unlink()
    for _ in range(2):
        assert in_process("report", "small/a", "small/b") == (0, f"{own}\n", "")


def test_compare_tells_answers_that_were_sampled_differently(two):
    assert "sampled differently" not in in_process("compare", "small/a", "small/b")[1]
    plan = json.loads(two[1].resolved.read_text())
    plan["recipe"]["train"]["temperature"] = 0.25
    two[1].resolved.write_text(json.dumps(plan))
    out = in_process("compare", "small/a", "small/b")[1]
    assert "their answers were sampled differently (train.temperature " in out
    assert "; greedy answers: No clear difference: +0.0 points" in out
    code, _, _ = in_process("report", "small/a", "small/b", "--out", "both.html")
    page = Path("both.html").read_text()
    assert code == 0 and "B - A, greedy" in page
    assert "sampled their answers differently" in page and 'class="big"' not in page


def test_list_runs_shows_every_run_and_its_state(two):
    code, out, _ = in_process("list", "runs")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert [row[1] for row in rows] == ["STATUS", "complete", "stopped"]
    two[1].update(status="running")
    assert "killed" in in_process("list", "runs")[1]
    with two[1].owned():
        assert "running" in in_process("list", "runs")[1]
    two[1].record.write_text("{")
    code, out, err = in_process("list", "runs")
    assert code == 0 and "damaged" in out and str(two[1].record) in err


def test_a_killed_run_is_called_that_everywhere_with_the_way_to_go_on(two):
    run, folder = two[1], two[1].folder
    run.update(status="running")
    run.evaluation("after").unlink()
    going_on = f"run --resume {folder}` goes on"
    code, _, err = in_process("clean", folder, "--yes")
    assert code == 0 and "killed at step 6" in err and going_on in err
    shutil.rmtree(run.adapter)
    for checkpoint in run.checkpoints.glob("checkpoint-*"):
        (checkpoint / CHECKPOINT_DONE).unlink(missing_ok=True)
    needing_adapter: list[tuple[object, ...]] = [
        ("eval", folder),
        ("ask", folder, "1+1"),
        ("export", folder, "--to", "lora"),
        ("share", folder),
        ("run", "--finish", folder),
    ]
    for command_line in needing_adapter:
        code, _, err = in_process(*command_line)
        assert code == 2 and "was killed at step 6" in err and going_on in err
        with run.owned():
            assert "is running at step 6" in in_process(*command_line)[2]


def test_list_alone_shows_recipes(two):
    assert "qwen2.5-1.5b" in in_process("list")[1]
    assert in_process("list") == in_process("list", "recipes")


class Terminal(io.StringIO):
    """A stdin at which a user sits."""

    def isatty(self) -> bool:
        return True


def test_clean_asks_first_and_leaves_what_can_be_resumed(two, monkeypatch):
    code, _, err = in_process("clean")
    assert code == 2 and "--yes" in err and two[0].checkpoints.exists()
    for answer, stays in (("\n", True), ("n\n", True), ("", True), ("y\n", False)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        code, out, err = in_process("clean")
        assert code == 0 and two[0].checkpoints.exists() == stays
    assert "deleted" in out and "checkpoints that unfinished runs need" in err
    assert two[1].checkpoints.exists() and two[0].adapter.exists()
    assert in_process("clean", "--yes")[2].endswith("nothing to delete\n")
    assert (
        "was stopped at step 6 and needs its checkpoints"
        in in_process("clean", "small/b", "--yes")[2]
    )


def test_clean_leaves_a_run_that_is_worked_on(two):
    with two[0].owned():
        code, _, err = in_process("clean", "--yes")
    assert code == 2 and "in use" in err and two[0].checkpoints.exists()


def test_a_folder_at_home_is_understood_without_a_shell(monkeypatch):
    """As in `.env`."""
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "~/runs")
    assert settings.load().runs_dir == Path.home() / "runs"


def test_a_folder_of_runs_is_told_from_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trial = tmp_path / "runs" / "mine" / "trial-1"
    trial.mkdir(parents=True)
    (trial / "record.json").write_text("{}")
    for name in ("mine", "runs/mine"):
        code, _, err = in_process("report", name)
        assert code == 2 and "mine` holds runs and is none itself" in err
        assert "such as `runs/mine/trial-1`" in err


def test_no_runs_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "none"))
    assert settings.load().runs_dir == tmp_path / "none"
    assert in_process("list", "runs")[0] == in_process("clean")[0] == 0
    code, _, err = in_process("report")
    assert code == 2 and "there is no run yet" in err

"""`sweep` as a user starts it: workers die, the driver dies, and it ends all the same."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from r1recipes.errors import RecipeError
from r1recipes.machine.terminal import Interrupts
from r1recipes.report import study
from r1recipes.study import database, loading, results, trials
from r1recipes.study.driver import create_cells, drive, owned
from tests.helpers import command, in_process
from tests.study.claims import claim
from tests.study.test_loading import write

STUDY = """\
format = 1
recipe = "small.toml"

[set]
"train.max_steps" = 3

[study]
n_trials = 12

[search]
"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"""


def wait_for(what, limit_s=60.0):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


@pytest.mark.slow
def test_killed_workers_are_replaced_and_a_killed_driver_is_resumed(small, tmp_path):
    path = write(tmp_path, STUDY)
    url = f"sqlite:///{tmp_path}/runs/study/study.db"
    arguments = [sys.executable, "-m", "r1recipes", "sweep", str(path), "--n-trials", "2"]
    environment = os.environ | {"R1RECIPES_RUNS_DIR": str(tmp_path / "runs")}

    def running():
        """Trials that a worker has begun to train."""
        try:
            (cell,) = trials.load_cells(database.open_storage(url), "study")
        except RecipeError:  # not made yet
            return []
        return [t for t in cell.all() if t.state.name == "RUNNING" and "run" in t.user_attrs]

    driver = subprocess.Popen([*arguments, "--force"], env=environment, stdout=subprocess.PIPE)
    worker = wait_for(lambda: running() if driver.poll() is None else None)[0].user_attrs["worker"]
    os.kill(worker["pid"], signal.SIGKILL)
    replaced = wait_for(lambda: [t for t in running() if t.user_attrs["worker"] != worker])[0]
    driver.kill()
    driver.communicate()
    wait_for(lambda: trials.has_dead_local_worker(replaced), limit_s=5)  # it died with its driver

    done = command(*arguments[3:], "--force", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    (cell,) = trials.load_cells(database.open_storage(url), "study")
    assert sum(trials.is_finished(trial) for trial in cell.all()) == 2
    runs = [Path(t.user_attrs["run"]) for t in cell.all() if trials.is_finished(t)]
    assert len(set(runs)) == 2
    assert all((run / "report.html").exists() for run in runs)
    best = tmp_path / "runs/study/best.toml"
    assert command("check", best, cwd=tmp_path).returncode == 0
    again = command(*arguments[3:], "--force", cwd=tmp_path, **environment)
    assert again.returncode == 0 and "going on after 2 of 2" in again.stdout


def test_the_driver_never_imports_torch():
    code = """import sys
from r1recipes.report import study
from r1recipes.study import driver, leaderboard, results
assert not {"torch", "transformers", "trl", "datasets"} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_driven_is_said(small, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    path = write(tmp_path, STUDY)
    code, _, err = in_process("sweep", path, "--workers", -1)
    assert code == 2 and "0 only makes the study" in err
    code, out, _ = in_process("sweep", path, "--workers", 0, "--name", "made")
    assert code == 0 and "r1recipes worker made" in out
    assert (tmp_path / "runs/made/study.db").exists()
    code, _, err = in_process("sweep", path, "--launcher", "ray")
    assert code == 2 and "cannot be shared" in err
    with owned(tmp_path / "runs" / "study"):
        code, _, err = in_process("sweep", path)
    assert code == 2 and "another `sweep` drives" in err
    url = f"sqlite:///{tmp_path}/runs/made/study.db"
    code, _, err = in_process("worker", "nobody", "--storage", url)
    assert code == 2 and "no study `nobody`" in err and "it has: made" in err
    code, _, err = in_process("worker", "made", "--storage", f"sqlite:///{tmp_path}/n.db")
    assert code == 2 and "there is no database" in err and not (tmp_path / "n.db").exists()
    code, _, err = in_process("study", "mad")
    assert code == 2 and "no study `mad`" in err and "there are: made" in err
    code, out, _ = in_process("sweep", path, "--dashboard")
    assert code == 0 and "optuna-dashboard sqlite:///" in out
    code, _, err = in_process("sweep", "qwen2.5-1.5b")
    assert code == 2 and "NVIDIA GPU" in err


class Workers:
    """A launcher whose workers have all just ended."""

    num_workers, deaths = 1, 0

    def __init__(self, deed):
        self.deed = deed
        self.children = {1: None}
        self.ended_workers: set[str] = set()
        self.say: Callable[[str], None] = print

    def start(self):
        pass

    def look(self):
        self.deed()
        self.children = {}

    def stop(self):
        self.children = {}


def driven(small, tmp_path, text, outcome):
    """The cells of a study after `outcome(cell, trial)` for each of its trials."""
    loaded = loading.load(write(tmp_path, text))
    cells = create_cells(loaded, tmp_path, f"sqlite:///{tmp_path}/study.db")

    def tell():
        for cell in cells:
            while (trial := cell.claim({})) is not None:
                outcome(cell, trial)

    drive(cells, Workers(tell), lambda: None)
    return cells


def test_a_study_whose_trials_all_fail_is_given_up(small, tmp_path):
    with pytest.raises(Exception, match="all of 12 trials failed; the last one: too big"):
        driven(small, tmp_path, STUDY, lambda cell, trial: cell.fail(trial, "oom", "too big"))


def test_nohup_is_heeded(small, tmp_path):
    before = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        driven(small, tmp_path, STUDY, lambda cell, trial: cell.complete(trial, [0.5]))
        with Interrupts(print):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


MATRIX = """\
format = 1
recipe = "small.toml"

[matrix]
"train.beta" = [0.0, 0.1]
seed = [1, 2, 3]
"""


def test_a_matrix_ends_in_the_mean_and_interval_over_seeds(small, tmp_path):
    def outcome(cell, trial):
        axes = cell.cell.axes
        cell.complete(trial, [0.5 + axes["train.beta"] + 0.1 * axes["seed"]])

    cells = driven(small, tmp_path, MATRIX, outcome)
    assert len(cells) == 6 and all(len(cell.all()) == 1 for cell in cells)
    low, best = results.matrix_rows(cells)
    assert [low.mean, best.mean] == pytest.approx([0.7, 0.8])
    assert best.is_best and not low.is_best
    # Student's t with 2 degrees of freedom: 4.303 * 0.1 / sqrt(3)
    assert list(best.interval or ()) == pytest.approx([0.8 - 0.2484, 1.0484], abs=1e-3)
    assert "Matrix" in study.html(cells)


def test_a_cell_that_has_not_run_has_not_failed(small, tmp_path):
    loaded = loading.load(write(tmp_path, MATRIX))
    cells = create_cells(loaded, tmp_path, f"sqlite:///{tmp_path}/study.db")
    cells[0].complete(claim(cells[0]), [0.5])
    cells[1].fail(claim(cells[1]), "oom", "out of memory")
    assert [row.remark for row in results.matrix_rows(cells)] == ["1 failed, 1 open", "3 open"]


def test_a_cell_that_was_taken_out_of_the_matrix_is_said(small, tmp_path):
    """Workers would run it, and the table would have it."""
    url = f"sqlite:///{tmp_path}/study.db"
    create_cells(loading.load(write(tmp_path, MATRIX)), tmp_path, url)
    fewer = loading.load(write(tmp_path, MATRIX.replace("0.0, 0.1", "0.0")))
    with pytest.raises(RecipeError, match="any more: beta=0.1,seed=1, beta=0.1,seed=2"):
        create_cells(fewer, tmp_path, url)
    more = loading.load(write(tmp_path, MATRIX.replace("1, 2, 3", "0, 1, 2, 3")))
    assert len(create_cells(more, tmp_path, url)) == 8
    (row, _) = results.matrix_rows(trials.load_cells(database.open_storage(url), "study"))
    assert row.num_open == 4


def test_a_value_with_brackets_is_shown_as_it_is(small, tmp_path):
    text = MATRIX.replace("[0.0, 0.1]", '["[/INST]"]').replace("train.beta", "prompt.system")
    cells = create_cells(
        loading.load(write(tmp_path, text)), tmp_path, f"sqlite:///{tmp_path}/s.db"
    )
    console = Console(width=100, file=(out := io.StringIO()))
    console.print(results.matrix_table(cells))
    assert "[/INST]" in out.getvalue()


def test_a_study_without_a_result_says_why(small, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path))
    folder = tmp_path / "study"
    loaded = loading.load(write(tmp_path, MATRIX))
    cells = create_cells(loaded, folder, f"sqlite:///{folder}/study.db")
    cells[0].fail(claim(cells[0]), "oom", "too big")
    code, out, err = in_process("study", "study")
    assert code == 1 and "1 of 6 trials" in out
    assert "too big" in (folder / "report.html").read_text()
    assert "failed: 1 oom; the last one: too big" in err and "goes on" in err


def test_the_report_has_history_importance_slices_and_every_trial(small, tmp_path):
    text = STUDY + '"preset.lora_rank" = { choices = [4, 8] }\n'

    def outcome(cell, trial):
        if trial.number == 3:
            cell.fail(trial, "oom", "<script>alert(1)</script>")
        else:
            cell.complete(trial, [min(1.0, 100 * trial.params["train.learning_rate"])])

    cells = driven(small, tmp_path, text, outcome)
    page = study.html(cells)
    for part in ("History of eval/accuracy", "Importance", "Parallel coordinates", "slice-"):
        assert part in page
    assert page.count("<tr>") == 13 and "<script>alert" not in page
    found = study.importance(cells[0])
    assert found["train.learning_rate"] > found["preset.lora_rank"]
    assert "importance of train.learning_rate" in study.comparison(cells, cells)


@pytest.mark.parametrize("name", ["a/b", "../out", ".", "-x", "a\nb", "a" * 61])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name, small, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    path = write(tmp_path, STUDY)
    code, _, err = in_process("sweep", path, "--workers", 0, f"--name={name}")
    assert code == 2 and "cannot be called" in err
    assert not list(tmp_path.glob("out*")) and not (tmp_path / "runs").exists()


def test_a_folder_that_no_database_can_be_in_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs?"))
    code, _, err = in_process("sweep", write(tmp_path, STUDY), "--workers", 0)
    assert code == 2 and "has a `?`" in err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "url, said",
    [
        ("postgresql://me:S3CRET@127.0.0.1:1/x", "cannot be opened"),
        ("postgresql://me:S3CRET@127.0.0.1:port/x", "not the URL of a database"),
        ("postgresql:/me:S3CRET@127.0.0.1/x", "not the URL of a database"),
        ("mysql://me:S3CRET@127.0.0.1/x", "`mysql` database"),
        ("sqlite://", "names no database"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_without_its_password(
    url, said, small, tmp_path, monkeypatch
):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    code, out, err = in_process("sweep", write(tmp_path, STUDY), "--storage", url)
    assert code == 2 and said in err and "S3CRET" not in out + err


def test_the_dashboards_command_has_no_password():
    url = "postgresql://me:S3CRET@host/x"
    code, out, err = in_process("sweep", "tiny", "--storage", url, "--dashboard")
    assert code == 0 and "optuna-dashboard postgresql+psycopg://me@host/x" in out
    assert "PGPASSWORD" in err and "S3CRET" not in out + err


def test_what_would_fail_in_every_trial_is_said_before_the_first(small, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    (tmp_path / "mine.py").write_text("def own(completions, **columns):\n    return [0.0]\n")
    given = small.read_text()
    small.write_text(given.replace("integer = 0.5", '"mine.py:own" = 0.5'))
    path = write(tmp_path, STUDY)
    code, _, err = in_process("sweep", path)
    assert code == 2 and "--allow-code" in err
    code, out, _ = in_process("sweep", path, "--workers", 0)
    assert code == 0
    (tmp_path / "mine.py").unlink()  # as on a machine that a worker joins from
    code, _, err = in_process("worker", "study", "--allow-code")
    assert code == 2 and "there is no `mine.py`" in err
    (cell,) = trials.load_cells(
        database.open_storage(f"sqlite:///{tmp_path}/runs/study/study.db"), "study"
    )
    assert cell.all()[0].state.name == "WAITING" and len(cell.all()) == 1

"""The filter `data.keep` in whole runs: what is trained on, when it is measured, and when not."""

import json
import os
import signal
from pathlib import Path

import pytest

from r1recipes import planning, recipe, training
from r1recipes.errors import RecipeError, RunError, Stopped
from r1recipes.machine import files, settings
from r1recipes.report import run as report
from r1recipes.runs import lock, record
from r1recipes.runs.record import Run
from r1recipes.study import database, loading, trials, worker
from r1recipes.training import Observer
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.prepared import Options
from tests.conftest import SMALL
from tests.helpers import hint, in_process
from tests.study.claims import claim
from tests.study.test_loading import write
from tests.training.test_run import Killed, comparable

ALLOWED = Options(allow_code=True, force=True)
CODE = """\
def third(completion, row):
    return float(len(completion) % 3 == 0)
"""
"""Right by chance, so that pass rates of a model that knows nothing are of every kind."""


def write_recipe(folder: Path) -> Path:
    """The small recipe, with fewer steps and a filter; its 64 problems are more than it needs."""
    (folder / "mine.py").write_text(CODE)
    text = SMALL.replace("correctness = 2.0", '"mine.py:third" = 2.0')
    text = text.replace("size = 64", "size = 64\nkeep = [0.3, 0.8]")
    text = text.replace("steps = 12", "steps = 3").replace("max_steps = 6", "max_steps = 4")
    text = text.replace("[eval]", '[eval]\nbatch_size = 8\nreward = "mine.py:third"')
    path = folder / "small.toml"
    path.write_text(text)
    return path


@pytest.fixture
def filtered(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One complete run with a filter, in a folder with its own cache."""
    return train(write_recipe(tmp_path_factory.mktemp("whole")))


class Watching(Observer):
    """Keeps what is said, and sends Ctrl-C after so many problems are measured."""

    def __init__(self, stop_after: int | None = None):
        self.stop_after = stop_after
        self.notes: list[str] = []
        self.phases: list[str] = []

    def phase(self, title):
        self.phases.append(title)

    def note(self, text):
        self.notes.append(text)

    def progress(self, done, total):
        assert done <= total
        if self.phases[-1] == "Pass rates" and done == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)


def machine_of(path):
    folder = path.parent
    return settings.Settings(runs_dir=folder / "runs", cache_dir=folder / "cache", offline=True)


def train(path, *overrides, watching=None, locked=None) -> Run:
    loaded = recipe.load(path, list(overrides))
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=path.parent)
    observers = [watching] if watching else []
    return training.start(loaded, plan, observers, machine_of(path), options=ALLOWED, locked=locked)


@pytest.fixture
def asked(monkeypatch):
    """The prompts of each call of the backend's `generate` with the samples of a group."""
    calls: list[list[str]] = []
    original = TrlBackend.generate

    def generate(self, prompts, num_samples, greedy, adapter, hooks):
        if num_samples == 4:
            calls.append([prompt[-1]["content"] for prompt in prompts])
        return original(self, prompts, num_samples, greedy, adapter, hooks)

    monkeypatch.setattr(TrlBackend, "generate", generate)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_only_problems_within_the_range_are_trained_on(algorithm, filtered):
    watching = Watching()
    run = train(filtered, f"algorithm={algorithm}", watching=watching)
    rows = files.read_lines(run.pass_rates)
    kept = {row["question"] for row in rows if row["kept"]}
    assert kept == {row["question"] for row in rows if row["num_right"] in (2, 3)}
    assert 16 <= len(kept) < len(rows) < 64
    trained = {row["prompt"] for row in files.read_lines(run.completions)}
    assert trained and trained <= kept
    places = run.read_lock()["kept_rows"]
    assert places == sorted(row["row"] for row in rows if row["kept"])
    recorded = run.read()["pass_rates"]
    assert recorded["num_measured"] == len(rows) and recorded["num_kept"] == len(kept)
    assert recorded["num_cached"] == 0 and sum(recorded["histogram"]) == len(rows)
    assert run.read()["duration_s"]["pass_rates"] > 0
    assert len(run.read()["evaluation"]["before"]["interval"]) == 2
    assert len(files.read_lines(run.evaluation("after"))) == 6
    assert watching.phases.count("Pass rates") == 1
    assert f"{len(kept)} of {len(rows)} problems have a pass rate from 0.3 to 0.8" in " ".join(
        watching.notes
    )
    assert "pass-rates" in {path.stem for path in report.write_csv([run], filtered.parent / "csv")}
    page = report.html([run])
    assert f"{len(kept)} of {len(rows)}" in page and "Pass rates" in page
    assert run.plan().recipe.data.keep == [0.3, 0.8]


@pytest.mark.slow
def test_a_second_run_generates_nothing(whole, asked):
    watching = Watching()
    again = train(whole.folder.parents[2] / "small.toml", watching=watching)
    recorded = whole.read()["pass_rates"]
    assert not asked
    assert f"pass rates of {recorded['num_measured']} problems from the cache" in watching.notes
    assert comparable(again) == comparable(whole)
    assert again.read_lock()["kept_rows"] == whole.read_lock()["kept_rows"]
    assert again.read()["pass_rates"] == recorded | {"num_cached": recorded["num_measured"]}


@pytest.mark.slow
def test_a_stop_loses_no_block_and_a_resume_ends_as_if_there_was_none(whole, filtered, asked):
    machine = machine_of(filtered)
    with pytest.raises(Stopped):
        train(filtered, watching=Watching(stop_after=24))
    run = record.all_runs(machine.runs_dir)[-1]
    assert run.read()["status"] == "stopped" and "kept_rows" not in run.read_lock()
    watching = Watching()
    training.resume(run, [watching], machine, options=ALLOWED)
    assert run.read()["status"] == "complete"
    assert "pass rates of 16 problems from the cache" in watching.notes
    num_blocks = -(-whole.read()["pass_rates"]["num_measured"] // 8)
    assert len(asked) == num_blocks + 1  # the block that was stopped
    assert run.read_lock()["kept_rows"] == whole.read_lock()["kept_rows"]
    assert comparable(run) == comparable(whole)


@pytest.mark.slow
def test_a_run_that_died_in_training_goes_on_with_the_same_problems(
    whole, filtered, asked, monkeypatch
):
    """It dies before its first step, and again after one whose checkpoint is not saved."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrlBackend, "train", _die)
        train(filtered)
    machine = machine_of(filtered)
    dead = record.all_runs(machine.runs_dir)[-1]
    for path in (machine.cache_dir / "pass-rates").rglob("*.json"):
        path.unlink()  # a resume does not need it
    num_calls, watching = len(asked), Watching()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("r1recipes.training.stages.Stages.on_step", _die_after(3))
        training.resume(dead, [watching], machine, options=ALLOWED)
    training.resume(dead, [watching], machine, options=ALLOWED)
    assert len(asked) == num_calls and "Pass rates" not in watching.phases
    assert comparable(dead) == comparable(whole)
    assert dead.read()["pass_rates"]["num_kept"] == len(dead.read_lock()["kept_rows"])


def _die(self, *arguments, **options):
    raise Killed


def _die_after(step):
    from r1recipes.training.stages import Stages

    original = Stages.on_step

    def on_step(self, row, samples):
        original(self, row, samples)
        if row["step"] == step:
            raise Killed

    return on_step


@pytest.mark.slow
def test_a_locked_run_trains_on_the_problems_of_the_lock(whole, filtered, asked, tmp_path):
    bundle = tmp_path / "shared.r1.zip"
    code, _, err = in_process("share", whole.folder, "--to", bundle)
    assert code == 0, err
    loaded = recipe.load(str(bundle))
    locked = lock.of_source(loaded)
    assert locked.kept_rows == whole.read_lock()["kept_rows"]
    watching = Watching()
    again = train(filtered, watching=watching, locked=locked)
    assert not asked and "Pass rates" not in watching.phases
    assert locked.kept_rows is not None
    sentence = f"{len(locked.kept_rows)} problems are trained on, those that the lock names"
    assert sentence in watching.notes
    assert comparable(again) == comparable(whole)
    assert again.read()["pass_rates"]["from_lock"] is True
    assert "of the lock" in report.html([again])
    for rows, fault in [
        ([0, 1, 2, 64], "is not a choice of the 64 training rows"),
        ([3, 2, 1, 0], "is not a choice of the 64 training rows"),
        ([0, 0, 1, 2], "is not a choice of the 64 training rows"),
        ([0, 1], "has 2 rows, and a step needs 4"),
    ]:
        with pytest.raises(RecipeError, match=fault):
            train(filtered, locked=locked.model_copy(update={"kept_rows": rows}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "rate", "counts", "way_out"),
    [
        ("[0.1, 0.9]", "0.0", "64 are too hard, 0 too easy", "take easier problems"),
        ("[0.1, 0.9]", "1.0", "0 are too hard, 64 too easy", "take harder problems"),
    ],
)
def test_too_few_problems_are_refused(keep, rate, counts, way_out, filtered):
    (filtered.parent / "mine.py").write_text(f"def third(completion, row):\n    return {rate}\n")
    with pytest.raises(RunError, match=r"0 of 64 problems have a pass rate") as raised:
        train(filtered, f"data.keep={keep}")
    assert raised.value.kind == "reward" and counts in str(raised.value)
    assert "a step needs 4 (`prompts_per_step`)" in str(raised.value)
    assert hint(raised).startswith(way_out) and "widen `data.keep`" in hint(raised)
    failed = record.all_runs(machine_of(filtered).runs_dir)[-1]
    assert failed.read()["status"] == "failed" and "kept_rows" not in failed.read_lock()
    assert len(files.read_lines(failed.pass_rates)) == 64


@pytest.mark.slow
def test_fewer_problems_than_all_steps_need_occur_again(filtered):
    watching = Watching()
    run = train(filtered, "data.size=12", "data.keep=[0.2, 0.8]", watching=watching)
    num_kept = run.read()["pass_rates"]["num_kept"]
    assert 4 <= num_kept < 13 and len(files.read_lines(run.metrics)) == 4
    assert any("each occurs" in note and "the 16 of all steps" in note for note in watching.notes)


@pytest.mark.slow
def test_a_bare_range_keeps_everything_and_other_bounds_cost_nothing(filtered, asked):
    run = train(filtered, "data.keep=[0, 1]")
    assert run.read()["pass_rates"]["num_kept"] == run.read()["pass_rates"]["num_measured"] == 16
    num_calls, watching = len(asked), Watching()
    other = train(filtered, "data.keep=[0.2, 1]", watching=watching)
    assert other.read()["pass_rates"]["num_cached"] == 16
    assert len(asked) - num_calls == len(files.read_lines(other.pass_rates)) // 8 - 2


@pytest.mark.slow
def test_the_trials_of_a_study_measure_once(filtered, asked, tmp_path):
    text = (
        'format = 1\nrecipe = "small.toml"\n\n[study]\nn_trials = 2\nbaseline = false\n\n'
        '[search]\n"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }\n'
    )
    (cell,) = loading.load(write(tmp_path, text)).cells
    made = trials.create_cell(database.open_storage(f"sqlite:///{tmp_path}/study.db"), cell)
    someone = worker.Worker([made], worker.Place(machine_of(filtered), 1, ALLOWED))
    someone.run_trial(made, claim(made))
    num_calls = len(asked)
    someone.run_trial(made, claim(made))
    first, last = (Run(Path(trial.user_attrs["run"])) for trial in made.all())
    assert num_calls and len(asked) == num_calls
    assert last.read_lock()["kept_rows"] == first.read_lock()["kept_rows"]
    assert last.read()["pass_rates"]["num_cached"] == last.read()["pass_rates"]["num_measured"]


OTHER_DATA = {
    "builtin:countdown": 'reward = "countdown"',
    "gym:chain_sum": 'reward = "gym"',
    "rows.jsonl": 'reward = "mine.py:third"',
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_DATA)
def test_problems_of_every_source_are_measured(name, filtered):
    """By their own rewards, which need the columns of their data."""
    if name.startswith("gym:"):
        pytest.importorskip("reasoning_gym")
    shape = "<reasoning>\nx\n</reasoning>\n<answer>\n{}\n</answer>"
    rows = [{"question": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(80)]
    shown = [{"question": r["question"], "completion": shape.format(r["answer"])} for r in rows]
    for file, lines in (("rows.jsonl", rows), ("shown.jsonl", shown)):
        (filtered.parent / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = filtered.read_text().replace("builtin:arithmetic", name)
    text = text.replace('reward = "mine.py:third"', OTHER_DATA[name])
    text = text.replace("keep = [0.3, 0.8]", "keep = [0.0, 0.9]").replace("digits = 2\n", "")
    if not name.startswith("builtin:"):
        text = text.replace("[data.problems]\n", "").replace("wrong = 0.3", 'data = "shown.jsonl"')
    text = text.replace("max_seq_length = 128", "max_seq_length = 400")
    text = text.replace("correctness", "soft_format").replace("soft_format = 0.5\n", "", 1)
    filtered.write_text(text)
    size = [] if name == "rows.jsonl" else ["data.size=24"]
    run = train(filtered, *size, "train.max_steps=2")
    recorded = run.read()["pass_rates"]
    assert recorded["num_kept"] >= 8 and sum(recorded["histogram"]) == recorded["num_measured"]
    questions = {row["question"] for row in files.read_lines(run.pass_rates) if row["kept"]}
    assert {row["prompt"] for row in files.read_lines(run.completions)} <= questions


@pytest.mark.slow
def test_a_recipe_without_the_key_measures_nothing(small):
    loaded = recipe.load(small)
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=small.parent)
    machine = machine_of(small)
    run = training.start(loaded, plan, [], machine, options=Options(force=True))
    assert "pass_rates" not in run.read() and not run.pass_rates.exists()
    assert "kept_rows" not in json.loads(run.lock.read_text())
    assert not (machine.cache_dir / "pass-rates").exists()

import json
import shutil
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import R1RecipesError, RecipeError
from r1recipes.machine.files import read_lines
from r1recipes.recipe.targets import Track, Trackio, Wandb
from r1recipes.runs import record
from r1recipes.runs.record import Run
from r1recipes.training import trackers
from r1recipes.training.stages import Stages
from r1recipes.training.trackers import Trackers
from tests.helpers import command, in_process, run_in_process

ROWS = [
    {"step": 1, "reward": 0.5, "rewards/a/mean": 1, "note": "text", "kl": None},
    {"step": 2, "reward": float("nan"), "reward_failures": {"a/timeout": 1}},
]


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def begun(small, tmp_path):
    """Trackers of a run that begins: (section, where their warnings go) -> trackers, run."""

    def begin(track: Track, note: Callable[[str], None] = pytest.fail) -> tuple[Trackers, Run]:
        loaded = recipe.load(small).recipe.model_copy(update={"track": track})
        plan = planning.make(loaded, planning.Target.here(None, 1), base_dir=tmp_path)
        observer, run = Trackers(note), Run(tmp_path / "run")
        run.folder.mkdir()
        observer.begin(run, plan)
        return observer, run

    return begin


def test_without_the_section_no_tracker_is_imported_or_started(begun):
    before = threading.active_count()
    trackers.check(Track(), offline=True)
    observer, run = begun(Track())
    observer.step(ROWS[0])
    observer.end(run)
    assert threading.active_count() == before and list(run.folder.iterdir()) == []


def test_the_fingerprint_is_that_of_the_recipe_without_trackers(small):
    plain = recipe.load(small).recipe
    small.write_text(small.read_text() + '\n[track]\ntensorboard = true\nwandb = { project = "x" }')
    tracked = recipe.load(small).recipe
    assert tracked.track.names() == ["wandb", "tensorboard"]
    assert recipe.fingerprint(tracked) == recipe.fingerprint(plain)


def test_a_mistake_in_the_section_has_its_place_and_a_way_out(small):
    small.write_text(small.read_text() + "\n[track.wandb]\nmode = 'offlin'\nprojekt = 'x'\n")
    code, _, err = in_process("check", small)
    assert code == 2
    assert 'did you mean "offline"?' in err and "did you mean `track.wandb.project`?" in err


def test_wandb_mode_of_the_machine_can_only_send_less(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert trackers.wandb_mode(Wandb(mode="offline")) == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert trackers.wandb_mode(Wandb(mode="online")) == "offline"


def test_online_in_an_offline_run_is_refused(small):
    code, _, err = in_process("run", small, "--wandb", "--offline")
    assert code == 2 and "cannot be online" in err and "--wandb offline" in err


def test_a_run_folder_sends_under_this_account_only_when_that_is_said_again(
    finished, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "online")  # put back after the test
    folder = tmp_path / "theirs"
    shutil.copytree(finished.folder, folder)
    run = Run(folder)
    run.update(status="stopped")
    resume = ("run", "--resume", folder)
    code, _, err = in_process(*resume, "--wandb")
    assert code == 2 and "this run sends nothing to wandb" in err
    plan = json.loads(run.resolved.read_text())
    plan["recipe"]["track"]["wandb"] = {"project": "p", "entity": "them", "mode": "online"}
    run.resolved.write_text(json.dumps(plan))
    code, _, err = in_process(*resume)
    assert code == 2 and "wandb, project `them/p`: under your account?" in err
    assert "hint: `--wandb` sends, `--wandb offline` keeps them here" in err
    assert "cannot be online" in in_process(*resume, "--wandb", "--offline")[2]
    assert run.read()["status"] == "stopped"


def test_trackio_stays_on_this_machine(monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    with pytest.raises(RecipeError, match="TRACKIO_SPACE_ID is set"):
        trackers.check(Track(trackio=Trackio()), offline=False)


class Server(BaseHTTPRequestHandler):
    """Says to every key that it is not valid."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = json.dumps({"errors": [{"message": "user is not logged in"}]}).encode()
        self.send_response(401)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "wandb has no API key on this machine"),
        ("short", "40"),
        ("a" * 40, "user is not logged in"),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_told_before_anything_is_loaded(
    small, tmp_path, key, message
):
    pytest.importorskip("wandb")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
    if key:
        environment["WANDB_API_KEY"] = key
    began = time.monotonic()
    done = command("run", small, "--wandb", cwd=tmp_path, HF_HUB_OFFLINE="0", **environment)
    server.shutdown()
    assert done.returncode == 2 and time.monotonic() - began < 20
    assert message in done.stderr and "WANDB_MODE=offline" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_key_that_vanished_is_never_asked_for(begun, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    notes: list[str] = []
    observer, run = begun(Track(wandb=Wandb()), notes.append)
    observer.end(run)
    assert notes == ["warning: wandb stopped: ValueError: there is no API key on this machine"]


def test_tensorboard_gets_every_finite_number(begun):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    observer, run = begun(Track(tensorboard=True))
    for row in ROWS:
        observer.step(row)
    observer.end(run)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["reward", "rewards/a/mean"]
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.5)]


@pytest.mark.slow
def test_a_run_with_trackers_gives_the_same_numbers(finished, small, tmp_path):
    for library in ("wandb", "tensorboard"):
        pytest.importorskip(library)
    run = run_in_process(
        small, tmp_path / "runs", "track.wandb.mode=offline", "track.tensorboard=true"
    )
    assert list(run.folder.glob("wandb/offline-run-*/*.wandb"))
    assert list(run.folder.glob("tensorboard/events.*"))
    assert run.read()["fingerprint"] == finished.read()["fingerprint"]
    assert numbers(run.metrics) == numbers(finished.metrics)


def numbers(path):
    timed = ("time/", "step_time")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_lines(path)]


class Broken:
    """A tracker that fails, or hangs, at a certain call."""

    def __init__(self, fails: str, seconds: float = 0.0):
        self.fails, self.seconds = fails, seconds
        self.call("open")

    def call(self, name):
        time.sleep(self.seconds if name == self.fails else 0)
        if name == self.fails:
            raise OSError("no route to host")

    def log(self, step, values):
        self.call("log")

    def close(self, complete):
        self.call("close")


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_a_tracker_that_fails_is_told_of_once_and_stops_nothing(fails):
    notes: list[str] = []
    worker = trackers.Worker("x", lambda: Broken(fails), notes.append)
    for step in range(5):
        worker.put((step, {}))
    worker.put(True)
    worker.thread.join(5)
    assert notes == ["warning: x stopped: OSError: no route to host"]


def test_a_held_out_evaluation_is_tracked_like_every_metric():
    rows: list[tuple[int, dict[str, float]]] = []

    class Kept:
        def log(self, step, values):
            rows.append((step, values))

        def close(self, complete):
            pass

    observer = Trackers(pytest.fail)
    worker = trackers.Worker("x", Kept, pytest.fail)
    observer._workers = [worker]
    observer.step({"step": 2, "eval/accuracy": 0.5, "eval/num_problems": 16})
    worker.put(True)
    worker.thread.join(5)
    assert rows == [(2, {"eval/accuracy": 0.5, "eval/num_problems": 16.0})]


def test_a_tracker_that_hangs_holds_nobody_up(monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "FINISH_S", 0.2)
    notes: list[str] = []
    observer = Trackers(notes.append)
    observer._workers = [trackers.Worker("x", lambda: Broken("open", 3), notes.append)]
    began = time.monotonic()
    for step in range(trackers.MAX_WAITING + 10):  # more than the queue holds
        observer.step({"step": step, "reward": 1.0})
    observer.end(Run(tmp_path))
    assert time.monotonic() - began < 2
    behind, unfinished = notes  # each is told once
    assert behind.startswith("warning: x has 10,000 rows waiting; it does not get those")
    assert unfinished == "warning: x has not finished; the run goes on without it"


@pytest.mark.parametrize("status", [*record.schema.STATUSES, None])
def test_a_tracker_is_told_that_a_run_is_complete_only_if_its_record_says_so(tmp_path, status):
    """Also a run that failed after its training has an adapter."""
    closed: list[bool] = []

    class Closing(Broken):
        def close(self, complete):
            closed.append(complete)

    run = Run(tmp_path)
    run.adapter.mkdir()
    if status:
        run.record.write_text(json.dumps({"status": status}))
    observer = Trackers(pytest.fail)
    observer._workers = [trackers.Worker("x", lambda: Closing(""), pytest.fail)]
    observer.end(run)
    assert closed == [status == "complete"]


@pytest.mark.slow
def test_a_run_that_fails_in_its_last_evaluation_is_no_success_to_a_tracker(
    small, tmp_path, monkeypatch
):
    closed: list[tuple[str, bool]] = []

    class Closing(Broken):
        def close(self, complete):
            closed.append((self.fails, complete))

    def begin(observer, run, plan):
        observer._workers = [trackers.Worker("x", lambda: Closing(""), pytest.fail)]

    evaluate = Stages.evaluate

    def fail_at_the_end(stages, when, *, adapter):
        if when == "after":
            raise OSError("the disk is gone")
        evaluate(stages, when, adapter=adapter)

    monkeypatch.setattr(Trackers, "begin", begin)
    monkeypatch.setattr(Stages, "evaluate", fail_at_the_end)
    with pytest.raises(R1RecipesError, match="the disk is gone"):
        run_in_process(small, tmp_path / "runs", observers=[Trackers(pytest.fail)])
    (folder,) = (tmp_path / "runs" / "small").iterdir()
    assert Run(folder).adapter.is_dir() and Run(folder).read()["status"] == "failed"
    assert closed == [("", False)]

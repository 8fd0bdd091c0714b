"""The main job, small: train for real, then look at what is in the folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r1recipes import data, training
from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import files, settings
from r1recipes.machine.meter import Stopwatch
from r1recipes.machine.terminal import AFTER_STEP, Interrupts
from r1recipes.planning import disk
from r1recipes.rewards import Reward
from r1recipes.runs import record
from r1recipes.runs.record import Run
from r1recipes.training import Observer, stages
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.prepared import Options, Prepared
from r1recipes.training.stages import Stages
from tests.helpers import in_process, quiet_view, run_in_process

TIMES = ("step_time", "num_tokens", "time/")


def comparable(run: Run) -> list[dict]:
    """Metrics without what depends on the clock or is counted per attempt."""
    return [
        {key: value for key, value in row.items() if not key.startswith(TIMES)}
        for row in files.read_lines(run.metrics)
    ]


def last_checkpoint(run: Run) -> tuple[Path, int]:
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None
    return checkpoint


def test_a_finished_run_has_everything(finished):
    recorded = finished.read()
    assert recorded["status"] == "complete" and recorded["error"] is None
    assert set(recorded["evaluation"]) == {"before", "after", "difference"}
    assert recorded["evaluation"]["before"]["num_problems"] == 6
    rows = files.read_lines(finished.metrics)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = {
        "reward",
        "reward_std",
        "frac_reward_zero_std",
        "accuracy",
        "loss",
        "grad_norm",
        "learning_rate",
        "rewards/correctness/mean",
        "completions/clipped_ratio",
        "step_time",
    }
    assert names <= rows[0].keys()
    assert {row["step"] for row in files.read_lines(finished.completions)} == set(range(1, 7))
    assert len(files.read_lines(finished.evaluation("after"))) == 6
    assert (finished.adapter / "adapter_model.safetensors").exists()
    assert finished.log.exists()
    lock = json.loads(finished.lock.read_text())
    assert lock["inputs"]["the data"] and lock["fingerprint"] == recorded["fingerprint"]
    assert last_checkpoint(finished)[1] == 6
    assert not list(finished.folder.glob(".draft*"))


def test_the_adapter_changed_and_the_base_did_not(finished):
    import torch
    from safetensors.torch import load_file

    weights = load_file(finished.adapter / "adapter_model.safetensors")
    up = [tensor for name, tensor in weights.items() if "lora_B" in name]
    assert up and all(torch.count_nonzero(tensor) for tensor in up)
    assert "lora_A" not in " ".join(load_file(finished.base / "model.safetensors"))


def test_the_same_seed_gives_the_same_numbers(finished, small, tmp_path):
    again = run_in_process(small, tmp_path / "runs")
    assert comparable(again) == comparable(finished)
    assert again.evaluation("after").read_text() == finished.evaluation("after").read_text()
    other = run_in_process(small, tmp_path / "runs", "seed=2", "train.max_steps=1")
    assert comparable(other)[0]["reward"] != comparable(finished)[0]["reward"]


class Killed(BaseException):
    """What a test raises to leave a run as a kill would."""


def test_a_run_that_died_in_every_stage_ends_as_if_it_had_not(
    finished, small, tmp_path, monkeypatch
):
    """One run that dies five times: what a stage made is there, or is made again to the bit."""

    def die(self, *arguments, **options):
        raise Killed

    deaths: list[tuple[type, str, Callable]] = [
        (TrlBackend, "cold_start", die),
        (TrlBackend, "generate", _die_when(False)),  # in the evaluation before
        (Stages, "on_step", _die_after(3)),  # the checkpoint of step 2 is the last
        (TrlBackend, "save_adapter", die),  # after the last step nothing is trained again
        (TrlBackend, "generate", _die_when(True)),  # in the evaluation after
    ]
    machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
    for number, (owner, method, death) in enumerate(deaths):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, method, death)
            if number == 0:
                run_in_process(small, tmp_path / "runs")
            else:
                (dead,) = record.all_runs(tmp_path / "runs")
                training.resume(dead, [quiet_view()], machine)
        (dead,) = record.all_runs(tmp_path / "runs")
        assert dead.read()["status"] == "running" and dead.read()["attempts"] == number + 1
        halves = [dead.folder / name for name in (".draft-adapter", f"nf4/.base-1.{2**22 + 1}")]
        assert number == 0 or not any(half.exists() for half in halves)
        for half in halves:
            half.mkdir(parents=True, exist_ok=True)
    (dead,) = record.all_runs(tmp_path / "runs")
    training.resume(dead, [quiet_view()], machine)
    assert dead.read()["status"] == "complete" and dead.read()["attempts"] == 6
    assert not any(half.exists() for half in halves)
    assert comparable(dead) == comparable(finished)
    for when in ("before", "after"):
        assert dead.evaluation(when).read_text() == finished.evaluation(when).read_text()


def _die_after(step):
    original = stages.Stages.on_step

    def on_step(self, row, samples):
        original(self, row, samples)
        if row["step"] == step:
            raise Killed

    return on_step


def _die_when(adapter_is):
    original = TrlBackend.generate

    def generate(self, prompts, num_samples, greedy, adapter, hooks):
        if adapter == adapter_is:
            raise Killed
        return original(self, prompts, num_samples, greedy, adapter, hooks)

    return generate


def start(small, folder, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "r1recipes", "run", str(small), "--run-dir", str(folder), *more],
        cwd=small.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_ctrl_c_saves_a_checkpoint_and_kill_9_loses_nothing(finished, small, tmp_path, capfd):
    run = Run(tmp_path / "mine")
    process = start(small, run.folder)
    wait_for(process, lambda: len(files.read_lines(run.metrics)) >= 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert out.count(AFTER_STEP) == 1
    python = Path(sys.executable).name
    assert f"hint: go on with `{python} -m r1recipes run --resume {run.folder}`" in err
    assert run.read()["status"] == "stopped"
    _, saved = last_checkpoint(run)
    assert saved >= 1 and f"step {saved} is saved" in err

    process = start(small, run.folder)  # the folder exists: refused, and nothing is lost
    assert process.wait(60) == 2 and last_checkpoint(run)[1] == saved

    process = subprocess.Popen(
        [sys.executable, "-m", "r1recipes", "run", "--resume", str(run.folder)], cwd=tmp_path
    )
    wait_for(process, lambda: run.read()["attempts"] == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    capfd.readouterr()
    code, out, err = in_process("run", "--resume", run.folder)
    out += capfd.readouterr().out
    assert code == 0, err
    assert "\x1b" not in out and "Accuracy" in out
    assert comparable(run) == comparable(finished)
    assert in_process("run", "--resume", run.folder)[0] == 0


def test_changed_data_or_code_is_not_resumed(small, tmp_path, monkeypatch):
    rows = [{"question": f"{i}+1", "answer": str(i + 1)} for i in range(30)]
    data = tmp_path / "data.jsonl"
    rows_text = "".join(json.dumps(row) + "\n" for row in rows)
    data.write_text(rows_text)
    code = tmp_path / "mine.py"
    code.write_text("def short(completion, row):\n    return 1 / (1 + len(completion))\n")
    text = small.read_text().replace('"builtin:arithmetic"', '"data.jsonl"')
    text = text.replace("[data.problems]\ndigits = 2\n", "")
    text = text.replace("xml_tags = 0.5", '"mine.py:short" = 0.5')
    text = text.replace("wrong = 0.3", 'data = "demos.jsonl"')
    demos = [
        {
            "question": r["question"],
            "completion": f"<reasoning>\nx\n</reasoning>\n<answer>\n{r['answer']}\n</answer>",
        }
        for r in rows
    ]
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps(d) + "\n" for d in demos))
    small.write_text(text)
    code_is, _, err = in_process("run", small, "--offline")
    assert code_is == 2 and "--allow-code" in err
    with monkeypatch.context() as patch:
        patch.setattr("r1recipes.training.stages.Stages.on_step", _die_after(3))
        patch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
        with pytest.raises(Killed):
            in_process("run", small, "--offline", "--allow-code")
    dead = record.all_runs(tmp_path / "runs")[0]
    machine = settings.Settings(runs_dir=tmp_path / "runs", offline=True)
    original = code.read_text()
    code.write_text(original + "# changed\n")
    allowed = Options(allow_code=True)
    with pytest.raises(RecipeError, match="only with --allow-code"):  # a folder can be anybody's
        training.resume(dead, [], machine)
    with pytest.raises(RecipeError, match="code of reward `mine.py:short` changed"):
        training.resume(dead, [], machine, options=allowed)
    code.write_text(original)
    data.write_text(data.read_text().replace('"29"', '"2"', 1).replace("28+1", "28+2"))
    with pytest.raises(RecipeError, match="the data changed since"):
        training.resume(dead, [], machine, options=allowed)
    (tmp_path / "demos.jsonl").write_text("")
    data.write_text(rows_text)
    with pytest.raises(RecipeError, match="the demonstrations changed since"):
        training.resume(dead, [], machine, options=allowed)


def test_a_failure_is_recorded_with_its_kind(small, tmp_path, monkeypatch):
    def explode(self, *arguments, **options):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr("r1recipes.training.backends.trl.TrlBackend.load", explode)
    with pytest.raises(RunError) as raised:
        run_in_process(small, tmp_path / "runs")
    assert raised.value.exit_code == 1
    failed = record.all_runs(tmp_path / "runs")[0]
    assert failed.read()["status"] == "failed"
    assert failed.read()["error"]["kind"] == "oom"
    assert "Traceback" in failed.log.read_text()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("cold_start", "the cold start, of all weights, was too large"),
        ("load", "the model found no room"),
        ("generate", "the model ran out while it generated"),
        ("train", "the first training pass"),
    ],
)
def test_out_of_memory_says_where(method, kind, small, tmp_path, monkeypatch):
    def explode(self, *arguments, **options):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(f"r1recipes.training.backends.trl.TrlBackend.{method}", explode)
    monkeypatch.setattr("r1recipes.training.stages.Stages.probe", lambda self: None)
    with pytest.raises(RunError, match=f"out of memory, {kind}") as raised:
        run_in_process(small, tmp_path / "runs")
    assert "try `--set " in (raised.value.problems[0].hint or "")


@pytest.mark.parametrize("dtype, steps", [("float32", 3), ("float16", 5)])
def test_a_gradient_that_is_not_finite_stops_the_run(dtype, steps, small, tmp_path, monkeypatch):
    """In float16 later, since an overflow of the scaled loss only skips a step."""
    original = stages.Stages.on_step

    def on_step(self, row, samples):
        self.plan = self.plan.model_copy(update={"dtype": dtype})
        original(self, row | {"grad_norm": float("nan")}, samples)

    monkeypatch.setattr("r1recipes.runs.health.rules.FLOAT16_NAN_STEPS", 5)
    monkeypatch.setattr("r1recipes.training.stages.Stages.on_step", on_step)
    with pytest.raises(RunError, match=f"not finite for {steps} steps") as raised:
        run_in_process(small, tmp_path / "runs")
    assert raised.value.kind == "nan"


def test_what_cannot_learn_is_stopped_before_training(small, tmp_path):
    with pytest.raises(RunError, match="are cut at max_completion_length = 2"):
        run_in_process(small, tmp_path / "runs", "preset.max_completion_length=2")
    stopped = record.all_runs(tmp_path / "runs")[0]
    assert stopped.read()["error"]["kind"] == "reward"
    assert files.read_lines(stopped.metrics) == []


def test_a_log_on_a_full_disk_does_not_swallow_the_message(small, tmp_path, monkeypatch):
    def fill(self, *arguments, **options):
        full = os.open("/dev/full", os.O_WRONLY)
        for number in (1, 2, sys.stdout.fileno()):
            os.dup2(full, number)
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("r1recipes.training.backends.trl.TrlBackend.load", fill)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    code, _, err = in_process("run", small, "--offline")
    assert code == 1 and "No space left on device" in err and "hint: free some space" in err
    assert record.all_runs(tmp_path / "runs")[0].read()["status"] == "failed"


def test_a_reader_that_leaves_does_not_end_the_run(finished, small, tmp_path):
    command_line = f"{sys.executable} -m r1recipes run {small} --run-dir mine | head -2"
    done = subprocess.run(
        ["bash", "-c", f"{command_line}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0
    assert comparable(Run(tmp_path / "mine")) == comparable(finished)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(small, tmp_path, monkeypatch):
    enough = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: enough._replace(free=10_000_000))
    with pytest.raises(RunError, match="MB, its disk has 10.0 MB free") as raised:
        run_in_process(small, tmp_path / "runs")
    assert raised.value.kind == "disk" and not (tmp_path / "runs").exists()


def test_disk_is_reckoned_from_the_configuration(finished):
    plan = finished.plan()
    weights = (finished.base / "model.safetensors").stat().st_size
    backend = TrlBackend(plan, offline=True)
    backend.load(finished.base, None)
    needed = weights + 4 * backend.checkpoint_bytes()
    assert disk.run_bytes(plan, disk.shape_of(plan, offline=True)) == pytest.approx(
        needed, rel=1e-3
    )


def stages_of(run: Run, observer: Observer | None = None) -> Stages:
    """The stages of a run of which nothing is loaded."""
    plan = run.plan()
    backend = TrlBackend(plan, offline=True)
    splits = data.load(plan.recipe, plan.base_dir, offline=True)
    reward = Reward("none", lambda completions, **columns: [0.0] * len(completions))
    prepared = Prepared(plan, splits, backend, {}, reward, {})
    return Stages(run, prepared, observer or Observer(), Options(), Interrupts(print), Stopwatch())


def test_the_time_of_a_killed_stage_is_counted_to_its_last_step(finished, tmp_path):
    dead = Run(shutil.copytree(finished.folder, tmp_path / "dead"))
    before = dead.read()["duration_s"]
    began = dead.metrics.stat().st_mtime - 7.5
    dead.update(stage={"name": "train", "began_s": began})
    stages_of(dead).count_killed_stage()
    assert dead.read()["duration_s"] == before | {"train": pytest.approx(before["train"] + 7.5)}
    assert dead.read()["stage"] is None
    assert dead.read()["time"]["total"] == pytest.approx(7.5, abs=1)  # beside that of attempts


def test_a_full_disk_is_one_line_and_exit_1(small, tmp_path, monkeypatch):
    def full(path, row):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "append_line", full)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    code, _, err = in_process("run", small, "--offline")
    assert code == 1
    assert "No space left on device" in err and "Traceback" not in err

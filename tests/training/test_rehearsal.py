"""A rehearsal as far as it goes without a GPU: what it refuses, and how it reports an error."""

import contextlib
import copy
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError, RecipeError
from r1recipes.machine.files import read_lines
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import models, out_of_memory
from r1recipes.planning.speed.lengths import REAL, Lengths
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training.backends.unsloth import lengths as engine_lengths
from r1recipes.training.rehearsal import child, drawn, driver
from tests.conftest import SMALL
from tests.driver import FakeCard, FakeDriver
from tests.helpers import command, in_process, is_running

CARD = Gpu(0, "NVIDIA L4", 22 * GIB, 22 * GIB, 8.9, "580.1")


def made(name: str = "qwen2.5-1.5b", preset: str = "8GB", **changes) -> planning.Plan:
    loaded = recipe.load(name)
    plan = planning.make(
        loaded.recipe,
        planning.Target.elsewhere(CARD),
        base_dir=loaded.path.parent,
        preset=preset,
    )
    return plan.model_copy(update=changes)


def run(plan: planning.Plan, tmp_path, **options):
    options = {"vram_bytes": None, "steps": 2} | options
    return driver.rehearse(plan, weights_dir=tmp_path, **options)


def test_what_cannot_be_rehearsed_is_refused_at_once(tmp_path):
    with pytest.raises(RecipeError, match="the shape of `builtin:small` is not in the catalogue"):
        run(made("small"), tmp_path)
    with pytest.raises(PlanError, match="needs Unsloth and vLLM"):
        run(made(backend="trl"), tmp_path)
    with pytest.raises(RecipeError, match="64 completions a step do not divide into batches of 5"):
        run(made(), tmp_path, batches=(4, 5))


@pytest.mark.parametrize("flags", [["--vram", "0"], ["--vram", "-3"], ["--steps", "0"], []])
def test_the_command_refuses_what_means_nothing(flags, monkeypatch):
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: None)
    code, _, err = in_process("rehearse", "phi4", *flags)
    message = flags[0] if flags else "needs an NVIDIA GPU"
    assert code == 2 and message in err
    assert flags or "`r1recipes plan phi4 --preset 16GB` predicts" in err


def test_a_card_that_torch_cannot_use_ends_it_and_is_not_waited_for(tmp_path):
    """This torch has no CUDA, as one without a driver has none."""
    with pytest.raises(PlanError, match="torch cannot use the card: Torch not compiled with CUDA"):
        run(made(), tmp_path)


def test_a_proof_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: CARD)
    monkeypatch.setattr("r1recipes.planning.plan.has_unsloth", lambda: True)
    for place in ("/proc/gone/proof.json", tmp_path):
        code, out, err = in_process("rehearse", "qwen2.5-1.5b", "--proof", place)
        assert code == 2 and not out and f"`{place}` cannot be written" in err
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", "/proc/gone")
    code, out, err = in_process("rehearse", "qwen2.5-1.5b")
    assert code == 2 and not out and "/proc/gone" in err and "set R1RECIPES_CACHE_DIR" in err


def test_out_of_memory_in_a_rehearsal_is_named_by_its_phase():
    error = {"error": "OutOfMemoryError: CUDA out of memory.", "failed_in": "first step"}
    explanation = driver._oom(made(), 4, error)
    assert explanation == vars(out_of_memory.explain(error["error"], "first step", made())) | {
        "change": "--set preset.per_device_train_batch_size=2"
    }
    assert driver._oom(made(), 4, {"error": "ValueError: no", "failed_in": "load"}) == {}
    assert "no room" in driver._oom(made(), 8, error | {"failed_in": "import"})["kind"]


TORCH = """
import multiprocessing, os, time, types
name = multiprocessing.current_process().name
with open(os.environ["PIDS"], "a") as pids:
    print(os.getpid(), file=pids)
if name.endswith("2"):  # the worker, which writes weights for ever
    from pathlib import Path
    from r1recipes.machine import files
    with files.draft(Path("cache/random-weights/qwen")):
        time.sleep(600)
memory = lambda: (2 ** 34, 2 ** 34)
cuda = types.SimpleNamespace(init=int, mem_get_info=memory)
zeros = lambda *shape, device: None
"""


def world(folder: Path, driver: FakeDriver, **modules: str) -> dict[str, str]:
    """Environment with a card of 22 GiB, and with modules that stand for the stack."""
    driver.says(FakeCard())
    for name, text in ({"unsloth": "", "vllm": ""} | modules).items():
        (folder / f"{name}.py").write_text(text)
    return driver.environment(folder) | {"R1RECIPES_CACHE_DIR": str(folder / "cache")}


IDLE = """
import types
count = lambda: 0
cuda = types.SimpleNamespace(
    mem_get_info=lambda: (2 ** 34, 2 ** 34), is_initialized=lambda: False,
    max_memory_allocated=count, max_memory_reserved=count,
)
zeros = lambda *shape, device: None
"""
LOUD = """
import os
print("Unsloth: will patch your computer", flush=True)
os.write(1, b"INFO: from C")
raise NotImplementedError("no such card")
"""


@pytest.mark.parametrize("lengths", ["full", "real"])
def test_stdout_has_the_proof_alone(lengths, driver, tmp_path):
    """What Unsloth and vLLM print goes to stderr: `rehearse RECIPE > proof.json`."""
    environment = world(tmp_path, driver, torch=IDLE, unsloth=LOUD)
    arguments = ("rehearse", "qwen2.5-1.5b", "--preset", "8GB")
    done = command(*arguments, "--lengths", lengths, cwd=tmp_path, **environment)
    proof = json.loads(done.stdout)
    assert done.returncode == 1 and "no such card" in proof["error"]
    assert "r1recipes doctor" in proof["hint"]


def test_a_proof_is_shown_where_its_file_can_no_longer_be_written(driver, tmp_path):
    """As when the disk has become full: it took minutes of a card."""
    full = tmp_path / "full.json"
    full.symlink_to("/dev/full")
    environment = world(tmp_path, driver, torch=IDLE, unsloth=LOUD)
    arguments = ("rehearse", "qwen2.5-1.5b", "--preset", "8GB", "--proof", full)
    done = command(*arguments, cwd=tmp_path, **environment)
    assert "no such card" in json.loads(done.stdout)["error"]
    assert done.returncode == 1 and "free some space" in done.stderr
    assert "will patch" in done.stderr and "from C" in done.stderr


def test_a_worker_that_is_killed_is_a_result(driver, tmp_path):
    """As by the system, when the main memory is full."""
    killed = "import os; os.kill(os.getpid(), 9)"
    environment = world(tmp_path, driver, torch=IDLE, unsloth=killed)
    done = command("rehearse", "qwen2.5-1.5b", "--preset", "8GB", cwd=tmp_path, **environment)
    proof = json.loads(done.stdout)
    assert (done.returncode, proof["error"]) == (1, "the process died, exit code -9")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_holds_the_card_ends_with_the_rehearsal(number, driver, tmp_path):
    """Also when that is killed; and Ctrl-C, which all of them get, is said once."""
    environment = (
        os.environ | world(tmp_path, driver, torch=TORCH) | {"PIDS": str(tmp_path / "pids")}
    )
    started = [sys.executable, "-m", "r1recipes", "rehearse", "qwen2.5-1.5b", "--preset", "8GB"]
    with subprocess.Popen(
        started,
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background has SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        children = wait_for(lambda: len(pids := read(tmp_path / "pids")) == 2 and pids)
        wait_for(lambda: list(tmp_path.glob("cache/random-weights/.*")))
        parent.send_signal(number) if number != signal.SIGINT else os.killpg(parent.pid, number)
        _, err = parent.communicate(timeout=20)
    wait_for(lambda: not any(is_running(pid) for pid in children))
    if number == signal.SIGINT:
        assert (parent.returncode, err) == (130, "stopped\n")
        assert not list((tmp_path / "cache" / "random-weights").iterdir())


def test_ctrl_c_ends_a_list_of_cases_and_leaves_them_to_be_tried_again(driver, tmp_path):
    cases = '[[case]]\nname = "{0}"\nrecipe = "qwen2.5-1.5b"\npreset = "8GB"\n'
    (tmp_path / "cases.toml").write_text(cases.format("one") + cases.format("two"))
    environment = (
        os.environ | world(tmp_path, driver, torch=TORCH) | {"PIDS": str(tmp_path / "pids")}
    )
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.memory.rehearse", "cases.toml", "points", "--gpus", "0"],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        children = wait_for(lambda: len(pids := read(tmp_path / "pids")) == 2 and pids)
        parent.send_signal(signal.SIGINT)
        parent.communicate(timeout=20)
    wait_for(lambda: not any(is_running(pid) for pid in children))
    assert len(read(tmp_path / "pids")) == 2 and not list((tmp_path / "points").iterdir())


def read(path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition):
    """What `condition` returns as soon as that is true."""
    end = time.monotonic() + 20
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


IMPORTED_FIRST = """
import sys
heavy = {"torch", "transformers", "trl", "peft", "vllm"} & sys.modules.keys()
raise ImportError(f"imported before: {sorted(heavy)}")
"""
WORK = """
import sys
from multiprocessing import Value
from pathlib import Path
from r1recipes.training.rehearsal import child
plan, sent = Path(sys.argv[1]).read_text(), []
child.work(plan, Path("weights"), 1, (8,), None, Value("i", 0), sent.append)
print(sent[0]["error"])
"""


def test_nothing_heavy_is_imported_before_unsloth(tmp_path):
    """As in a run: it sets the allocator and patches what is imported after it."""
    (tmp_path / "unsloth.py").write_text(IMPORTED_FIRST)
    (tmp_path / "plan.json").write_text(made().model_dump_json())
    path = [str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-c", WORK, "plan.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("ImportError: imported before: []\n"), done.stderr


COLD_START = SMALL[SMALL.index("[cold_start]") : SMALL.index("[eval]")]
RECIPE = SMALL.replace(COLD_START, "").replace("builtin:tiny", "own/own-0.1b")
SHAPE = models.ModelShape("own", ("own-0.1b",), 64, 128, 2, 4, 2, 16, 128, True, True)


@pytest.fixture
def on_cpu(tmp_path, monkeypatch) -> Callable[..., tuple[list[Row], int]]:
    """Rehearses batches through TRL: the proofs, without sizes of an engine, and the last phase."""
    monkeypatch.setitem(models.MODELS, "own-0.1b", SHAPE)
    (tmp_path / "mine.toml").write_text(RECIPE)
    loaded = recipe.load(str(tmp_path / "mine.toml"))
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)

    def work(*batches: int, lengths: Lengths | None = None) -> tuple[list[Row], int]:
        proofs: list[Row] = []
        phase, weights = multiprocessing.Value("i", 0), tmp_path / "weights"
        text = plan.model_dump_json()
        child.work(text, weights, 2, batches, lengths, phase, proofs.append)
        return proofs, phase.value

    return work


def test_the_worker_trains_each_batch_on_weights_of_the_models_shape(on_cpu, tmp_path):
    proofs, phase = on_cpu(4, 8)
    assert [proof.get("error") for proof in proofs] == [None, None]
    for proof in proofs:
        assert proof["steps"] == 2
        assert proof["completions_per_step"] == 16 and proof["mean_length"] > 1
        assert proof["step_s"] > proof["generation_s"] > 0 < proof["projected_run_s"]
    assert phase == child.phase_index("steps", 1)
    (made_once,) = (tmp_path / "weights").iterdir()
    assert not [path for path in made_once.iterdir() if path.is_dir()]  # no checkpoint
    assert json.loads((made_once / "config.json").read_text())["hidden_size"] == SHAPE.hidden_size


@pytest.mark.parametrize(
    ("method", "failed_in"),
    [("_generate_single_turn", "generate"), ("_compute_loss", "first step")],
)
def test_an_error_is_reported_with_its_phase(method, failed_in, on_cpu, monkeypatch):
    """Out of memory in the engine is not answered with a smaller training pass."""

    def full(*arguments, **options):
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(f"trl.GRPOTrainer.{method}", full)
    ((proof,), phase) = on_cpu(8)
    assert proof["failed_in"] == failed_in and "CUDA out of memory." in proof["error"]
    assert phase == child.phase_index(failed_in, 0)


@pytest.fixture
def seen(monkeypatch) -> list[list[int]]:
    """The lengths of the completions that TRL was given in each step."""
    from trl import GRPOTrainer

    lengths: list[list[int]] = []
    generate = GRPOTrainer._generate_single_turn

    def watched(self, *args, **options):
        made = generate(self, *args, **options)
        lengths.append([len(ids) for ids in made[0]])
        return made

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", watched)
    return lengths


def test_real_lengths_are_measured_after_full_ones(on_cpu, seen, monkeypatch):
    """Each completion has the length that was drawn for it."""
    asked: list[list[int]] = []
    completions = Lengths.completions

    def watched(self, *args):
        asked.append(completions(self, *args))
        return asked[-1]

    monkeypatch.setattr(Lengths, "completions", watched)
    proofs, phase = on_cpu(4, 8, lengths=REAL)
    assert len(asked) == 4 and seen[2:4] + seen[6:8] == asked
    assert phase == child.phase_index("steps", 3)  # not among the phases of the two batches
    for proof, lengths in zip(proofs, (asked[:2], asked[2:]), strict=True):
        real = proof["real"]
        assert "error" not in proof and "error" not in real and real["lengths"] == "real"
        assert real["steps"] == 2 and real["step_s"] > real["generation_s"] > 0
        assert real["max_length"] == max(map(max, lengths)) and proof["steps"] == 2
        assert real["mean_length"] == pytest.approx(sum(map(sum, lengths)) / 32, abs=0.06)
        assert 0 < real["projected_run_s"] and real["completions_per_hour"] > 0
    assert asked[:2] == asked[2:]  # each batch has the same


def test_without_lengths_a_proof_is_as_it_was(on_cpu):
    ((proof,), phase) = on_cpu(8)
    assert "real" not in proof and phase == child.phase_index("steps", 0)


@pytest.mark.parametrize("fault", ["generate", "ignored"])
def test_an_error_with_real_lengths_leaves_what_was_measured(fault, on_cpu, monkeypatch):
    if fault == "generate":

        def full(*args):
            raise RuntimeError("CUDA out of memory.")

        monkeypatch.setattr(Lengths, "completions", full)
    else:  # as where a version of the stack no longer takes the lengths
        monkeypatch.setattr(
            "r1recipes.training.backends.trl._ended", lambda *_: contextlib.nullcontext()
        )
        monkeypatch.setattr("r1recipes.training.rehearsal.drawn.TOLERANCE", -1.0)
    ((proof,), _) = on_cpu(8, lengths=REAL)
    assert "error" not in proof and proof["step_s"] > 0
    expected = "out of memory" if fault == "generate" else "tokens on average"
    assert expected in proof["real"]["error"] and "step_s" not in proof["real"]


class Params:
    """As vLLM's SamplingParams."""

    def __init__(self) -> None:
        self.max_tokens, self.temperature = 99, 0.5

    clone = copy.copy


def test_the_engine_is_asked_for_each_length_and_is_put_back():
    calls: list[tuple[list[str], list[Params], dict[str, Any]]] = []

    class Engine:
        def generate(self, prompts, sampling_params=None, **options):
            calls.append((prompts, sampling_params, options))
            return "made"

    engine, shared = Engine(), Params()
    trainer = SimpleNamespace(vllm_generation=SimpleNamespace(llm=engine))
    with engine_lengths.ended(trainer, lambda count: [*range(1, count + 1)]):
        made = engine.generate(["a", "b"], sampling_params=shared, use_tqdm=False)
    prompts, params, options = calls[0]
    assert made == "made" and prompts == ["a", "b"] and options == {"use_tqdm": False}
    assert [(each.max_tokens, each.temperature) for each in params] == [(1, 0.5), (2, 0.5)]
    assert shared.max_tokens == 99 and not vars(engine)
    with engine_lengths.ended(trainer, None):
        assert not vars(engine)


def test_lengths_of_a_run_are_those_of_its_answers(finished):
    run, lengths = finished, drawn.of_run(finished)
    items = [item for when in ("before", "after") for item in read_lines(run.evaluation(when))]
    tokens = sorted(sample["num_tokens"] for item in items for sample in item["samples"])
    limit = run.plan().preset.max_completion_length
    mean, longest = lengths.expected(len(tokens), limit)
    assert mean == pytest.approx(sum(tokens) / len(tokens), rel=0.1)
    assert lengths.quantiles[0][1] == tokens[0] and longest <= tokens[-1]
    assert (
        lengths.name == run.folder.name and 0 < lengths.prompt_mean < run.plan().max_prompt_length
    )


def test_a_run_without_answers_has_no_lengths(finished, tmp_path, monkeypatch):
    run = Run(shutil.copytree(finished.folder, tmp_path / "mine"))
    for when in ("before", "after"):
        run.evaluation(when).unlink()
    with pytest.raises(RecipeError, match="has no answers to held-out problems yet"):
        drawn.of_run(run)
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: CARD)
    monkeypatch.setattr("r1recipes.planning.plan.has_unsloth", lambda: True)
    code, _, err = in_process("rehearse", "qwen2.5-1.5b", "--lengths", tmp_path / "nowhere")
    assert code == 2 and "there is no run folder" in err

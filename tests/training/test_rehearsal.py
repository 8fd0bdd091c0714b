"""A rehearsal as far as it goes without a GPU: what it refuses, and how it reports an error."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError, RecipeError
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import out_of_memory
from r1recipes.training.rehearsal import driver
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

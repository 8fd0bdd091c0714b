"""A pretrained model through the whole job on a CPU: SmolLM2-135M, whose chat template begins every
turn with its BOS token."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1recipes.machine import files
from r1recipes.runs.record import Run
from tests import smollm2
from tests.helpers import command, in_process
from tests.rows import write

pytestmark = pytest.mark.slow

STEP_LIMIT_S = 300
"""Seconds to the third step, about 60 on two idle cores (measured); the rest is for busy ones."""
CITIES = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Germany": "Berlin",
    "England": "London",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "China": "Beijing",
    "Austria": "Vienna",
    "Poland": "Warsaw",
}
RECIPE = """\
format = 1

[model]
name = {model}

[data]
name = "cities.jsonl"
eval_size = 4

[prompt]
system = "Write the answer between <answer> and </answer>."

[rewards]
correctness = 1.0
"named.py:named" = 0.5
soft_format = 0.1

[train]
max_steps = 20
learning_rate = 1e-4
save_steps = 50

[eval]
samples = 1

[preset.cpu]
max_seq_length = 128
max_completion_length = 16
lora_rank = 8
num_generations = 4
prompts_per_step = 4
"""
NAMED = """\
def named(completion, row):
    return float(row["answer"] in completion)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    path = folder / "cities.toml"
    path.write_text(RECIPE.format(model=json.dumps(str(smollm2.folder()))))
    (folder / "named.py").write_text(NAMED)
    rows = [
        {"question": f"What is the capital of {country}?", "answer": city}
        for country, city in CITIES.items()
    ]
    write(folder / "cities.jsonl", rows)
    return path


@pytest.fixture(scope="module")
def stopped(recipe: Path) -> tuple[Run, str]:
    """A run that Ctrl-C stopped after its third step, and what it printed."""
    run = Run(recipe.parent / "run")
    line = [sys.executable, "-m", "r1recipes", "run", str(recipe), "--run-dir", str(run.folder)]
    with (recipe.parent / "out.txt").open("w+") as out:
        process = subprocess.Popen(
            [*line, "--allow-code", "--offline"],
            cwd=recipe.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            # A shell that starts the tests in the background has SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            end = time.monotonic() + STEP_LIMIT_S
            while len(files.read_lines(run.metrics)) < 3:
                assert process.poll() is None and time.monotonic() < end, Path(out.name).read_text()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            code = process.wait(STEP_LIMIT_S)
        finally:
            process.kill()
            process.wait()
        printed = Path(out.name).read_text()
    assert code == 130, printed
    return run, printed


def test_check_accepts_it(recipe):
    code, out, err = in_process("check", recipe)
    assert code == 0, err
    assert out.startswith("cities.toml: ok") or f"{recipe}: ok" in out


def test_given_completions_are_graded(recipe):
    texts = {"Paris": True, "Lyon": False}
    rows = [
        {
            "question": "What is the capital of France?",
            "answer": "Paris",
            "completion": f"<answer>{text}</answer>",
        }
        for text in texts
    ]
    path = write(recipe.parent / "completions.jsonl", rows)
    code, out, err = in_process("grade", recipe, path, "--json", "--allow-code")
    assert code == 0, err
    assert [row["right"] for row in json.loads(out)["rows"]] == list(texts.values())


def test_its_own_completions_are_graded(recipe):
    done = command(
        *("grade", recipe, "--sample", 4, "--json", "--allow-code", "--offline"), cwd=recipe.parent
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 4 and all(row["completion"] for row in rows)
    assert any(row["rewards"]["named.py:named"] for row in rows)  # it has learned capitals


def test_ctrl_c_leaves_a_whole_checkpoint_of_a_run_that_was_probed(stopped):
    run, printed = stopped
    assert "`<|im_start|>`, with which the chat template begins every turn" in printed
    assert re.search("can be learned|little is left to learn", printed.partition("Training ...")[0])
    checkpoint = run.last_checkpoint()
    assert checkpoint is not None and checkpoint[1] >= 3
    assert f"step {checkpoint[1]} is saved" in printed
    assert run.read()["status"] == "stopped"
    steps = [row["step"] for row in files.read_lines(run.metrics)]
    assert steps == list(range(1, checkpoint[1] + 1))


def test_the_checkpoint_answers_and_names_its_step(stopped, capfd):
    run, _ = stopped
    question = "What is the capital of France?"
    code, out, err = in_process("ask", run.folder, question, "--max-tokens", 12, "--offline")
    assert code == 0, err
    assert "Paris" in out.partition("trained:\n")[2]
    assert f"checkpoint of step {run.last_checkpoint()[1]} of 20" in err


def test_the_run_is_finished_at_its_checkpoint(stopped):
    run, _ = stopped
    done = command(
        *("run", "--finish", run.folder, "--allow-code", "--offline"), cwd=run.folder.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.read()["status"] == "complete"
    assert len(files.read_lines(run.evaluation("after"))) == 4

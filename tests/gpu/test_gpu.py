"""The GPU path from the command line, on one NVIDIA card: stopped, resumed, loaded again, offline.

One recipe goes through it: `small` with its model, data and demonstrations as local files, with a
few steps, without a network. Then the model after its cold start is trained in 4 bits and exported.
Last a recipe is rehearsed. Limits: an engine is started six times, which takes minutes.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1recipes import recipe, runs
from r1recipes.machine import files
from r1recipes.training.rehearsal import child
from tests.helpers import command
from tests.local import ROOT, without_network, write_recipe

pytestmark = pytest.mark.gpu

STEPS, LIMIT_S = 8, 600
COLD_STEPS, COLD_BATCH = 200, 64
CHANGES = {
    "train.max_steps": STEPS,
    "train.save_steps": 2,
    "cold_start.steps": COLD_STEPS,
    "data.size": 2000,
    "data.eval_size": 64,
    "eval.samples": 2,
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped by Ctrl-C after its second step."""
    folder = tmp_path_factory.mktemp("gpu")
    text = recipe.find("small").read_text()
    path = write_recipe(folder, text, COLD_STEPS * COLD_BATCH)
    flags = [word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}")]
    run, log = runs.Run(folder / "mine"), folder / "network.log"
    arguments = ["run", str(path), "--run-dir", str(run.folder), "--force", *flags]
    with open(folder / "output.txt", "w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "r1recipes", *arguments],
            cwd=folder,
            env=os.environ | without_network(log),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_step(run, process, 2)
            process.send_signal(signal.SIGINT)
            code = process.wait(LIMIT_S)
        finally:
            process.kill()
            process.wait()
            output.seek(0)
            text = output.read()
    return SimpleNamespace(run=run, log=log, folder=folder, code=code, output=text)


def wait_for_step(run: runs.Run, process: subprocess.Popen[bytes], step: int) -> None:
    end = time.monotonic() + LIMIT_S
    while len(files.read_lines(run.metrics)) < step:
        if process.poll() is not None or time.monotonic() > end:
            log = run.log.read_text()[-4000:] if run.log.exists() else "no log"
            output = (run.folder.parent / "output.txt").read_text()
            pytest.fail(f"exit code {process.poll()}, no step {step}\n{output}\n{log}")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def resumed(stopped):
    """The same run, resumed to its end; `first` is the record as the stop left it."""
    stopped.first, stopped.saved = stopped.run.read(), stopped.run.last_checkpoint()
    environment = without_network(stopped.log)
    done = command("run", "--resume", stopped.run.folder, cwd=stopped.folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr + stopped.run.log.read_text()[-4000:]
    return stopped


@pytest.fixture(scope="module")
def reloaded(resumed):
    """Answers of the base and of the saved adapter in a fresh process."""
    result = resumed.folder / "reloaded.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.reload", resumed.run.folder, result],
        cwd=ROOT,
        env=os.environ | without_network(resumed.log),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.exists(), done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(result.read_text())


def answers(run: runs.Run, when: str) -> list[str]:
    return [item["greedy"]["text"] for item in files.read_lines(run.evaluation(when))]


def share_equal(one: list[str], other: list[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def test_the_doctor_finds_nothing_that_stops_the_recipe():
    done = command("doctor", "small", cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_ctrl_c_saves_a_checkpoint(stopped):
    assert stopped.code == 130, stopped.output + stopped.run.log.read_text()[-4000:]
    assert "is saved" in stopped.output and "run --resume" in stopped.output


def test_the_run_goes_on_to_its_end(resumed):
    assert resumed.first["status"] == "stopped" and resumed.saved[1] >= 2
    record = resumed.run.read()
    assert record["status"] == "complete" and record["attempts"] == 2
    assert [row["step"] for row in files.read_lines(resumed.run.metrics)] == [*range(1, STEPS + 1)]


def test_it_went_through_unsloth_and_vllm(resumed):
    plan, versions = resumed.run.plan(), resumed.run.read_lock()["versions"]
    assert (plan.backend, plan.device) == ("unsloth", "cuda")
    assert {"unsloth", "unsloth_zoo", "vllm"} <= versions.keys()


def test_each_step_was_rewarded_and_had_a_gradient(resumed):
    rows = files.read_lines(resumed.run.metrics)
    assert all(math.isfinite(row["reward"]) and math.isfinite(row["grad_norm"]) for row in rows)
    assert any(row["grad_norm"] > 0 for row in rows)
    assert all(row["completions/mean_length"] > 1 for row in rows)
    completions = files.read_lines(resumed.run.completions)
    assert {row["step"] for row in completions} == set(range(1, STEPS + 1))


def test_the_adapter_is_saved_and_has_moved(resumed):
    import torch
    from safetensors.torch import load_file

    weights = load_file(resumed.run.adapter / "adapter_model.safetensors")
    up = [tensor for name, tensor in weights.items() if "lora_B" in name]
    assert up and all(torch.count_nonzero(tensor) for tensor in up)
    assert (resumed.run.adapter / "adapter_config.json").exists()


def test_no_request_left_the_machine(reloaded, resumed):
    assert not resumed.log.exists(), resumed.log.read_text()


def test_the_saved_adapter_changes_the_answers_in_a_fresh_process(reloaded):
    assert share_equal(reloaded["base"], reloaded["adapter"]) < 1


def test_base_equals_base_and_adapter_equals_adapter(reloaded, resumed):
    """Nearly all: sums on a GPU have no fixed order, so a rare tie goes the other way."""
    assert share_equal(reloaded["base"], answers(resumed.run, "before")) >= 0.9
    assert share_equal(reloaded["adapter"], answers(resumed.run, "after")) >= 0.9


def test_the_engine_is_as_the_plan_says(reloaded):
    assert reloaded["engine"]["right"] == []


def test_the_engine_tells_its_sizes(reloaded, resumed):
    facts = reloaded["facts"]
    assert facts["kv_tokens"] >= resumed.run.plan().preset.max_seq_length
    assert facts["max_num_batched_tokens"] > 0 and facts["free_after_load_gib"] > 0


@pytest.mark.parametrize(
    "difference",
    [
        "engine",
        "max_seq_length",
        "lora_rank",
        "load_in",
        "KV cache tokens",
        "dtype",
        "sequences at once",
    ],
)
def test_an_engine_that_is_not_as_asked_is_found(difference, reloaded):
    assert difference in reloaded["engine"][difference]


def test_four_bits_are_the_published_ones_with_every_layer_in_nf4(reloaded):
    published = dict(reloaded["published"])
    for unpublished in ("nobody/nothing", "allenai/Llama-3.1-Tulu-3-8B"):
        assert published.pop(unpublished) is None
    assert len(published) == 5
    for name, repository in published.items():
        assert repository == f"{name}-bnb-4bit"


def test_arguments_that_unsloth_changes_or_drops_are_found(reloaded):
    assert {"per_device_train_batch_size", "learnign_rate"} <= set(reloaded["arguments"])
    assert "learning_rate" not in reloaded["arguments"]


def test_the_run_is_no_larger_than_its_estimate(resumed):
    from r1recipes.planning import disk

    plan, folder = resumed.run.plan(), Path(resumed.run.folder)
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shape = disk.shape_of(plan, offline=True)
    assert written < 1.05 * disk.run_bytes(plan, shape) + 5e6


@pytest.fixture(scope="module")
def four_bit(resumed):
    """A run in 4 bits on a local folder in 16 bits, the model after the cold start."""
    folder = resumed.folder
    text = (
        (folder / "local.toml").read_text().replace('"model"', f'"{resumed.run.folder.name}/base"')
    )
    text = re.sub(r"\[cold_start\].*\n(.+\n)+", "", text).replace('"16bit"', '"4bit"')
    path, run = folder / "four_bit.toml", runs.Run(folder / "four")
    path.write_text(text)
    changes = {key: value for key, value in CHANGES.items() if "cold_start" not in key}
    flags = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    arguments = ("run", path, "--run-dir", run.folder, "--force", *flags)
    done = command(*arguments, cwd=folder, **without_network(resumed.log))
    log = run.log.read_text()[-4000:] if run.log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    return SimpleNamespace(run=run, log=resumed.log, folder=folder)


def after(four_bit, *arguments):
    """Output of a command on the run in 4 bits, which must succeed."""
    name, *rest = arguments
    environment = without_network(four_bit.log)
    done = command(name, four_bit.run.folder, *rest, cwd=four_bit.folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_local_folder_in_16_bits_is_trained_in_4_bits(four_bit):
    assert four_bit.run.read()["status"] == "complete"
    assert four_bit.run.plan().preset.weights == "4bit"
    rows = files.read_lines(four_bit.run.metrics)
    assert len(rows) == STEPS and any(row["grad_norm"] > 0 for row in rows)
    before = files.read_lines(four_bit.run.evaluation("before"))
    assert sum(item["greedy"]["right"] for item in before) > 0, "the base has lost what it knew"


def test_an_evaluation_through_vllm_agrees_with_that_of_the_run(four_bit):
    assert "difference of pass@1" in after(four_bit, "eval", "--samples", "2", "--offline")
    (folder,) = (four_bit.run.folder / "evaluations").iterdir()
    for side, when in (("base", "before"), ("trained", "after")):
        texts = [item["greedy"]["text"] for item in files.read_lines(folder / f"{side}.jsonl")]
        assert share_equal(texts, answers(four_bit.run, when)) >= 0.9, side


def test_a_run_in_4_bits_answers_a_question(four_bit):
    question = files.read_lines(four_bit.run.evaluation("after"))[0]["question"]
    output = after(four_bit, "ask", question, "--temperature", "0", "--offline")
    assert "base:" in output and "<answer>" in output.partition("trained:")[2], output


def test_a_run_in_4_bits_is_exported(four_bit):
    from r1recipes.training.backends import merge

    forms = ("lora", "merged_16bit", "merged_4bit")
    after(four_bit, "export", *(word for form in forms for word in ("--to", form)), "--offline")
    for form in forms:
        folder = four_bit.run.folder / "export" / form
        export = json.loads((folder / "export.json").read_text())
        assert export["trained_in_4bit"] and "loaded again, divergence" in export["checks"][0]
        assert export["dtype"] == ("NF4" if form == "merged_4bit" else "bfloat16")
    model, _ = merge.reload(folder, own_tokenizer=True, device="cuda")
    assert model.is_loaded_in_4bit
    assert not four_bit.log.exists(), four_bit.log.read_text()


def test_a_rehearsal_measures_each_phase_and_each_batch(tmp_path):
    """Two batches with one engine, on random weights in the shape of the recipe's model."""
    arguments = ["--preset", "8GB", "--vram", "7.62", "--steps", "2", "--batches", "4", "8"]
    arguments += ["--lengths", "real"]
    environment = without_network(tmp_path / "network.log")
    done = command("rehearse", "qwen2.5-1.5b", *arguments, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    proofs = json.loads(done.stdout)
    assert len(proofs) == 2
    for measured in proofs:
        assert "error" not in measured, measured
        phases = measured["peak_gib_by_phase"].keys()
        assert phases >= {*child.REHEARSED} - {"weights"}  # those may be there already
        assert measured["steps"] == 2 and measured["step_s"] > measured["generation_s"] > 0
        assert measured["kv_tokens"] > 0 and measured["weights_gib"] > 0
        limit = measured["settings"]["max_completion_length"]
        assert measured["mean_length"] > 0.9 * limit
        real = measured["real"]
        assert "error" not in real and real["mean_length"] < 0.4 * limit < real["max_length"]
        assert real["step_s"] < measured["step_s"]

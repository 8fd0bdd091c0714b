"""The verdict on recipes, folders, disks, tokens and the cache of the Hub."""

import json
import re
import subprocess
import sys

import pytest

from r1recipes import recipe
from r1recipes.machine import gpu, hub, packages, settings
from r1recipes.planning import disk, doctor
from tests.driver import MIB, FakeCard
from tests.helpers import command, in_process

H100 = FakeCard("NVIDIA H100 80GB HBM3", 81000 * MIB, 80 * MIB, capability=(9, 0))


LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def test_this_machine_can_run_the_tiny_recipe(tmp_path):
    done = command("doctor", "tiny", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok   tiny  cpu$", done.stdout, re.MULTILINE)
    assert "FAIL" not in done.stdout and not list(tmp_path.iterdir())


def test_a_gpu_recipe_without_a_gpu_is_exit_2(monkeypatch):
    monkeypatch.setattr(gpu, "current", lambda: None)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "needs an NVIDIA GPU of 16GB or more" in out
    code, out, _ = in_process("doctor", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["ok"]
    runs = {row["recipe"]: row["runs"] for row in shown["recipes"]}
    assert runs["tiny"] and not runs["phi4"] and set(runs) == {p.stem for p in recipe.shipped()}


def test_a_recipe_that_is_not_valid_is_an_error(small):
    small.write_text(small.read_text().replace("max_steps", "max_step"))
    assert in_process("doctor", small)[0] == 2


def test_what_is_wrong_beside_the_card_is_said_as_it_is(monkeypatch):
    monkeypatch.setattr(gpu, "current", lambda: None)
    code, out, _ = in_process("doctor", "tiny", "--set", "train.optim='paged_adamw_8bit'")
    assert code == 2 and "`train.optim" in out and "GPU of cpu" not in out


def test_a_folder_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "/proc/runs")
    code, out, _ = in_process("doctor", "tiny")
    assert code == 2 and "/proc/runs cannot be written" in out
    assert 'export R1RECIPES_RUNS_DIR="$HOME/' in out


def test_a_disk_that_is_too_small(driver, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(packages, "examine", lambda card: [])
    driver.says(H100)
    free = type("Usage", (), {"free": 20 * 10**9})()
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "needs 29.3 GB, its disk has 20.0 GB free" in out
    assert in_process("doctor", "qwen2.5-1.5b")[0] == 0


def test_what_is_to_be_downloaded_needs_a_cache_that_can_be_written(driver, monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_CACHE", "/proc/hub")
    driver.says(H100)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "no   phi4  Hub cache: /proc/hub cannot be written" in out
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    here = f"model.name='{tmp_path / 'model'}'"
    assert in_process("doctor", "phi4", "--set", here)[0] == 0


@pytest.mark.parametrize(
    ("token", "words"),
    [("", "none"), ("hf_" + "a" * 34, "present\n"), ("secret", "not of the form hf_")],
)
def test_a_token_is_judged_and_never_shown(token, words, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", token)
    for arguments in (["tiny"], ["tiny", "--json"]):
        _, out, _ = in_process("doctor", *arguments)
        assert not token or token not in out
    assert words in in_process("doctor", "tiny")[1]


def test_offline_what_is_not_cached_cannot_run(driver, monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "examine", lambda card: [])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    driver.says(H100)
    code, out, _ = in_process("doctor", "phi4")
    assert code == 2 and "offline, and `unsloth/phi-4` is not cached" in out
    assert "HF_HUB_OFFLINE=0 hf download unsloth/phi-4 --local-dir models/phi-4" in out
    snapshot = tmp_path / "hf" / "hub" / "models--unsloth--phi-4" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert disk.has_model("unsloth/phi-4", four_bit=False)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not disk.has_model("unsloth/phi-4", four_bit=False)  # a download that was cut off
    (snapshot / "model-2.safetensors").touch()
    assert disk.has_model("unsloth/phi-4", four_bit=False)
    assert not disk.has_model("unsloth/phi-4", four_bit=True)
    for form, is_loaded in (("-unsloth-bnb-4bit", False), ("-bnb-4bit", True)):
        cached = snapshot.parents[1].with_name(f"models--unsloth--phi-4{form}") / "snapshots" / "a"
        cached.mkdir(parents=True)
        (cached / "model.safetensors").touch()
        assert disk.has_model("microsoft/phi-4", four_bit=True) == is_loaded
    assert "the data `openai/gsm8k` are not cached" in in_process("doctor", "phi4")[1]
    (tmp_path / "hf" / "datasets" / "openai___gsm8k").mkdir(parents=True)
    assert in_process("doctor", "phi4")[0] == 0


def test_files_that_a_recipe_names(small):
    text = small.read_text().replace('"builtin:arithmetic"', '"gone.jsonl"')
    small.write_text(
        text.replace("[data.problems]\ndigits = 2\n", "").replace(
            "wrong = 0.3\n", 'data = "demos.jsonl"\n'
        )
    )
    loaded = recipe.load(small)
    report = doctor.examine([loaded], settings.Settings(), offline=True)
    assert not report.ok
    assert "gone.jsonl does not exist" in (report.verdicts[0].why_not or "")


def test_the_hubs_places_and_switch_are_those_of_its_library(monkeypatch, tmp_path):
    """Read in a process of its own, since it reads the environment once, on import."""
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE, c.HF_HUB_OFFLINE)"
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name, offline in zip(names, ("1", "false", "yes", "0"), strict=True):
        for other in names:
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == [str(hub.cache()), str(hub.is_offline())], name

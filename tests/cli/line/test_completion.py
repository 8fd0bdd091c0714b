"""What shells complete."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from r1recipes import recipe
from r1recipes.algorithms import ALGORITHMS
from r1recipes.cli.line import keys
from r1recipes.cli.line.completion import SHELLS
from r1recipes.cli.line.keys import MAX_BYTES
from r1recipes.config.suggest import models_in
from r1recipes.recipe.schema import of_algorithm
from r1recipes.recipe.targets import GGUF_TYPES, parse
from r1recipes.rewards import REWARDS
from tests.helpers import command, in_process

SCRIPT = Path(sys.executable).with_name("r1recipes")


STAGED = """
[[stage]]
algorithm = "sft"

[[stage]]
algorithm = "grpo"

[preset.8GB]
load_in = "4bit"

[preset.24GB]
load_in = "4bit"
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with runs, a study with a trial, and files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("R1RECIPES_RUNS_DIR", raising=False)
    names = ("tiny/20261126T080000Z-aaaa1111", "mine/20261125T080000Z-bbbb2222", "rates/0001-cccc")
    for name in names:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_text(json.dumps({"status": "complete"}))
    (tmp_path / "runs" / "rates" / "study.db").touch()
    for name in ("mine.toml", "rows.jsonl", ".hidden.toml"):
        (tmp_path / name).touch()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "inner.toml").touch()
    return tmp_path


@pytest.fixture
def recipes(here) -> Path:
    """A recipe with stages in a file and in a folder, a study of it, and broken ones."""
    (here / "staged.toml").write_text(STAGED)
    (here / "folder").mkdir()
    (here / "folder" / "recipe.toml").write_text(STAGED)
    (here / "study.toml").write_text('recipe = "staged.toml"\n')
    (here / "syntax.toml").write_text("[preset.24GB\n")
    (here / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (here / "long.toml").write_text(f"{STAGED}# {'x' * MAX_BYTES}\n")
    (here / "types.toml").write_text("preset = 3\nstage = [1, 2]\nmatrix = 1\n")
    (here / "far.toml").write_text('recipe = "not-here.toml"\n')
    os.mkfifo(here / "pipe.toml")
    return here


def completed(line: str) -> list[str]:
    """The words that bash gets for a command line."""
    out = Path("completions")
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1"}
    asked |= {"_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    done = command(cwd=Path.cwd(), **asked)
    assert done.stdout == "", done.stderr
    text = out.read_text()
    out.unlink()
    return [word.strip() for word in text.split("\v") if word]


RECIPES = [path.stem for path in recipe.shipped()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("r1recipes re", ["rehearse", "report"]),
        ("r1recipes run ph", ["phi4"]),
        ("r1recipes run ", [*RECIPES, "mine.toml", "recipes/", "runs/"]),
        ("r1recipes check recipes/", ["recipes/inner.toml"]),
        ("r1recipes run tiny --al", ["--allow-code", "--allow-judge"]),
        ("r1recipes ask ", ["mine", "tiny"]),
        ("r1recipes ask 20261126", ["20261126T080000Z-aaaa1111"]),
        ("r1recipes report tiny/", ["tiny/20261126T080000Z-aaaa1111"]),
        ("r1recipes export runs/ti", ["runs/tiny/20261126T080000Z-aaaa1111"]),
        ("r1recipes run --resume ti", ["tiny"]),
        ("r1recipes study ra", ["rates"]),
        ("r1recipes grade tiny ro", ["rows.jsonl"]),
        ("r1recipes plan phi4 --gpu rtx-3090-", ["rtx-3090-24gb", "rtx-3090-ti-24gb"]),
        ("r1recipes list st", ["studies"]),
        ("r1recipes ask tiny ", []),
    ],
)
def test_what_is_completed(here, line, words):
    assert sorted(completed(line)) == sorted(words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("r1recipes run tiny --preset ", ["cpu"]),
        ("r1recipes plan phi4 --preset 2", ["24GB"]),
        ("r1recipes plan --preset ", []),
        ("r1recipes run staged.toml --preset ", ["8GB", "24GB"]),
        ("r1recipes grade folder --preset ", ["8GB", "24GB"]),
        ("r1recipes run tiny --set train.max_s", ["train.max_steps="]),
        ("r1recipes run tiny --set=train.max_s", ["--set=train.max_steps="]),
        ("r1recipes check tiny phi4 --set track.wandb.m", ["track.wandb.mode="]),
        ("r1recipes show phi4 --set seed=1 --set data.eval_si", ["data.eval_size="]),
        ("r1recipes plan phi4 --set rewards.str", ["rewards.strict_format="]),
        ("r1recipes run tiny --set preset.lora", ["preset.lora_rank="]),
        ("r1recipes run staged.toml --set preset.8GB.lora", ["preset.8GB.lora_rank="]),
        ("r1recipes run staged.toml --set stage.2.train.max_s", ["stage.2.train.max_steps="]),
        (
            "r1recipes run staged.toml --set stage.1-sft.train.max_s",
            ["stage.1-sft.train.max_steps="],
        ),
        ("r1recipes run tiny --set stage.", []),
        ("r1recipes sweep study.toml --set stage.1.num", ["stage.1.num_generations="]),
        ("r1recipes check study.toml --set preset.24GB.lora", ["preset.24GB.lora_rank="]),
        ("r1recipes sweep tiny --set preset.cpu.num_g", ["preset.cpu.num_generations="]),
        ("r1recipes run tiny --set train.max_steps=", []),
        (
            "r1recipes export tiny --to ",
            ["gguf", "hub:", "lora", "merged_16bit", "merged_4bit", "ollama"],
        ),
        ("r1recipes export tiny --to lora --to me", ["merged_16bit", "merged_4bit"]),
        ("r1recipes share tiny --to l", []),
    ],
)
def test_what_is_completed_of_the_recipe_on_the_line(recipes, line, words):
    assert sorted(completed(line)) == sorted(words)


BROKEN = ["syntax.toml", "bytes.toml", "long.toml", "types.toml", "far.toml", "pipe.toml", "none"]


@pytest.mark.parametrize("name", [*BROKEN, "hub:user/name", "recipes"])
def test_nothing_is_said_of_a_recipe_that_cannot_be_read(recipes, name):
    line = argparse.Namespace(recipe=name)
    assert keys.preset_names("", line) == []
    assert keys.recipe_keys("stage", line) == []
    assert "train.max_steps=" in keys.recipe_keys("", line)


def test_a_broken_recipe_is_silent_on_the_line(recipes):
    assert completed("r1recipes run syntax.toml --preset ") == []
    assert completed("r1recipes sweep far.toml --set seed") == ["seed="]


def test_the_keys_are_those_of_recipes(recipes):
    """Each names a field of the models, and no field is left out."""
    line = argparse.Namespace(recipe="staged.toml")
    completed_keys = {key.removesuffix("=") for key in keys.recipe_keys("", line)}
    fields = set()
    for algorithm in ALGORITHMS:
        fields |= set(_fields(of_algorithm(algorithm)))
    rewards = {key for key in completed_keys if key.startswith("rewards.")}
    assert {key.partition(".")[2] for key in rewards} == set(REWARDS)
    shared = {re.sub(r"^preset\.\d+GB\.", "preset.", key) for key in completed_keys - rewards}
    stages = {key for key in shared if key.startswith("stage.")}
    assert shared - stages == fields - {"rewards"}
    numbers = {key.split(".")[1] for key in stages}
    assert numbers == {"1", "2"} and "stage.2.rewards.correctness" in stages


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of the fields of a model that are no sections; without those of stages."""
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        if name == "stage":
            continue
        if not inner:
            yield f"{prefix}{name}"
        for each in inner:
            yield from _fields(each, f"{prefix}{name}.")


def test_every_form_that_is_completed_can_be_exported():
    forms = [form for prefix in ("", "gguf", "ollama") for form in keys.export_forms(prefix)]
    forms = [form.replace("hub:", "hub:user/name") for form in dict.fromkeys(forms)]
    assert {f"gguf:{name}" for name in GGUF_TYPES} < set(forms)
    assert [form for form in forms if parse([form])[1]] == []
    assert keys.export_forms("gguf:q8_0,q4") == ["gguf:q8_0,q4_k_m"]
    assert "gguf:q8_0,q8_0" not in keys.export_forms("gguf:q8_0,")


def test_completion_imports_nothing_that_takes_long(here):
    code = "import sys; import r1recipes.cli.line.completion as c; [*c.run_names('')]\n"
    code += (
        "[*c.recipe_names('')]; [*c.sweep_names('')]; [*c.study_names('')]; [*c.card_names('')]\n"
    )
    code += "import argparse; line = argparse.Namespace(recipe='phi4')\n"
    code += "assert c.keys.preset_names('', line) and c.keys.recipe_keys('', line)\n"
    code += "sys.exit(', '.join({'pydantic', 'rich', 'torch'} & {*sys.modules}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_says_where_it_belongs_and_the_shell_takes_it(shell, tmp_path):
    code, out, err = in_process("completion", shell)
    assert (code, err) == (0, "")
    place, line = SHELLS[shell]
    assert place in out.splitlines()[0] and out.splitlines()[1] == f"#   {line}"
    if shutil.which(shell):
        (tmp_path / "script").write_text(out)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.skipif(not SCRIPT.is_file(), reason="r1recipes is not installed as a script")
def test_bash_completes_by_the_script(here):
    assert _in_bash("r1recipes ask tin", "r1recipes ask tin") == ["tiny"]


@pytest.mark.skipif(not SCRIPT.is_file(), reason="r1recipes is not installed as a script")
@pytest.mark.parametrize(
    ("line", "words", "completed"),
    [
        ("run phi4 --preset 2", "run phi4 --preset 2", "24GB"),
        ("run phi4 --set train.max_s", "run phi4 --set train.max_s", "train.max_steps="),
        ("run phi4 --set=train.max_s", "run phi4 --set = train.max_s", "train.max_steps="),
        ("export tiny --to gguf:q8_0,q4", "export tiny --to gguf : q8_0,q4", "q8_0,q4_k_m"),
    ],
)
def test_bash_completes_what_it_breaks_at_signs(here, line, words, completed):
    """bash ends a word at `=` and `:`, and gets what follows them."""
    assert _in_bash(f"r1recipes {line}", f"r1recipes {words}") == [completed]


def _in_bash(line: str, words: str) -> list[str]:
    """What bash is told for a line, which it splits into words."""
    count, last = len(words.split()) - 1, words.split()[-1]
    ask = (
        f'export PATH="{SCRIPT.parent}:$PATH"; eval "$(r1recipes completion bash)"\n'
        f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDS=({words})\n'
        f"COMP_CWORD={count}; _python_argcomplete r1recipes {last} x 2>/dev/null\n"
        "echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, env={**os.environ})
    return done.stdout.split()

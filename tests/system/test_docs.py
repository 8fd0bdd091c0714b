"""The documents are true: links and anchors lead somewhere, commands parse and those of the first
steps run, recipes load and fragments name keys that exist, and generated pages are current.

Limits: what a command prints is not compared with what a document shows; commands that need a GPU,
the Hub or a run of the reader's are parsed alone.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli

from r1recipes import cli, recipe
from r1recipes.config import json_schema
from r1recipes.recipe import schema
from r1recipes.recipe.loading import STUDY_SECTIONS
from r1recipes.study import loading
from r1recipes.study.schema import StudyFile
from tests.documents import DOCUMENTS, ROOT, Block, anchors, blocks, inline_commands, links
from tests.helpers import in_process

SHORT = {
    "train.max_steps": 2,
    "cold_start.steps": 20,
    "data.eval_size": 20,
    "eval.samples": 2,
    "preset.cpu.prompts_per_step": 8,
}
"""What a test sets in the runs of the documents, so that each takes seconds."""
RUN = [path for path in DOCUMENTS if any(block.is_run for block in blocks(path))]
README_LINES = 200


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_and_anchor_leads_somewhere(path):
    dead = []
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_command_is_one_that_the_program_takes(path, capsys):
    commands = [words for block in blocks(path) for words in block.commands]
    for words in [*commands, *inline_commands(path)]:
        try:
            cli.parser().parse_args(words)
        except SystemExit as end:  # of --help and --version with 0
            assert end.code == 0, f"{words}: {capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=name)
def test_the_commands_for_a_cpu_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: None)
    for number, block in enumerate(blocks(path)):
        if block.is_run:
            monkeypatch.chdir(place(block, tmp_path / str(number)))
            for words in block.commands:
                code, _, err = in_process(*words, *shortened(words))
                assert code == 0, f"{words}: {err}"
                if words[0] == "run":
                    assert list(tmp_path.glob("runs/*/*/report.html"))


def place(block: Block, folder: Path) -> Path:
    """The folder in which a block is run: a copy of its folder, or an empty one."""
    if block.folder:
        return Path(shutil.copytree(ROOT / block.folder, folder))
    folder.mkdir()
    return folder


def shortened(words: list[str]) -> list[str]:
    """More arguments for a command that trains."""
    if words[0] != "run":
        return []
    return [
        "--force",
        *(text for key, value in SHORT.items() for text in ("--set", f"{key}={value}")),
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_recipe_loads_and_every_fragment_names_keys_that_exist(path, tmp_path):
    for number, block in enumerate(b for b in blocks(path) if b.language == "toml"):
        data = tomli.loads(block.text)
        if "format" not in data:
            assert list(unknown(data)) == [], block.text
            continue
        folder = tmp_path / str(number) / "sweeps"
        folder.mkdir(parents=True)
        (folder.parent / "recipes").symlink_to(ROOT / "recipes")
        file = folder / "mine.toml"
        file.write_text(block.text)
        assert loading.load(file).cells if "recipe" in data else recipe.load(file).recipe


def unknown(data: Mapping[str, Any]) -> Iterator[str]:
    """Keys of a fragment that neither a recipe nor a study has."""
    is_study = data.keys() & {"set", *STUDY_SECTIONS}
    whole = json_schema.of(StudyFile, "study") if is_study else schema.for_editors()
    yield from missing(data, whole, "")


def missing(data: Mapping[str, Any], node: Mapping[str, Any], above: str) -> Iterator[str]:
    """Keys of a table that its schema does not have."""
    for key, value in data.items():
        inner = node.get("properties", {}).get(key)
        patterns = node.get("patternProperties", {}).items()
        inner = inner or next((rest for text, rest in patterns if re.search(text, key)), None)
        free = node.get("additionalProperties", True)
        if inner is None and free is False:
            yield f"{above}{key}"
        tables = value if isinstance(value, list) else [value]
        below = (inner or {}).get("items", inner or {})
        for table in tables:
            if isinstance(table, dict) and below.keys() & {"properties", "patternProperties"}:
                yield from missing(table, below, f"{above}{key}.")


def test_a_fragment_with_a_mistyped_key_is_noticed():
    assert list(unknown({"train": {"learning_rat": 1}})) == ["train.learning_rat"]
    assert list(unknown({"preset": {"24GB": {"lora_rnk": 1}}})) == ["preset.24GB.lora_rnk"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_piece_of_python_is_python(path):
    for block in blocks(path):
        if block.language == "python":
            assert ast.parse(block.text).body


def test_the_worked_example_is_the_one_that_is_run():
    """The recipe and the reward of docs/own-data.md are the files beside it."""
    example = ROOT / "docs" / "examples" / "clock"
    page = blocks(ROOT / "docs" / "own-data.md")
    (shown,) = [tomli.loads(b.text) for b in page if b.language == "toml"]
    assert shown == tomli.loads((example / "clock.toml").read_text())
    (reward,) = [b.text for b in page if b.language == "python" and "def near(" in b.text]
    assert (example / "clock_rewards.py").read_text().endswith(reward.partition("\n\n\n")[2])


def test_the_data_of_the_worked_example_are_what_its_script_makes(tmp_path):
    example = ROOT / "docs" / "examples" / "clock"
    shutil.copy(example / "make_data.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "make_data.py"], check=True)
    for file in ("problems.csv", "demonstrations.jsonl"):
        assert (tmp_path / file).read_bytes() == (example / file).read_bytes()


def test_the_references_say_what_the_code_says():
    script = ROOT / "docs" / "site" / "reference.py"
    done = subprocess.run([sys.executable, str(script), "--check"], cwd=ROOT)
    assert done.returncode == 0, "run `python docs/site/reference.py`"


def test_the_readme_fits():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES

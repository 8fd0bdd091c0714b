"""What shells complete."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from r1recipes import recipe
from r1recipes.cli.line.completion import SHELLS
from tests.helpers import command, in_process

SCRIPT = Path(sys.executable).with_name("r1recipes")


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


def test_completion_imports_nothing_that_takes_long(here):
    code = "import sys; import r1recipes.cli.line.completion as c; [*c.run_names('')]\n"
    code += (
        "[*c.recipe_names('')]; [*c.sweep_names('')]; [*c.study_names('')]; [*c.card_names('')]\n"
    )
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
    line = "r1recipes ask tin"
    ask = (
        f'export PATH="{SCRIPT.parent}:$PATH"; eval "$(r1recipes completion bash)"\n'
        f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDS=(r1recipes ask tin)\n'
        "COMP_CWORD=2; _python_argcomplete r1recipes tin ask 2>/dev/null; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.split() == ["tiny"], done.stderr

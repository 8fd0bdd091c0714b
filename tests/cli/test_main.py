"""What a user types and reads: exit codes, messages, files."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
import tomli_w

from r1recipes import recipe
from tests.helpers import command, in_process
from tests.rows import numbered, write

ROOT = Path(__file__).parents[2]
LIGHT = ("torch", "transformers", "trl", "datasets", "peft", "optuna", "numpy")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "recipes/tiny.toml", "recipes/phi4.toml"],
        ["show", "phi4"],
        ["list"],
        ["list", "runs"],
        ["schema"],
        ["doctor"],
    ],
)
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys; from r1recipes.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        f"heavy = [name for name in {LIGHT!r} if name in sys.modules]\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_check_says_of_each_file_that_it_is_well():
    paths = sorted([*ROOT.glob("recipes/*.toml"), *ROOT.glob("sweeps/*.toml")])
    code, out, err = in_process("check", *paths)
    assert (code, err) == (0, "")  # below a file stand the things that it names
    assert [line for line in out.splitlines() if line[0] != " "] == [f"{p}: ok" for p in paths]


def on_files(small, changes):
    """The small recipe with data and demonstrations of its own, and other changes."""
    given = tomli.loads(small.read_text()) | changes
    given["data"] = {"name": "rows.jsonl", "eval_size": 2}
    given["cold_start"] = {"steps": 1, "data": "shown.jsonl"}
    small.write_text(tomli_w.dumps(given))
    return small


def test_check_says_what_it_looked_at(small, tmp_path):
    write(tmp_path / "rows.jsonl", numbered(20))
    write(tmp_path / "shown.jsonl", [{"question": "q", "completion": "c"}])
    (tmp_path / "mine.py").write_text("def dose(completion, row):\n    return 1.0\n")
    changes = {"rewards": {"mine.py:dose": 1.0, "correctness": 1.0}}
    code, out, err = in_process("check", on_files(small, changes))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{small}: ok",
        "  data.name rows.jsonl: 20 rows, columns question, answer, id",
        "  cold_start.data shown.jsonl: 1 row, columns question, completion",
        "  reward mine.py: dose(completion, row)",
    ]


def test_check_runs_code_only_where_it_is_allowed(small, tmp_path):
    (tmp_path / "mine.py").write_text("open('ran', 'w')\ndef f(completion, row): ...\nf = 3\n")
    flags = ["--set", 'rewards={"mine.py:f"=1.0}', "--set", 'eval={reward="mine.py:f"}']
    with contextlib.chdir(tmp_path):
        assert in_process("check", small, *flags)[0] == 0
        assert not (tmp_path / "ran").exists()
        code, _, err = in_process("check", small, *flags, "--allow-code")
    assert code == 2 and "reward `mine.py:f` is not a plain function of mine.py" in err


def test_a_model_that_is_not_there_is_told_before_the_hub_is_asked(small, tmp_path):
    (tmp_path / "model" / "tmpl").mkdir(parents=True)
    (tmp_path / "model" / "tmpl" / "config.json").write_text("{}")
    write(tmp_path / "rows.jsonl", numbered(20))
    write(tmp_path / "shown.jsonl", [{"question": "q", "completion": "c"}])
    on_files(small, {})
    flags = ["--set", 'model.name="./model/tmp"']
    for name in ("check", "run"):
        code, _, err = in_process(name, small, *flags)
        assert code == 2 and "there is no folder" in err and "did you mean `./model/tmpl`" in err
    flags[1] = 'model.name="model/tmp"'
    code, out, err = in_process("check", small, *flags)
    assert code == 0 and "`model.name` model/tmp is looked for on the Hub" in err
    assert "but there is `model/tmpl`" in err


def test_check_reports_every_file_and_every_error(small, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(small.read_text().replace("seed = 1", "seed = -1").replace("steps = 12", ""))
    small.write_text(small.read_text().replace("max_steps", "max_step"))
    code, out, err = in_process("check", small, other)
    assert (code, out) == (2, "")
    assert f"error: {small}:27:1: unknown key `train.max_step`" in err
    assert "hint: did you mean `train.max_steps`?" in err
    assert f"error: {other}:3:8: `seed` must be at least 0, not -1" in err
    assert "`cold_start.steps` is missing" in err
    assert err.endswith("3 errors\n")


def test_show_prints_a_recipe_that_loads_again(small, tmp_path):
    code, out, _ = in_process("show", small, "--set", "train.max_steps=7")
    assert code == 0
    assert re.search(r"max_steps = 7 +# --set", out)
    assert re.search(r"beta = 0.0 +# default", out)
    again = tmp_path / "again.toml"
    again.write_text(out)
    code, out, _ = in_process("show", again, "--json")
    expected = recipe.fingerprint(recipe.load(small, ["train.max_steps=7"]).recipe)
    assert json.loads(out)["fingerprint"] == expected


def test_new_writes_a_recipe_that_checks_and_overwrites_nothing(tmp_path):
    path = tmp_path / "mine.toml"
    code, out, _ = in_process("new", path, "--model", "unsloth/Qwen2.5-3B-Instruct")
    assert code == 0 and "next: `r1recipes check" in out
    assert in_process("check", path) == (0, f"{path}: ok\n", "")
    text = path.read_text()
    code, _, err = in_process("new", path, "--model", "unsloth/Phi-4")
    assert code == 2 and "exists" in err and path.read_text() == text
    assert in_process("new", tmp_path / "mine", "--model", "x")[0] == 2


def test_schema_writes_json(tmp_path):
    path = tmp_path / "recipe.schema.json"
    assert in_process("schema", path)[0] == 0
    assert json.loads(path.read_text())["properties"]["train"]
    code, _, err = in_process("schema", tmp_path / "no" / "schema.json")
    assert code == 2 and "cannot be written" in err


def test_list_names_every_recipe_and_preset():
    code, out, _ = in_process("list")
    assert code == 0
    named = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert named == [path.stem for path in recipe.shipped()]
    code, out, _ = in_process("list", "--json")
    for row in json.loads(out):
        assert list(row["presets"]) == list(recipe.load(row["recipe"]).recipe.preset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "`run` needs a recipe"),
        (["run", "ph4"], "did you mean `phi4`?"),
        (["run", "no/such/tiny.toml"], "did you mean `tiny`?"),
        (["run", "{small}", "--preset", "24GB"], "no preset `24GB`"),
        (["run", "{small}", "--run-dir", "{tmp}"], "never reused"),
        (["run", "--resume", "nowhere"], "no run folder `nowhere`"),
        (["run", "--resume", "--set", "a.b=1"], "do not go with --resume"),
        (["run", "{small}", "--set", "train.beta"], "is not key=value"),
        (["run", "{small}", "--set", "train.bta=1"], "did you mean `train.beta`?"),
        (["run", "{small}", "--set", 'data.name="no.jsonl"'], "no.jsonl"),
        (["run", "{small}", "--set", 'rewards."mine.py:f"=1'], "--allow-code"),
        (["run", "phi4"], "needs an NVIDIA GPU"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(arguments, message, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: None)
    (tmp_path / "mine.py").write_text("def f(completion, row):\n    return 1.0\n")
    filled = [str(a).format(small=small, tmp=tmp_path) for a in arguments]
    code, out, err = in_process(*filled)
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err and len(err.splitlines()) <= 4
    assert not (tmp_path / "runs").exists(), "nothing is written for bad input"


def test_an_unknown_flag_is_exit_2(tmp_path):
    done = command("run", "tiny", "--presett", "8GB", cwd=tmp_path)
    assert done.returncode == 2 and "--presett" in done.stderr


def test_settings_that_are_not_valid_are_named(small, tmp_path):
    done = command("run", small, cwd=tmp_path, R1RECIPES_REWARD_LIMIT_S="soon")
    assert done.returncode == 2
    assert "R1RECIPES_REWARD_LIMIT_S is not valid" in done.stderr
    assert "hint: such as R1RECIPES_REWARD_LIMIT_S=10.0, which holds without it" in done.stderr


def test_an_error_of_a_file_names_the_file(monkeypatch):
    def fails(*arguments):
        raise PermissionError(13, "Permission denied", "recipes/mine.toml")

    monkeypatch.setattr(recipe, "load", fails)
    code, _, err = in_process("show", "tiny")
    assert code == 1 and err.startswith("error: `recipes/mine.toml`: Permission denied\n  hint: ")


@pytest.mark.parametrize("text", ["# Notes\n", "format = 1\n", "<html>\n", "a,b\n1,2\n"])
def test_a_generated_file_replaces_files_of_its_kind_alone(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    code, _, err = in_process("schema", path)
    assert code == 2 and "exists, and is not a file that this command has written" in err
    assert path.read_text() == text
    path.write_text('{"old": 1}\n')
    assert in_process("schema", path)[0] == 0 and '"$schema"' in path.read_text()

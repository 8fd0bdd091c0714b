"""The command line: what is mistyped or missing, `--set` with a space, a bare `r1recipes`."""

import argparse
import shlex
import subprocess
import sys

import pytest

from r1recipes import cli
from r1recipes.cli.line.parser import EXAMPLES, joined
from tests.helpers import in_process

COMMANDS = cli.parser().commands()


def test_a_bare_command_line_is_a_short_guide():
    code, out, err = in_process()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) < 15 and all(len(line) <= 88 for line in lines)
    steps = [line.split()[0] for line in lines if line.startswith(("First", "Second", "Third"))]
    assert steps == ["First", "Second", "Third"]
    for name in ("run tiny", "doctor", "new mine.toml", "--help"):
        assert f"r1recipes {name}" in out


@pytest.mark.parametrize("command", [[], ["plan"], ["list"]])
def test_help_is_a_command_too(command, capsys):
    shown = []
    for words in (["help", *command], [*command, "--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        shown.append((ended.value.code, capsys.readouterr().out))
    assert shown[0] == shown[1] and shown[0][0] == 0 and "usage: " in shown[0][1]
    code, _, err = in_process("help", "plna")
    assert code == 2 and "did you mean" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_takes(name):
    words = shlex.split(EXAMPLES[name])
    assert words[0] == name
    assert cli.parser().parse_args(words).title == name
    assert f"example: r1recipes {EXAMPLES[name]}" in " ".join(COMMANDS[name].format_help().split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_a_typo_is_named(name):
    for typo in (name[:-1] + "x", name[0] + name[2:] if len(name) > 4 else name + name[-1]):
        if typo in COMMANDS:
            continue
        code, out, err = in_process(typo)
        assert (code, out) == (2, "") and f"`{typo}` is not a command" in err
        assert len(name) < 4 or "did you mean `r1recipes " in err


FLAGS = [(name, flag) for name, p in COMMANDS.items() for flag in p.flags() if len(flag) > 4]


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_a_flag_with_a_typo_is_named(name, flag):
    typo = flag[:-1] + "xy"
    words = shlex.split(EXAMPLES[name])
    code, _, err = in_process(*words, typo)
    assert code == 2 and f"`{name}` has no flag `{typo}`" in err
    assert "did you mean `--" in err


@pytest.mark.parametrize(
    ("words", "message", "help_with"),
    [
        (["rum", "tiny"], "`rum` is not a command", "did you mean `r1recipes run`?"),
        (["qqqq"], "`qqqq` is not a command", "`r1recipes --help` lists them"),
        (["run", "tiny", "--gpu", "t4"], "`run` has no flag `--gpu`", "flag of `plan`, `new`"),
        (["run", "tiny", "--gpu=t4"], "`run` has no flag `--gpu`", "flag of `plan`, `new`"),
        (["run", "tiny", "--zzzz"], "`run` has no flag `--zzzz`", "--help` lists its flags"),
        (["--offline", "run", "x"], "stands before its command", "`r1recipes run x --offline`"),
        (["--set", "a=1", "run", "x"], "`--set` stands before", "`r1recipes run x --set a=1`"),
        (["--set", "a", "1", "run", "x"], "`--set` stands before", "`r1recipes run x --set a=1`"),
        (["--set=a=1", "run", "x", "--force"], "`--set` stands", "run x --force --set=a=1`"),
        (["--vram", "16", "run", "x"], "`run` has no flag `--vram`", "a flag of `plan`"),
        (["--zzz", "run", "x"], "`run` has no flag `--zzz`", "`r1recipes run --help` lists its"),
        (["ask", "tiny", "1", "2"], "`ask` does not take `2`", "words with spaces need quotes"),
        (["ask", "tiny"], "`ask` needs question", "such as `r1recipes ask tiny '12+34='`"),
        (["new", "x.toml"], "`new` needs --model", "r1recipes new mine.toml --model"),
        (["eval", "tiny", "--samples"], "`--samples` needs a value", "such as"),
        (["eval", "tiny", "--samples", "x"], "--samples: `x` is not a whole number", "such as"),
        (["rehearse", "phi4", "--steps", "x"], "`--steps x` is not a whole number", "such as"),
        (["rehearse", "phi4", "--batches"], "`--batches` needs a value or more", "such as"),
        (["plan", "a", "--gpu", "t4", "--vram", "8"], "`--vram` does not go with `--gpu`", "such"),
        (["list", "run"], "`run` is not a value of `kind`", "did you mean `runs`?"),
        (["list", "q"], "`q` is not a value of `kind`", "one of: recipes, runs, studies"),
        (["run", "tiny", "--wandb", "ofline"], "not a value of `--wandb`", "mean `offline`?"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_in_two_lines(words, message, help_with):
    code, out, err = in_process(*words)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("error: ") and message in first
    assert second.startswith("  hint: ") and help_with in second


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "a.b", "5"], ["--set", "a.b=5"]),
        (["--set", "a.b", "-1e-3"], ["--set", "a.b=-1e-3"]),
        (["--set=a.b", "5", "--force"], ["--set=a.b=5", "--force"]),
        (["--set", 'rewards."f.py:g"', "1.0"], ["--set", 'rewards."f.py:g"', "1.0"]),
        (["--set", "a.b=5", "x"], ["--set", "a.b=5", "x"]),
        (["--set", "a.b"], ["--set", "a.b"]),
        (["--set", "a.b", "--force"], ["--set", "a.b", "--force"]),
        (["--", "--set", "a.b", "5"], ["--", "--set", "a.b", "5"]),
        (["--set", "a", "1", "--set", "b", "2"], ["--set", "a=1", "--set", "b=2"]),
    ],
)
def test_set_takes_its_value_after_a_space_too(words, expected):
    assert joined(words) == expected


def test_set_with_a_space_changes_the_recipe(small):
    code, out, _ = in_process("show", small, "--set", "train.max_steps", "7")
    assert code == 0 and "max_steps = 7 " in out
    code, out, err = in_process("check", small, "--set", "train.max_steps", "7")
    assert (code, out, err) == (0, f"{small}: ok\n", "")
    code, _, err = in_process("check", small, "--set", "train.max_steps")
    assert code == 2 and "such as `--set train.max_steps=50`" in err


@pytest.mark.parametrize("name", ["nope", "MIG 3g.20gb", "4090 12gb", "24 GB"])
def test_a_hint_on_a_card_names_flags_that_the_command_has(name, tmp_path):
    code, _, err = in_process("new", tmp_path / "a.toml", "--model", "a/b", "--gpu", name)
    assert code == 2 and "--vram" not in err and "without `--gpu` the presets are chosen" in err
    code, _, err = in_process("plan", "phi4", "--gpu", name)
    assert code == 2 and "`--vram " in err


def test_a_hint_on_a_key_that_the_algorithm_of_a_flag_lacks_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = in_process("check", "qwen2.5-1.5b", "--set", "algorithm=rloo")
    hint = err.splitlines()[1]
    assert code == 2 and "unknown key `train.loss_type`" in err and "remove" not in err
    words = shlex.split(hint.split("`")[1])
    assert words[1] == "new" and words[-2:] == ["--algorithm", "rloo"]
    assert in_process(*words[1:])[0] == 0 and in_process("check", words[2])[0] == 0


def test_arguments_that_are_hidden_are_not_proposed():
    assert "--child" not in COMMANDS["worker"].flags()
    hidden = [a for a in COMMANDS["worker"]._actions if a.help == argparse.SUPPRESS]
    assert [flag for action in hidden for flag in action.option_strings] == ["--child", "--parent"]


def test_help_of_every_command_is_printed_with_the_programs_name(tmp_path):
    start = [sys.executable, "-m", "r1recipes", "run", "--help"]
    done = subprocess.run(start, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "-m r1recipes run [-h]" in done.stdout

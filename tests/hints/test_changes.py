"""Every hint that names a change of a recipe leads on: the change is made, and the mistake is gone.

Limits: changes of one line; `tests/system/test_malformed` makes the other ones, of recipes that are
broken by mutation.
"""

import re
import shlex
from pathlib import Path

import pytest

from r1recipes import recipe
from r1recipes.data import local
from r1recipes.errors import Problem, RecipeError
from tests.conftest import SMALL
from tests.helpers import in_process

REWARD = "[rewards]\n"
OF_ROWS = """format = 1

[model]
name = "unsloth/Qwen2.5-0.5B-Instruct"

[data]
question = "frage"
answer = "antwort"
name = "rows.csv"
eval_size = 6

[rewards]
correctness = 1.0

[preset.cpu]
max_seq_length = 128
max_completion_length = 40
lora_rank = 8
num_generations = 4
prompts_per_step = 4
"""
"""A recipe for the file with semicolons."""
MISTAKES = {
    "a reward of one's own without quotes": (REWARD, f"{REWARD}my_rewards.py:dose = 1.0\n"),
    "with a folder": (REWARD, f"{REWARD}./my_rewards.py:dose = 1.0  # mine\n"),
    "with spaces": (REWARD, f"{REWARD}my_rewards.py : dose = 1.0\n"),
    "without .py": (REWARD, f'{REWARD}"my_rewards:dose" = 1.0\n'),
    "as of pytest": (REWARD, f'{REWARD}"my_rewards.py::dose" = 1.0\n'),
    "called": (REWARD, f'{REWARD}"my_rewards.py:dose()" = 1.0\n'),
    "yaml": ("seed = 1\n", "seed: 1\n"),
    "yaml with a comment": ("seed = 1\n", "seed: 1  # chosen\n"),
    "no equals sign": ("seed = 1\n", "seed 1\n"),
    "a space in a key": ("max_steps = 6", "max steps = 6"),
    "capitals": ("seed = 1\n", 'seed = 1\nalgorithm = "RLOO"\n'),
    "another spelling": ("seed = 1\n", 'seed = 1\nalgorithm = "Grpo"\n'),
    "capitals of a key": ("learning_rate = 1e-3", "Learning_Rate = 1e-3"),
    "capitals of a choice": ("max_steps = 6", 'max_steps = 6\nloss_type = "DAPO"'),
    "columns of other names": (
        'question = "frage"\nanswer = "antwort"\nname = "rows.csv"\n',
        'name = "rows.csv"\n',
    ),
    "too many held out": (
        'name = "rows.csv"\neval_size = 6\n',
        'name = "rows.csv"\neval_size = 6000\n',
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [f"{n}+{n};{2 * n};x, y" for n in range(40)]
    (tmp_path / "rows.csv").write_text("frage;antwort;bemerkung\n" + "\n".join(rows) + "\n")
    (tmp_path / "my_rewards.py").write_text("def dose(completion, row):\n    return 1.0\n")
    return tmp_path


def problems_of(path: Path) -> list[Problem]:
    """The problems that `check` prints of a recipe."""
    try:
        return local.look(recipe.load(path)).problems
    except RecipeError as error:
        return error.problems


def change(text: str, problem: Problem) -> str:
    """The text of a recipe with the change that a hint names. Raises: AssertionError if it names
    none."""
    lines, hint = text.split("\n"), problem.hint or ""
    place = re.search(r":(\d+):(\d+)$", problem.where or "")
    row = int(place[1]) - 1 if place else 0
    if section := re.match(r"set `(\w+)\.(\w+ = [^`]*)`", hint):
        key = section[2].partition(" =")[0]
        lines = [line for line in lines if not line.startswith(f"{key} = ") or row]
        lines.insert(lines.index(f"[{section[1]}]") + 1, section[2])
    elif quoted := re.match(r"put the name in quotes: `(([\"']).*\2) = .*`", hint):
        name = re.escape(quoted[1][1:-1])
        lines[row] = re.sub(rf"{name.replace(':', ' *: *')}(?= *=)", quoted[1], lines[row])
    elif line := re.match(r"write `(\w+ = [^`]*)`", hint):
        lines[row] = line[1]
    elif word := re.match(r"(?:write|did you mean) `?(\"[^`]*\")`?", hint):
        left, _, value = lines[row].partition(" = ")
        at_key = problem.where is not None and problem.where.endswith(":1")
        lines[row] = f"{word[1]} = {value}" if at_key else f"{left} = {word[1]}"
    elif near := re.match(r"did you mean `(?:\w+\.)*(\w+)`", hint):
        lines[row] = f"{near[1]} = {lines[row].partition(' = ')[2]}"
    else:
        pytest.fail(f"no change: {hint}")
    return "\n".join(lines)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_change_that_a_hint_names_works(folder: Path, name: str) -> None:
    old, new = MISTAKES[name]
    path, base = folder / "mine.toml", OF_ROWS if "rows.csv" in old else SMALL
    assert base.count(old) == 1
    path.write_text(base.replace(old, new))
    for _ in range(3):
        problems = problems_of(path)
        if not problems:
            break
        path.write_text(change(path.read_text(), problems[0]))
        assert problems[0].message not in [problem.message for problem in problems_of(path)]
    assert path.read_text() != base.replace(old, new) and not problems_of(path)


def test_a_flag_is_named_as_it_was_typed(folder: Path) -> None:
    """What `--set` has set is corrected by `--set`, whoever finds the mistake."""
    (folder / "mine.toml").write_text(OF_ROWS)
    for flag in (
        "data.eval_size=5000",
        "train.max_steps=0",
        "data.answer=Antworten",
        "train.beta=x",
    ):
        words = ["check", "mine.toml", "--set", flag]
        code, _, err = in_process(*words)
        assert code == 2 and f"error: --set {flag}: " in err
        better = re.search(r"`--set ([^`]*)`", err)
        assert better, err
        assert in_process(*words[:-1], *shlex.split(better[1]))[0] == 0, better[1]

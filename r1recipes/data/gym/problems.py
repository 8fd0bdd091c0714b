"""Problems made by reasoning-gym (`data.name = "gym:chain_sum"`), and what a recipe may ask of it.

Everything of reasoning-gym happens in child processes: `child` makes the problems, and the
reward `gym` scores answers. Limits: about a hundred data sets, each with one reference answer as
text and a scorer; those that do not fit are refused by name. A data set whose problems take long
to make is given up after `MAKE_LIMIT_S`.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from typing import Any

from r1recipes.config.section import OpenSection
from r1recipes.errors import Problem, RecipeError
from r1recipes.recipe.loading import Loaded
from r1recipes.recipe.references import is_gym
from r1recipes.recipe.sections.data import Data
from r1recipes.rewards import gym

EXAMINE_LIMIT_S = 120.0
"""Seconds for the import of reasoning-gym (2 s on an idle machine) and one problem; assumed."""
MAKE_LIMIT_S = 600.0
"""Seconds for all problems of a recipe; assumed. By 100 problems of each data set, 2,200 take at
most 20 s for 83 of 105 and about 10 to 30 minutes for five (0.1.25, two busy cores)."""

Row = dict[str, Any]


def check(loaded: Loaded) -> None:
    """Raises: RecipeError with the places of all that reasoning-gym does not take."""
    data = loaded.recipe.data
    if not is_gym(data.name):
        return
    gym.refuse_missing()
    problems = _examined(json.dumps(_named(data)))
    if problems:
        raise RecipeError(problems=[_placed(loaded, problem) for problem in problems])


def _placed(loaded: Loaded, problem: Problem) -> Problem:
    key = problem.where or "name"
    where = loaded.places()(("data", *key.split(".")), key != "name")
    return Problem(problem.message, where, problem.hint)


def make(data: Data, parts: list[tuple[str, int]]) -> list[list[Row]]:
    """For each (salt, count) so many rows {"question", "answer", "gym"}, no question twice in all.

    The same arguments give the same rows in every process; another salt gives others. Raises:
    RecipeError.
    """
    gym.refuse_missing()
    problems, lines, is_late = _child(_named(data) | {"parts": parts}, MAKE_LIMIT_S)
    if problems:
        raise RecipeError(
            problems=[Problem(p.message, f"data.{p.where}", p.hint) for p in problems]
        )
    made: list[list[Row]] = [[] for _ in parts]
    for line in lines:
        row = json.loads(line)
        made[row.pop("part")].append(row)
    for rows, (salt, count) in zip(made, parts, strict=True):
        if len(rows) < count:
            key = "data.eval_size" if salt.startswith("test") else "data.size"
            raise _too_few(data.name, key, made, parts, is_late)
    return made


def _too_few(
    name: str, key: str, made: list[list[Row]], parts: list[tuple[str, int]], is_late: bool
) -> RecipeError:
    total, asked = sum(map(len, made)), sum(count for _, count in parts)
    limit = f" within {MAKE_LIMIT_S:.0f} s" if is_late else ""
    return RecipeError(
        f"`{name}` gave {total:,} different problems{limit}, {asked:,} were asked for",
        hint=f"lower `{key}`, or change [data.problems]",
    )


def _named(data: Data) -> dict[str, Any]:
    problems = data.problems
    settings = problems.values() if isinstance(problems, OpenSection) else {}
    return {"name": data.name.removeprefix("gym:"), "settings": settings}


@lru_cache(maxsize=64)
def _examined(named: str) -> list[Problem]:
    return _child(json.loads(named) | {"parts": []}, EXAMINE_LIMIT_S)[0]


def _child(request: dict[str, Any], limit_s: float) -> tuple[list[Problem], list[str], bool]:
    """What `child` answers: problems whose `where` is a key below [data], lines with a row
    each, and whether it was killed at the limit. Raises: RecipeError with the last line of its
    errors."""
    command = [sys.executable, "-m", "r1recipes.data.gym.child"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answers:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=answers,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {"PYTHONHASHSEED": "0", "MPLBACKEND": "Agg"},
        )
        try:
            _, errors = child.communicate(json.dumps(request), timeout=limit_s)
            is_late = False
        except subprocess.TimeoutExpired:
            is_late = True
        finally:
            child.kill()
            child.wait()
        answers.seek(0)
        lines = answers.read().splitlines()
    name = request["name"]
    if not is_late and child.returncode:
        last = ([line for line in errors.splitlines() if line.strip()] or ["no message"])[-1]
        message = f"reasoning-gym failed to make `gym:{name}`: {last.strip()}"
        raise RecipeError(message, hint="change [data.problems], or name another `gym:` data set")
    if not lines:
        message = f"reasoning-gym made no problem of `gym:{name}` within {limit_s:.0f} s"
        return [Problem(message, "problems", "make them easier in [data.problems]")], [], True
    problems = [Problem(message, key, hint) for key, message, hint in json.loads(lines[0])]
    return problems, lines[1:], is_late

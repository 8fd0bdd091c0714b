"""The reward `gym`: what it pays, and that no answer can hang a run or run code."""

import ast
import inspect
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from r1recipes import rewards
from r1recipes.machine.processes import Children
from r1recipes.rewards import gym_child

pytestmark = pytest.mark.slow
READS_ANSWERS = {
    "algorithmic.string_insertion", "algorithmic.spiral_matrix", "algorithmic.binary_matrix",
    "algorithmic.number_sorting", "games.n_queens", "algebra.simple_integration",
    "algebra.intermediate_integration", "algebra.polynomial_multiplication", "games.puzzle24",
    "games.countdown",
}  # fmt: skip
"""Modules whose scorer hands the answer, or the reference, to `eval` or to sympy's parser
(reasoning-gym 0.1.25)."""


def row(name: str, **settings: Any) -> dict[str, str]:
    entry = gym_child.make(name, settings, seed=5, size=1)[0]
    pack = gym_child.packed(name, settings, entry["metadata"])
    return {"question": entry["question"], "answer": entry["answer"], "gym": pack}


def pay(reward: rewards.Reward, entry: dict[str, str], *answers: str) -> list[float | None]:
    completions = [f"so <answer>0</answer> or\n<answer>\n{text}\n</answer>" for text in answers]
    columns = {key: [value] * len(answers) for key, value in entry.items()}
    return reward(prompts=["?"] * len(answers), completions=completions, **columns)


@pytest.fixture(scope="module")
def paying():
    (loaded,) = rewards.load(["gym"], base_dir=Path("."), time_limit_s=4.0)
    yield loaded
    loaded.close()


@pytest.fixture
def reward(paying):
    """Its process is the same for all tests; a call that is killed costs it that alone."""
    paying.failures.clear()
    return paying


def test_the_last_answer_is_paid_by_the_data_sets_own_scorer(reward):
    entry = row("chain_sum")
    assert pay(reward, entry, entry["answer"], f"{entry['answer']} apples") == [
        1.0,
        pytest.approx(len(entry["answer"]) / len(f"{entry['answer']} apples")),
    ]
    columns = {key: [value] * 3 for key, value in entry.items()}
    texts = [entry["answer"], "", f"<answer>{entry['answer']}"]
    assert reward(prompts=["?"] * 3, completions=texts, **columns) == [0.0, 0.0, 0.0]
    assert not reward.failures


def test_it_takes_right_answers_that_are_not_the_reference(reward):
    entry = row("countdown", min_numbers=3, max_numbers=3)
    turned = f"({entry['answer']}) * 1 / 1"
    reordered = f"0 + {entry['answer']}"
    assert pay(reward, entry, entry["answer"], f"({entry['answer']})") == [1.0, 1.0]
    assert all((value or 0) < 1 for value in pay(reward, entry, turned, reordered, "1 + 1"))


def test_an_answer_that_never_ends_is_paid_nothing_and_costs_its_limit(reward):
    entry = row("countdown", min_numbers=3, max_numbers=3)
    began = time.monotonic()
    paid = pay(reward, entry, "9**9**9**9", entry["answer"], "9**9**9**9")
    assert paid == [0.0, 1.0, 0.0]
    assert reward.failures == {"timeout": 2} and "within 4 s" in str(reward.last_failure)
    assert time.monotonic() - began < 60


ATTACKS = [
    "open({path!r}, 'w').write('x')",
    "__import__('pathlib').Path({path!r}).touch()",
    "[open({path!r}, 'w')]",
    "eval(\"open({path!r}, 'w')\")",
    "().__class__.__base__.__subclasses__()",
    "sympify(\"open({path!r}, 'w')\")",
    "exit()",
]


@pytest.mark.parametrize("module", sorted(READS_ANSWERS))
def test_an_answer_is_never_run_as_code(reward, tmp_path, module):
    entry, path = row(module.rpartition(".")[2]), tmp_path / "touched"
    paid = pay(reward, entry, *(attack.format(path=str(path)) for attack in ATTACKS))
    assert all(value is not None and value < 0.1 for value in paid)
    assert not path.exists() and not reward.failures
    assert pay(reward, entry, entry["answer"]) == [1.0]


def test_the_scorers_that_read_answers_as_code_are_known():
    """A newer reasoning-gym may have others, whose answers `restrict` must then be tried on."""
    from reasoning_gym.factory import DATASETS

    risky = {"eval", "exec", "compile", "parse_expr", "sympify", "literal_eval"}
    found = set()
    for scorer in {cls.score_answer for cls, _ in DATASETS.values()}:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(scorer)))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if names & risky:
            found.add(scorer.__module__.removeprefix("reasoning_gym."))
    assert found == READS_ANSWERS
    assert set(gym_child.PROBLEM_IS_CODE) <= set(sys.modules)


def try_to(what: str, path: str) -> str:
    """In a child: what came of an attempt in a restricted process."""
    import os
    import subprocess

    gym_child.restrict()
    attempts = {
        "write": lambda: open(path, "w"),
        "append": lambda: open(path, "ab"),
        "descriptor": lambda: os.open(path, os.O_CREAT | os.O_WRONLY),
        "start": lambda: subprocess.run(["touch", path], check=True),
        "shell": lambda: os.system(f"touch {path}"),
        "folder": lambda: os.mkdir(path),
        "connect": lambda: __import__("socket").create_connection(("127.0.0.1", 9), 1),
        "read": lambda: open(__file__).close(),
    }
    try:
        attempts[what]()
    except PermissionError as error:
        return str(error)
    return "done"


def test_a_restricted_process_writes_starts_and_connects_nothing(tmp_path):
    path = str(tmp_path / "touched")
    kinds = ["write", "append", "descriptor", "start", "shell", "folder", "connect", "read"]
    children = Children(1, imports=("reasoning_gym",))
    try:
        calls = [(kind, path) for kind in kinds]
        outcomes = children.run(try_to, calls, limit_s=30, total_s=120)
    finally:
        children.close()
    assert outcomes[-1] == "done"
    assert all("may not do this" in str(outcome) for outcome in outcomes[:-1]), outcomes
    assert not Path(path).exists()


@pytest.mark.parametrize("formula", ["(3 + 4)*5", "x**2/2 + C", "sqrt(2)*sin(x)", "1/x - pi", "24"])
def test_formulas_are_still_read(formula):
    code = sympy_code(formula)
    import sympy

    gym_child.refuse_code(code, vars(sympy))


@pytest.mark.parametrize(
    "text", ["open('x')", "x.subs(1, 2)", "lambda: open(x)", "[1, 2]", "print(1)", "lambdify(x, x)"]
)
def test_what_is_no_formula_is_refused(text):
    import sympy

    with pytest.raises((ValueError, SyntaxError)):
        gym_child.refuse_code(sympy_code(text), vars(sympy) | {"open": open, "print": print})


def sympy_code(text: str) -> str:
    """The Python that sympy's parser makes of a text, before it evaluates it."""
    import sympy
    from sympy.parsing.sympy_parser import standard_transformations, stringify_expr

    known = vars(sympy) | {"open": open, "print": print}
    return stringify_expr(text, {}, dict(known), standard_transformations)


def test_metadata_is_packed_as_it_is():
    import fractions

    import numpy

    given = {1: (2, [3.5, None]), "set": {"a"}, "text": numpy.str_("x"), "n": numpy.int64(3)}
    packed = gym_child.packed("name", {"a": [1]}, given | {"f": fractions.Fraction(1, 2)})
    assert ast.literal_eval(packed) == (
        "name",
        {"a": [1]},
        {1: (2, [3.5, None]), "set": {"a"}, "text": "x", "n": 3, "f": "1/2"},
    )


def test_data_that_are_not_reasoning_gyms_are_named_in_the_check(reward):
    (problem,) = rewards.check(reward, [{"prompt": "?", "answer": "1", "question": "?"}])
    assert "needs the columns `gym`" in problem.message

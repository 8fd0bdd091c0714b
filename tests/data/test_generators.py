import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from r1recipes.data.generators import KINDS, arithmetic, countdown
from r1recipes.recipe.sections.data import BUILTIN_DATA, Problems
from r1recipes.rewards import REWARDS

LEVELS = [
    {},
    {"digits": 1, "terms": 3},
    {"digits": 3, "operators": "+-"},
    {"digits": 2, "terms": 4, "operators": "+-*"},
]
demonstration = KINDS["builtin:arithmetic"].demonstrate
FORMAT = re.compile(r"<reasoning>\n(.+)\n</reasoning>\n<answer>\n(.+)\n</answer>", re.DOTALL)


def problem(question: str) -> tuple[str, ...]:
    """The problem behind an arithmetic question, whatever the order of its sum and products."""
    terms = re.sub(r" - ", " + -", question.removesuffix(" = ?")).split(" + ")
    signs = ["-" if term.startswith("-") else "+" for term in terms]
    factors = ["*".join(sorted(re.findall(r"\d+", term))) for term in terms]
    return tuple(sorted(map("".join, zip(signs, factors, strict=True))))


def numbers_in(expression: str) -> list[int]:
    return sorted(map(int, re.findall(r"\d+", expression)))


def parts(completion: str) -> tuple[str, str]:
    match = FORMAT.fullmatch(completion)
    assert match, completion
    return match[1], match[2]


@pytest.mark.parametrize("level", LEVELS)
def test_arithmetic_answers_are_right(level):
    for row in arithmetic("train", 60, **level):
        assert set(row) == {"question", "answer"}
        expression = row["question"].removesuffix(" = ?")
        assert row["answer"] == str(eval(expression))
        assert int(row["answer"]) >= 0
        assert all(len(n) == level.get("digits", 2) for n in re.findall(r"\d+", expression))
        assert len(re.findall(r"\d+", expression)) == level.get("terms", 2)
        assert set(re.findall(r"[+*-]", expression)) <= set(level.get("operators", "+"))


@pytest.mark.parametrize("level", LEVELS)
def test_arithmetic_splits_share_no_problem_under_any_seed(level):
    train: Counter[tuple[str, ...]] = Counter()
    test: set[tuple[str, ...]] = set()
    for seed in (1, 2):
        rows = [problem(row["question"]) for row in arithmetic("train", 80, seed=seed, **level)]
        assert len(set(rows)) == len(rows)
        train.update(rows)
        test |= {problem(row["question"]) for row in arithmetic("test", 20, seed=seed + 7, **level)}
    assert not test & set(train)


def test_the_two_splits_hold_all_problems():
    counts = {}
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=rf"the {split} split has (\d+) different") as error:
            arithmetic(split, 10_000)
        (count,) = re.findall(r"has (\d+)", str(error.value))
        counts[split] = int(count)
        assert len(arithmetic(split, counts[split])) == counts[split]
        with pytest.raises(ValueError, match="ask for fewer"):
            arithmetic(split, counts[split] + 1)
    assert sum(counts.values()) == 90 * 91 // 2  # unordered pairs of 10 .. 99
    assert 0.15 < counts["test"] / sum(counts.values()) < 0.25


@pytest.mark.parametrize(("numbers", "largest"), [(2, 30), (3, 20), (4, 99), (6, 50)])
def test_countdown_answers_are_right(numbers, largest):
    for row in countdown("train", 100, numbers=numbers, largest=largest, seed=3):
        assert numbers_in(row["answer"]) == sorted(row["numbers"])
        assert eval(row["answer"]) == row["target"] > 0
        assert len(row["numbers"]) == numbers and 1 <= min(row["numbers"])
        assert max(row["numbers"]) <= largest
        shown = ", ".join(map(str, row["numbers"]))
        assert f" {shown} " in row["question"] and f"make {row['target']}." in row["question"]


def test_countdown_splits_share_no_numbers_and_targets_belong_to_numbers():
    def by_numbers(split: str, seed: int) -> dict[tuple[int, ...], int]:
        rows = countdown(split, 150, numbers=3, largest=20, seed=seed)
        found = {tuple(sorted(row["numbers"])): row["target"] for row in rows}
        assert len(found) == len(rows)
        return found

    train, other, test = by_numbers("train", 1), by_numbers("train", 2), by_numbers("test", 9)
    assert not set(test) & (set(train) | set(other))
    shared = set(train) & set(other)
    assert shared and all(train[key] == other[key] for key in shared)


def test_too_many_countdown_problems_are_refused_with_their_number():
    with pytest.raises(ValueError, match=r"has \d+ different problems"):
        countdown("test", 100, numbers=2, largest=5)


@pytest.mark.parametrize("make", [arithmetic, countdown])
def test_a_seed_fixes_the_rows(make):
    assert make("train", 50, seed=4) == make("train", 50, seed=4)
    assert make("train", 50, seed=4) != make("train", 50, seed=5)


def test_rows_do_not_depend_on_the_process():
    code = (
        "from r1recipes.data.generators import *; "
        "print(arithmetic('test', 5), countdown('test', 5))"
    )
    here = f"{arithmetic('test', 5)} {countdown('test', 5)}\n"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == here


@pytest.mark.parametrize(
    "call",
    [
        lambda: arithmetic("validation", 1),
        lambda: arithmetic("train", 1, digits=0),
        lambda: arithmetic("train", 1, terms=1),
        lambda: arithmetic("train", 1, operators="+/"),
        lambda: arithmetic("train", 1, operators=""),
        lambda: countdown("train", 1, numbers=1),
        lambda: countdown("train", 1, largest=0),
    ],
)
def test_a_senseless_argument_is_refused(call):
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize("level", LEVELS)
def test_a_demonstration_without_mistakes_is_right(level):
    rng = random.Random(0)
    for row in arithmetic("train", 60, **level):
        reasoning, answer = parts(demonstration(row, rng))
        assert answer == row["answer"]
        for equation in reasoning.split():
            left, right = equation.split("=")
            assert eval(left) == int(right)


@pytest.mark.parametrize("level", LEVELS)
def test_a_demonstration_with_a_mistake_is_wrong(level):
    rng = random.Random(0)
    for row in arithmetic("train", 60, **level):
        _, answer = parts(demonstration(row, rng, wrong=1.0))
        assert int(answer) != int(row["answer"])


def test_the_mistake_is_a_forgotten_carry_where_there_is_one():
    rng = random.Random(0)
    assert "4+3+1=8" in demonstration({"question": "47 + 38 = ?", "answer": "85"}, rng)
    assert "4+3+0=7" in demonstration({"question": "47 + 38 = ?", "answer": "85"}, rng, wrong=1.0)
    assert "4-3-0=1" in demonstration({"question": "45 - 38 = ?", "answer": "7"}, rng, wrong=1.0)


def test_the_share_of_mistakes_is_as_asked():
    rng = random.Random(0)
    rows = arithmetic("train", 2000)
    wrong = sum(parts(demonstration(row, rng, wrong=0.3))[1] != row["answer"] for row in rows)
    assert 0.26 < wrong / len(rows) < 0.34


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_a_countdown_demonstration(wrong):
    rng = random.Random(0)
    for row in countdown("train", 100, numbers=4, largest=30):
        reasoning, answer = parts(KINDS["builtin:countdown"].demonstrate(row, rng, wrong=wrong))
        assert numbers_in(answer) == sorted(row["numbers"])
        assert (eval(answer) == row["target"]) is (wrong == 0.0)
        assert int(reasoning.split("=")[-1]) == eval(answer)


def test_ten_thousand_rows_take_about_a_second():
    start = time.process_time()
    arithmetic("train", 10_000, digits=3)
    countdown("train", 10_000, numbers=4, largest=99)
    assert time.process_time() - start < 4


def test_a_recipe_knows_the_kinds_of_problems_that_are_made():
    assert KINDS.keys() == BUILTIN_DATA.keys()
    assert all(kind.settings for kind in KINDS.values())
    settings = [key for kind in KINDS.values() for key in kind.settings]
    assert set(settings) == set(Problems.model_fields)


@pytest.mark.parametrize("name", KINDS)
def test_the_judge_of_a_kind_pays_for_its_demonstrations_and_not_for_mistakes(name):
    kind, known, rng = KINDS[name], BUILTIN_DATA[name], random.Random(0)
    level = Problems().model_dump(include=set(kind.settings))
    rows = kind.make("train", 50, seed=3, **level)
    assert {*rows[0]} == {"question", "answer", *known.columns}
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    for wrong, paid in ((0.0, 1.0), (1.0, 0.0)):
        texts = [kind.demonstrate(row, rng, wrong) for row in rows]
        assert REWARDS[known.judge]([""] * 50, texts, **columns) == [paid] * 50

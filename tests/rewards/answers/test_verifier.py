import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1recipes.rewards.answers import (
    Verifier,
    equal,
    extract_answer,
    extract_reference,
    final_answer,
    parse_number,
)
from tests.helpers import is_running

MEGABYTE = 1_000_000
LIMIT_S = 0.5
MATHEMATICAL = ("2 + x + 1", "x + 1 + 2")
"""A pair that only mathematics shows to be equal."""
BOMB = ("1000000!", "n!")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture(scope="module")
def verifier():
    with Verifier() as verifier:
        yield verifier


@pytest.fixture(scope="module")
def hasty():
    with Verifier(time_limit_s=LIMIT_S) as verifier:
        verifier.verify([MATHEMATICAL])  # the children are up
        yield verifier


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<reasoning>x</reasoning><answer>\n42\n</answer>", "42"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>1</answer> and <answer>2", "1"),
        ("<answer>1</answer> tail</answer>", "1"),
        ("<answer><answer>3</answer>", "3"),
        ("<answer></answer>", ""),
        ("</answer>5<answer>", None),
        ("<answer>5", None),
        ("5</answer>", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_last_pair_of_tags_holds_the_answer(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{1} <answer>2</answer> \\boxed{3}", "2"),
        ("so \\boxed{1}, no: \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1} and \\boxed{2", "1"),
        ("\\boxed{\\text{so } \\boxed{7}}", "\\text{so } \\boxed{7}"),
        ("The answer is 5. Wait, the answer is 6.", "6"),
        ("Final answer: 3.5 kg\nBye", "3.5 kg"),
        ("**Answer:** B", "B"),
        ("First 12.\nThen:\n\n**42**\n\nDone.", "**42**"),
        ("47 + 38", None),
        ("", None),
    ],
)
def test_a_final_answer_is_found_wherever_it_stands(completion, answer):
    assert final_answer(completion) == answer


@pytest.mark.parametrize(
    "hostile",
    [
        "<answer>" * (MEGABYTE // 8),
        "</answer>" * (MEGABYTE // 9),
        "<answer>" * (MEGABYTE // 16) + "</answer>" * (MEGABYTE // 16),
        "<answer>" + "7" * MEGABYTE + "</answer>",
        "<" * MEGABYTE,
        "\\boxed{" * (MEGABYTE // 7),
        "the answer is " * (MEGABYTE // 14),
        "1\n" * (MEGABYTE // 2),
    ],
    ids=["opens", "closes", "opens then closes", "digits", "brackets", "boxes", "said", "lines"],
)
def test_extraction_is_linear_in_hostile_text(hostile):
    start = time.perf_counter()
    extract_answer(hostile)
    final_answer(hostile)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("text", "after", "reference"),
    [
        ("5 + 5 = 10\n#### 1,234", "####", "1,234"),
        ("#### 1\n#### 2 ", "####", "2"),
        (" 7 ", None, "7"),
        (" no marker ", "####", "no marker"),
    ],
)
def test_the_reference_stands_after_the_last_marker(text, after, reference):
    assert extract_reference(text, after) == reference


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        (" 42 ", 42),
        ("+7", 7),
        ("-5", -5),
        ("\u22125", -5),
        ("1,000", 1000),
        ("1 000 000", 1_000_000),
        ("$476.", 476),
        ("-$5.50", Fraction(-11, 2)),
        ("$-5", -5),
        ("18%", 18),
        ("3/4", Fraction(3, 4)),
        ("5 / -4", Fraction(-5, 4)),
        (".5", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        ("1e3", 1000),
        ("1E-3", Fraction(1, 1000)),
        ("007", 7),
        ("1 1/2", Fraction(3, 2)),
        ("1\u00bd", Fraction(3, 2)),
        ("1_000", 1000),
        ("\u0664\u0662", 42),
        ("five", 5),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("1.5 \u00d7 10^{-3}", Fraction(3, 2000)),
        ("x = 5", 5),
        ("The answer is $1,000.", 1000),
        ("12 apples", 12),
        ("84/2 = 42", 42),
    ],
)
def test_numbers_are_read_exactly(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "1,00,0", "1.000,5", "3/0", "1 3/2", "1/2/3", "0x10", "inf", "nan", "5 or 6",
     "47 + 38", "6 * 7", "84/2", "2^3", "sqrt(4)", "about 5", "3-5", ">= 5", "1e9999", "9" * 101,
     "9" * 5000, "9" * MEGABYTE],
    ids=lambda text: text[:8] or "empty",
)  # fmt: skip
def test_what_is_not_one_number_is_refused(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("1,000", "1000", True),
        ("$476.", "476", True),
        ("42.00", "42", True),
        ("0.75", "3/4", True),
        ("18%", "18", True),
        ("18%", "0.18", True),
        ("18", "18%", True),
        ("18%", "1800", False),
        ("5%", "5%", True),
        ("5%", "0.05%", False),
        ("0.333", "1/3", False),
        ("-5", "5", False),
        ("Paris.", " paris", True),
        ("\\text{Paris}", "Paris", True),
        ("**Paris**", "Paris", True),
        ("", "", False),
        (None, "5", False),
        ("x" * 501, "x" * 501, True),
        ("x" * 501, "5", False),
    ],
)
def test_equal_is_exact(answer, reference, same):
    assert equal(answer, reference) is same


@given(st.text(max_size=50), st.text(max_size=50))
def test_equal_never_raises_and_a_text_equals_itself(left, right):
    assert isinstance(equal(left, right), bool)
    assert equal(left, left) == (left.strip() != "")
    parse_number(left)


@given(st.integers(-(10**12), 10**12))
def test_an_integer_equals_itself_in_any_spelling(value):
    for text in (f"{value:,}", f"{value}.00", f" {value} ", f"${value}"):
        assert equal(text, str(value))


MATHEMATICS = [
    ("\\frac{1}{2}", "0.5", True),
    ("\\frac12", "1/2", True),
    ("\\boxed{5}", "5", True),
    ("2\\sqrt{3}", "\\sqrt{12}", True),
    ("x + 1", "1 + x", True),
    ("x^2", "x**2", True),
    ("10^3", "1000", True),
    ("x = 3", "3", True),
    ("42 apples", "42", True),
    ("$476.00 per week", "476", True),
    ("{2, 1}", "\\{1, 2\\}", True),
    ("5 or 6", "6", False),
    ("5 and 6", "5", False),
    ("6 7 8 9", "9", False),
    ("3 hours 20 minutes", "20", False),
    ("-5 degrees", "5", False),
    ("five", "5", True),
    ("75 + 36", "111", False),
    ("silent", "listen", False),
    ("5 kg", "5 cm", False),
]


def test_mathematics_decides_what_exact_comparison_cannot(verifier):
    verdicts = verifier.verify([(answer, reference) for answer, reference, _ in MATHEMATICS])
    expected = [same for _, _, same in MATHEMATICS]
    assert dict(zip(MATHEMATICS, verdicts, strict=True)) == dict(
        zip(MATHEMATICS, expected, strict=True)
    )


def test_plain_pairs_start_no_process():
    before = multiprocessing.active_children()
    with Verifier() as verifier:
        pairs = [("1,000", "1000"), ("7", "8"), (None, "5"), ("", "5"), ("no", "Paris")]
        pairs += [("x^2", "x\u00b2"), ("9^9^9^9", "42"), ("B", "(B)")]
        assert verifier.verify(pairs) == [True, *[False] * 4, True, False, True]
        assert verifier.verify([]) == []
        assert set(multiprocessing.active_children()) == set(before)


@pytest.mark.parametrize(
    "bomb",
    ["9^9^9^9", "2^{2^{40}}", "1000000!", "\\frac{1000000!}{999999!}", "(" * 250 + ")" * 250,
     "9" * 400 + "x", "(" * 499],
    ids=lambda bomb: bomb[:10],
)  # fmt: skip
def test_a_bomb_costs_its_time_limit_where_an_expression_is_expected(bomb, hasty):
    start = time.perf_counter()
    assert hasty.verify([(bomb, "42")]) == [False]
    assert time.perf_counter() - start < 0.1, "a number is expected: nothing is computed"
    assert hasty.verify([(bomb, "x^y + z! - 2w + 3\\frac{1}{2}")]) == [False]
    assert time.perf_counter() - start < LIMIT_S + 1.5


def test_bombs_do_not_cost_their_neighbours():
    pairs = [MATHEMATICAL, BOMB, ("y + 3 + 4", "3 + y + 4")]
    with Verifier(time_limit_s=1.5) as verifier:
        assert verifier.verify(pairs * 20) == [True, False, True] * 20
        assert verifier.timeouts == 1, "the same pair is computed once"


def test_a_batch_has_a_time_budget():
    bombs = [(f"{number}!", "n!") for number in range(1_000_000, 1_000_040)]
    before = multiprocessing.active_children()
    with Verifier(time_limit_s=1.0, batch_limit_s=1.0) as verifier:
        verifier.verify([MATHEMATICAL])
        start = time.perf_counter()
        assert verifier.verify(bombs) == [False] * 40
        assert time.perf_counter() - start < 3
        assert verifier.timeouts == 40
        assert verifier.verify([MATHEMATICAL]) == [True], "it goes on after that"
    assert set(multiprocessing.active_children()) <= set(before)


def test_it_works_from_any_thread(verifier):
    verdicts = {}

    def work(number):
        verdicts[number] = verifier.verify([(f"{number} + x", f"x + {number}")])

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert verdicts == {1: [True], 3: [True], 5: [True]}


PARENT = """
import multiprocessing, threading, time
from r1recipes.rewards.answers import Verifier

if __name__ == "__main__":
    verifier = Verifier(time_limit_s=30)
    verifier.verify([("1 + x", "x + 1")])
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    {rest}
"""
AT_WORK = """
    bomb = [("1000000!", "n!")]
    threading.Thread(target=verifier.verify, args=(bomb,), daemon=True).start()
    time.sleep(0.5)
"""


@pytest.mark.parametrize("rest", ["verifier.close()", AT_WORK, "time.sleep(60)"])
def test_no_child_outlives_its_parent(rest, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(rest=rest))
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        if "60" in rest:
            parent.send_signal(signal.SIGKILL)
        parent.wait(15)
    deadline = time.monotonic() + 5
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from r1recipes.rewards.answers import Verifier\nVerifier().verify([('x + 1', '1 + x')])\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert "no child process can be started" in done.stderr


@settings(max_examples=30)
@given(st.text(max_size=600))
def test_no_answer_text_makes_a_verifier_raise(text):
    assert isinstance(equal(extract_answer(f"<answer>{text}</answer>"), "42"), bool)

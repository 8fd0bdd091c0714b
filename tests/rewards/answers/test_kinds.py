"""An answer is judged by the kind of its reference, which is read with the help of its column.

fixtures/answers.jsonl has answers that people and models give, answers_more.jsonl many more
spellings of each kind, with right and wrong ones for the reference of each line.
"""

import json
import math
import random
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest

from r1recipes.rewards.answers import AnswerColumn, Judgement, Verifier, equal, final_reference
from r1recipes.rewards.answers.kinds import MAX_LOOKED_AT, MAX_REFERENCE_CHARS, spread

DATA = Path(__file__).parents[2] / "fixtures"
Case = tuple[str, str, str, bool]
"""Kind, answer, reference, whether it is right."""


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


PEOPLE: list[Case] = [
    (row["kind"], row["answer"], row["reference"], row["right"]) for row in read("answers.jsonl")
]
MORE: list[Case] = [
    (row["kind"], answer, row["reference"], verdict == "right")
    for row in read("answers_more.jsonl")
    for verdict in ("right", "wrong")
    for answer in row[verdict]
]
KINDS = sorted({kind for kind, *_ in PEOPLE + MORE})


@pytest.fixture(scope="module")
def verifier():
    with Verifier() as verifier:
        yield verifier


@pytest.fixture(scope="module", params=["each by itself", "one mixed column"])
def verdicts(verifier, request):
    """The verdicts on all cases; in a mixed column each row must still be of its own kind."""
    cases = PEOPLE + MORE
    mixed = AnswerColumn.from_references([reference for _, _, reference, _ in cases])
    verifier.column = mixed if "mixed" in request.param else None
    judged = verifier.judge([(answer, reference) for _, answer, reference, _ in cases])
    verifier.column = None
    return dict(zip(cases, judged, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_gets_its_verdict(kind, verdicts):
    wrong = {
        (answer, reference): verdict.why
        for (case_kind, answer, reference, is_right), verdict in verdicts.items()
        if case_kind == kind and verdict.right != is_right
    }
    assert wrong == {}


def test_every_verdict_has_a_short_reason(verdicts):
    assert all(0 < len(verdict.why) < 200 for verdict in verdicts.values())
    assert sum(not verdict.right for verdict in verdicts.values()) > 900


@pytest.mark.parametrize(
    ("answer", "reference", "why"),
    [
        ("84", "85", "85 expected, 84 given"),
        ("1,5", "1.5", "not written as one number"),
        ("0.33", "1/3", "1/3 expected, 0.33 given"),
        ("47 + 38", "85", "an expression, not worked out"),
        ("170/2", "85", "an expression, not worked out"),
        ("5 or 6", "5", "two candidates"),
        ("at least 5", "5", "a bound, not a number"),
        ("about 5", "5", "an estimate, not a number"),
        ("not 5", "5", "a negation, not a number"),
        ("3-5", "5", "a range, not a number"),
        ("5 6", "5", "several numbers"),
        ("blue", "5", "no number"),
        ("5 million", "5", "5 expected, 5,000,000 given"),
        ("36 m", "36 cm", "cm expected, m given"),
        ("7" * 600, "5", "more than 502 characters"),
        ("", "5", "no answer"),
        (None, "5", "no answer"),
        ("5", None, "the reference is missing"),
        ("A", "B", "B expected, A chosen"),
        ("A or B", "B", "not one choice; B expected"),
        ("x = 3 or x = 1", "1, 3", "alternatives, where a list in its order is expected"),
        ("3 2 1", "1 2 3", "item 1: 1 expected, 3 given"),
        ("{1, 3}", "{1, 2}", "another set: 2 is missing"),
        ("May 1, 2024", "2024-01-05", "another date"),
        ("5/1/2024", "2024-01-05", "day and month may be the other way round"),
        ("maybe", "yes", "neither yes nor no"),
        ("London", "Paris", "another text"),
        ("85", "85", "the same text"),
        ("$85.00", "85", "the same number"),
    ],
)
def test_the_reason_is_what_is_wrong(answer, reference, why):
    assert AnswerColumn.from_references([reference]).judge(answer, reference).why == why


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("85", "number"), ("1,234", "number"), ("$18.90", "number"), ("50%", "number"),
        ("-3/4", "number"), ("36 \\text{ cm}", "number"), ("x = 5", "number"),
        ("12 apples", "number"),
        ("B", "choice"), ("(B)", "choice"), ("B) Paris", "choice"),
        ("yes", "boolean"), ("False", "boolean"), (True, "boolean"),
        ("2024-01-05", "date"), ("5/1/2024", "date"), ("May 5, 2024", "date"),
        ("1, 2, 3", "list"), ("[1, 2]", "list"), ("A B C", "list"), ("(0, 1]", "list"),
        ("A->B", "list"),
        ("{1, 2}", "set"), ("\\{1, 2\\}", "set"), ("x = 1 or x = 2", "set"), ("\\pm 3", "set"),
        ('{"a": 1}', "json"), ("[[1], [2]]", "json"),
        ("x^2 + 1", "expression"), ("\\sqrt{2}", "expression"), ("2\\pi", "expression"),
        ("Paris", "text"), ("LR", "text"), ("3-1", "text"), ("0101", "text"), ("E. coli", "text"),
        ("101 Dalmatians", "text"), ("CO2 + H2O", "text"), ("well-known", "text"),
        ("12:30", "text"), ("10 AM", "text"), ("5 hours, 30 minutes", "text"), ("42 R 3", "text"),
        ("1990s", "text"), ("1-2", "text"), ("at least 3", "text"), ("A and B", "choice"),
        ("0.333...", "number"), ("0.(3)", "number"),
    ],
)  # fmt: skip
def test_a_reference_by_itself_is_of_a_kind(reference, kind):
    assert AnswerColumn.from_references([reference]).kinds == (kind,)


@pytest.mark.parametrize(
    ("references", "summary"),
    [
        ([str(n) for n in range(7473)], "7,473 references: whole numbers"),
        (["1"], "1 reference: whole number"),
        (["A", "B", "C", "D"], "4 references: choices"),
        (
            ["1", "2", "0.5", "Paris"],
            "4 references: 2 whole numbers, 1 decimal, 1 text; each is judged by its own kind",
        ),
        ([["Paris", "Lutetia"], ["Rome"]], "2 references: texts; 1 accepts any of several answers"),
        (
            ["x", "y" * (MAX_REFERENCE_CHARS + 1)],
            "2 references: 1 expression, 1 too long (over 20,000 characters); each is judged by "
            f"its own kind; no answer can match 1 of them (the first begins `{'y' * 40}`)",
        ),
        (
            [None, math.nan, "1"],
            "3 references: 2 missing, 1 whole number; each is judged by its own kind; no answer "
            "can match 2 of them",
        ),
    ],
)
def test_a_column_says_what_its_references_are(references, summary):
    assert AnswerColumn.from_references(references).summary == summary


@pytest.mark.parametrize(
    ("column", "answer", "reference", "alone", "in_column"),
    [
        (["25/12/2023", "5/1/2024"], "5 January 2024", "5/1/2024", False, True),
        (["12/25/2023", "5/1/2024"], "May 1, 2024", "5/1/2024", False, True),
        (["12/25/2023", "5/1/2024"], "5 January 2024", "5/1/2024", False, False),
        (["25/12/2023", "12/25/2023", "5/1/2024"], "5 January 2024", "5/1/2024", False, False),
        (["A", "A,C", "B,D", "A,B,D", "C"], "C, A", "A,C", False, True),
        (["A,C", "B,D", "D,A", "A,B,D"], "C, A", "A,C", False, False),
        (["A", "AC", "BD", "ABD", "C"], "(C) and (A)", "AC", False, True),
        (["100 200"] + ["1 2 3", "7 9"] * 20, "100, 200", "100 200", False, True),
        (["A"] + ["iron", "zinc"] * 20, "Option A", "A", True, False),
        (["one"] + ["love", "hate"] * 20, "1", "one", True, False),
        (["0101"] + ["1010", "11"] * 20, "101", "0101", False, True),
    ],
)
def test_the_column_settles_what_one_reference_leaves_open(
    column, answer, reference, alone, in_column
):
    assert equal(answer, reference) is alone
    assert AnswerColumn.from_references(column).judge(answer, reference).right is in_column


@pytest.mark.parametrize(
    ("kind", "answer", "reference", "is_right"),
    [
        ("set", "3, 2, 1", "1, 2, 3", True),
        ("list", "3, 2, 1", "1, 2, 3", False),
        ("list", "1 234", "1,234", True),
        ("text", "42.0", "42", False),
        ("text", "Option B", "B", False),
        ("choice", "Option X", "X", False),
        ("choice", "E", "E. None of them", True),
        ("number", "7", "007", True),
        ("number", "Paris.", "Paris", True),
        ("expression", "47 + 38", "85", False),
        ("json", "[1,2]", "[1, 2]", True),
        ("json", "1, 2", "[1, 2]", False),
    ],
)
def test_the_user_may_say_the_kind(kind, answer, reference, is_right):
    column = AnswerColumn.from_references([reference], kind=kind)
    assert column.judge(answer, reference).right is is_right


def test_references_that_are_not_of_the_kind_asked_for_are_counted():
    column = AnswerColumn.from_references(["1", "2", "Paris"], kind="number")
    assert column.summary.endswith("; 1 not readable as `number`, each judged by its own kind")
    assert column.judge("paris", "Paris").right and column.judge("1.0", "1").right


def test_the_table_of_the_documentation_is_true(verifier):
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text()
    section = page.partition("## How an answer is judged")[2].partition("\n## ")[0]
    verdicts = {}
    for line in section.splitlines():
        cells = [re.findall("`([^`]+)`", cell) for cell in line.split("|")[2:5]]
        if len(cells) < 3 or len(cells[0]) == 0:
            continue
        for reference in cells[0]:
            for answers, is_right in zip(cells[1:], (True, False), strict=True):
                for answer in answers if len(cells[0]) == 1 or is_right else ():
                    verdicts[answer, reference] = is_right
    assert len(verdicts) > 70
    judged = verifier.verify(list(verdicts))
    assert dict(zip(verdicts, judged, strict=True)) == verdicts


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="numbr"):
        AnswerColumn.from_references(["1"], kind="numbr")


@pytest.mark.parametrize(
    ("answer", "reference", "is_right"),
    [
        ("paris", ["Paris", "City of Light"], True),
        ("city of light", ["Paris", "City of Light"], True),
        ("London", ["Paris", "City of Light"], False),
        ("Paris or City of Light", ["Paris", "City of Light"], False),
        ("5", ["five", 5], True),
        ("yes", True, True),
        ("no", True, False),
        ("1", True, False),
        ("False", False, True),
        ("72.0", 72, True),
        ("72", 72.0, True),
        ("0.1", 0.1, True),
        ("18.9", Decimal("18.90"), True),
        ("1000", Decimal("1E+3"), True),
        ("nan", math.nan, False),
        ("None", None, False),
        ("5", [], False),
        ("5", [None, 5], True),
        ("word " * 1000, "word " * 1000, True),
        ("Word " * 1000, "word " * 1000, True),
        ("x" * MAX_REFERENCE_CHARS, "x" * MAX_REFERENCE_CHARS, True),
        ("x" * 20_001, "x" * 20_001, False),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_references_may_be_of_any_type_and_length(answer, reference, is_right):
    assert equal(answer, reference) is is_right


@pytest.mark.parametrize(
    ("value", "final", "fault"),
    [
        (" 72 ", "72", ""),
        (72.0, "72", ""),
        (True, "true", ""),
        (Decimal("18.90"), "18.90", ""),
        (["Paris", 5], ["Paris", "5"], ""),
        ([], "", "is an empty list"),
        (["a", None], "", "has an entry that is null"),
        ([["a"]], "", "has an entry that is a list"),
        ({"a": 1}, "", "is a dict, not a text, a number, true or false, or a list"),
        (math.nan, "", "is NaN"),
        (Decimal("NaN"), "", "is NaN"),
        (Decimal("Infinity"), "", "is infinite"),
        ([1.0, math.nan], "", "has an entry that is NaN"),
        (" ", "", "is empty"),
    ],
)
def test_a_value_of_a_data_set_becomes_a_reference(value, final, fault):
    assert final_reference(value, None) == (final, fault)


def test_the_marker_is_looked_for_in_each_accepted_answer():
    assert final_reference(["5 #### 5", "#### five"], "####") == (["5", "five"], "")
    assert final_reference(["#### 5", "five"], "####")[1].startswith("has an entry that has no")


def test_judging_one_answer_computes_only_with_a_verifier(verifier):
    column = AnswerColumn.from_references(["x + 1 + 2"])
    assert not column.judge("2 + x + 1", "x + 1 + 2").right
    assert column.judge("2 + x + 1", "x + 1 + 2", verifier) == Judgement(True, "equal expressions")
    accepted = ["y", "x + 1 + 2"]
    assert column.judge("2 + x + 1", accepted, verifier).right, "any of several, by mathematics too"


def test_ten_thousand_plain_numbers_take_less_than_a_second(verifier):
    rng = random.Random(0)
    numbers = [rng.randint(-(10**6), 10**6) for _ in range(10_000)]
    pairs = [(f"{number:,}" if number % 2 else str(number), str(number)) for number in numbers]
    start = time.process_time()
    assert verifier.verify(pairs) == [True] * 10_000
    assert time.process_time() - start < 1


def test_texts_that_stand_for_a_column_are_spread_over_it_and_within_both_limits():
    assert spread([5] * 10, 10, 50) == list(range(10))
    assert spread([5] * 10, 5, 50) == [0, 2, 4, 6, 8]
    assert spread([5] * 10, 10, 25) == [0, 2, 4, 6, 8]
    assert spread([30, 0, 30, 0], 10, 30) == [0]  # the long ones are where it looks
    assert spread([], 10, 10) == []


def test_a_large_column_is_known_by_some_of_its_references_and_judges_by_all():
    numbers = [f"{n} km" for n in range(3 * MAX_LOOKED_AT)]
    column = AnswerColumn.from_references(numbers)
    summary = "60,000 references, of which 20,000 were looked at: whole numbers"
    assert column.summary == summary
    assert all(column.judge(f"{n}.0 km", f"{n} km").right for n in (0, 1, 2, 59_999))
    repeated = AnswerColumn.from_references(["5 km", "6 km"] * 2 * MAX_LOOKED_AT)
    assert repeated.summary == "80,000 references: whole numbers"

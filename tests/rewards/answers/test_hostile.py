"""No answer and no reference takes long to judge, and none makes the judge raise."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1recipes.rewards.answers import AnswerColumn, Verifier
from r1recipes.rewards.answers.kinds import Kind

MEGABYTE = 1_000_000

HOSTILE = [
    "9^9^9", "10**10**10", "(", "{", "[", "{}", "\\boxed{", "\\text{", "\\frac{", "\\{", "*", "* ",
    "**a", "`", "$", "<b>", "<sup>", "&", "-", "1,", "1 000 ", "is ", "is 5 ", "= ", "6=", "so, ",
    "the answer is ", "twenty-", "5 million ", "\u00bd", "\u00b2", "\u200b", "\u0301", "\ufdfa",
    "1/", "^", "1^", "sqrt(", "\u221a", " or ", ", ", "A) ", "Option ", "yes, ", "January ",
    "{'a':", '{"a":', "[1,", "'", '"', "\\", "\n", " ", "5 apples ", "sq ", "m/", "5\\,",
    "&#x110000;", "0.\\overline{3", "0.3", "1 to ", "at least ", "5 h ", "x<", "- a\n", "(A)",
    "abs(", "\\sin^{-1}", "2x*", "{x|", "1-", "1%-",
]  # fmt: skip
REFERENCES = [
    "5", "0.5", "36 cm", "B", "A,C", "B) Paris", "yes", "2024-01-05", "5/1/2024", "1, 2, 3",
    "{1, 2}", '{"a": 1}', "x^2 + 1", "\\sqrt{2}", "Paris", "\\pm 3", "(0, 1]", "0101", "A->B->C",
    "word " * 3000, "1, " * 5000 + "1", "{" + "1," * 8000 + "1}", '{"a": [' + "1," * 5000 + "1]}",
    "(" * 9000, "{" * 9000, "[" * 9000, "1 " * 9000, "is " * 5000, "**a" * 4000,
    "5 " + "apples " * 2000, "1-2", "at least 3", "x<1 or x>2", "5 h 30 min", "10 AM", "42 R 3",
    "{x : x > 2}", "A and B", "6x", "1<x<3",
]  # fmt: skip


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference[:12])
def test_no_answer_takes_long_or_raises(reference):
    column = AnswerColumn.from_references([reference])
    for length in (499, 500 + 2 * len(reference)):
        for piece in HOSTILE:
            answer = (piece * (length // len(piece) + 1))[:length]
            start = time.process_time()
            verdict = column.judge(answer, reference)
            assert time.process_time() - start < 0.5, piece
            assert verdict.right is (answer.strip() == reference.strip()), piece
    start = time.process_time()
    assert not column.judge("7" * 1_000_000, reference).right
    assert time.process_time() - start < 0.1


PIECES = st.lists(
    st.sampled_from(
        ["5", "6", " ", ",", ".", "-", "+", "*", "/", "^", "=", "(", ")", "[", "]", "{", "}",
         "\\{", "\\}", "\\frac{1}{2}", "\\boxed{", "\\text{", "$", "%", "x", "A", "B", "is", "or",
         "not", "half", "one", "million", "cm", "apples", "January", "2024", "\u00bd", "\u00b2",
         "\u221a", "\u03c0", "'", '"', "`", "\n", "yes", "->", "<", ">", "\u2264", "\u00b1",
         "\u2208", "1,000", "e", "\\", "**"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(PIECES | st.text(max_size=30), PIECES | st.text(max_size=30))
def test_no_text_makes_the_judge_raise_and_a_text_is_right_for_itself(answer, reference):
    column = AnswerColumn.from_references([answer, reference])
    verdict = column.judge(answer, reference)
    assert isinstance(verdict.right, bool) and verdict.why
    assert column.judge(answer, answer).right is bool(answer.strip())
    for kind in Kind:
        AnswerColumn.from_references([reference], kind=kind).judge(answer, reference)


@pytest.mark.parametrize("character", ["7", "(", "<answer>", "\\frac"])
def test_a_megabyte_is_refused_unread(character):
    start = time.process_time()
    with Verifier() as verifier:
        assert verifier.verify([(character * MEGABYTE, "7")] * 8) == [False] * 8
    assert time.process_time() - start < 0.2

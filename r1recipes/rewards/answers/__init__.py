"""Final answers: found in a completion, and judged by what kind of thing the reference is.

A number, a choice, a list, a set, a date, an expression or a text each has its own rule; none is
judged by what it evaluates to. Nothing here knows a run or a reward.
"""

from r1recipes.rewards.answers.judge import MAX_ANSWER_CHARS, Verdict
from r1recipes.rewards.answers.kinds import Kind, reference_text
from r1recipes.rewards.answers.numbers import parse_number
from r1recipes.rewards.answers.verifier import (
    AnswerColumn,
    Verifier,
    equal,
    extract_answer,
    extract_reference,
    final_answer,
    final_reference,
    last_boxed,
)

__all__ = [
    "MAX_ANSWER_CHARS",
    "AnswerColumn",
    "Kind",
    "Verdict",
    "Verifier",
    "equal",
    "extract_answer",
    "extract_reference",
    "final_answer",
    "final_reference",
    "last_boxed",
    "parse_number",
    "reference_text",
]

"""Final answers: extracted from a completion, and judged by the kind of their reference.

Numbers, choices, lists, sets, dates, expressions and texts each have a rule; no answer is judged by
the value that it evaluates to. Limits: nothing here knows a run or a reward.
"""

from r1recipes.rewards.answers.judge import MAX_ANSWER_CHARS, Judgement
from r1recipes.rewards.answers.kinds import Kind, reference_text, spread
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
    "Judgement",
    "Verifier",
    "equal",
    "extract_answer",
    "extract_reference",
    "final_answer",
    "final_reference",
    "last_boxed",
    "parse_number",
    "reference_text",
    "spread",
]

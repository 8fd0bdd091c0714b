"""The reward functions that come with r1recipes, with TRL's signature.

    f(prompts, completions, <columns of the data>, **columns) -> one float per completion

Completions are strings or lists of messages. Each function pays 0 to 1, in time linear in the
text, whatever the text is. The `notebook_*` functions pay the same as the reward functions of the
notebook of February 2025, with its known defects (docs/rewards.md), so that weight 1.0 reproduces
it. Limits: a user's own functions are run by `user_code`. `answers` is imported where an answer is
judged: its tables would cost every command 16 ms.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from r1recipes.errors import RecipeError
from r1recipes.rewards.gym import gym
from r1recipes.rewards.user_code import completion_text

if TYPE_CHECKING:
    from r1recipes.rewards.answers import Verifier

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
ANSWER_TAGS = TAGS[2:]
MAX_EXPRESSION_CHARS = 200
"""Assumed: an expression of six numbers and brackets has at most about 50."""


def correctness(
    prompts: list[Any],
    completions: list[Any],
    answer: list[Any],
    *,
    verifier: Verifier | None = None,
    **columns: Any,
) -> list[float]:
    """1 when the answer in the last <answer> pair is right for the column `answer`.

    It is judged by its kind: "1,000" and "$1000.00" are the number 1000, "500 * 2" is not. A list
    in the column accepts any of its entries. A verifier knows the kinds of the whole column and
    also compares expressions, such as 2*pi with 2\\pi; `r1recipes.rewards.load` passes one.
    """
    from r1recipes.rewards import answers

    pairs = list(zip(_answers(completions), answer, strict=True))
    same = verifier.verify(pairs) if verifier else [answers.equal(*pair) for pair in pairs]
    return [float(value) for value in same]


def integer(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """1 when the answer is a whole number: "-5", "1,000" and "$476." are, "6 * 7" is not."""
    from r1recipes.rewards.answers import parse_number

    values = [parse_number(answer) if answer else None for answer in _answers(completions)]
    return [float(value is not None and value.denominator == 1) for value in values]


def strict_format(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """1 for exactly the format asked for: each of the four tags once, alone on its line.

    Reasoning and answer may have any length but are not blank; nothing is before or after, except a
    line end. A completion that earns this also earns `soft_format`.
    """
    return [float(_is_strict(completion_text(c))) for c in completions]


def soft_format(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """1 for the four tags, each once and in order, with reasoning and answer that are not blank.

    Only spaces and line ends may come before <reasoning> and before <answer>; line breaks do not
    matter, and text after </answer> costs nothing here.
    """
    return [float(_sections(completion_text(c)) is not None) for c in completions]


def xml_tags(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """0.25 for each of the four tags that occurs exactly once, in order; less for a long tail.

    Text after </answer> takes off 0.001 a character, at most 0.25. The length of the reasoning
    does not matter.
    """
    return [_pay_tags(completion_text(c)) for c in completions]


def countdown(
    prompts: list[Any],
    completions: list[Any],
    numbers: list[list[Any]],
    target: list[Any],
    **columns: Any,
) -> list[float]:
    """1 when the answer uses each of `numbers` exactly once, with + - * / ( ), and gives `target`.

    Computed in exact fractions: 1/3*3 gives 1. Column `numbers` has a list in each row.
    """
    rows = zip(_answers(completions), numbers, target, strict=True)
    return [float(_reaches(answer, *problem)) for answer, *problem in rows]


def judge(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """What the model of [judge] says that a completion is worth, 0 to 1.

    Only a recipe has the section [judge], so `r1recipes.rewards.load` makes the reward from it.
    Raises: RecipeError.
    """
    hint = "`r1recipes.rewards.load` makes it, for a recipe with that section"
    raise RecipeError("the reward `judge` needs the section [judge] of a recipe", hint=hint)


def notebook_xmlcount(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """The notebook's, without a lower bound: 0.125 a tag, less 0.001 a character after the last.

    Defect R4: without a line end after </answer> "after the last" is the whole completion, so long
    reasoning is punished: 1046 characters pay -0.545.
    """
    return [_notebook_count(completion_text(c)) for c in completions]


def notebook_soft_format(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """The notebook's: 0.5 for both pairs of tags, each on one line.

    Defects R1 and R3: it never pays for the format that the prompt asks for, and excludes
    notebook_strict_format.
    """
    pattern = r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>"
    return [0.5 if re.match(pattern, completion_text(c)) else 0.0 for c in completions]


def notebook_strict_format(
    prompts: list[Any], completions: list[Any], **columns: Any
) -> list[float]:
    """The notebook's: 0.5 for tags on lines of their own around one line each, and a last line end.

    Defect R2: reasoning of two lines, or no line end after </answer>, pays nothing.
    """
    pattern = r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$"
    return [0.5 if re.match(pattern, completion_text(c)) else 0.0 for c in completions]


def notebook_int(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """The notebook's: 0.5 when the text after the last <answer> is digits only.

    Defect R5: "1,000" and "-5" pay nothing. A completion without tags is an answer as a whole.
    """
    texts = [_notebook_answer(completion_text(c)) for c in completions]
    return [0.5 if text.isdigit() else 0.0 for text in texts]


def notebook_correctness(
    prompts: list[Any], completions: list[Any], answer: list[Any], **columns: Any
) -> list[float]:
    """The notebook's: 2 when the text after the last <answer> is the same string as `answer`.

    Defect R5: "$476." is not "476".
    """
    pairs = zip((_notebook_answer(completion_text(c)) for c in completions), answer, strict=True)
    return [2.0 if text in _accepted(reference) else 0.0 for text, reference in pairs]


def _accepted(reference: Any) -> list[str]:
    references = reference if isinstance(reference, list) else [reference]
    return [str(accepted) for accepted in references]


def _answers(completions: list[Any]) -> list[str | None]:
    from r1recipes.rewards.answers import extract_answer

    return [extract_answer(completion_text(completion)) for completion in completions]


def _sections(text: str) -> tuple[str, str, str, str, str] | None:
    """The texts before, in and between the tags, if each tag occurs once, in order, and is filled.

    Not a regular expression: two lazy groups take quadratic time on a repeated tag.
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    before, _, rest = text.partition(TAGS[0])
    reasoning, closed, rest = rest.partition(TAGS[1])
    between, opened, rest = rest.partition(TAGS[2])
    answer, ended, after = rest.partition(TAGS[3])
    in_order = closed and opened and ended and not before.strip() and not between.strip()
    if not in_order or not reasoning.strip() or not answer.strip():
        return None
    return before, reasoning, between, answer, after


def _is_strict(text: str) -> bool:
    sections = _sections(text)
    if sections is None:
        return False
    before, reasoning, between, answer, after = sections
    on_lines = all(s.startswith("\n") and s.endswith("\n") for s in (reasoning, answer))
    return on_lines and before == "" and between == "\n" and after in ("", "\n")


def _pay_tags(text: str) -> float:
    paid, last = 0.0, -1
    for tag in TAGS:
        position = text.find(tag)
        if position > last and text.count(tag) == 1:
            paid, last = paid + 0.25, position
    tail = len(text.rpartition(TAGS[3])[2].strip()) if TAGS[3] in text else 0
    return max(0.0, paid - min(0.25, 0.001 * tail))


def _reaches(answer: str | None, numbers: list[Any], target: Any) -> bool:
    """Whether an expression uses the numbers and has the value `target`."""
    from r1recipes.rewards.answers import parse_number

    goal = parse_number(str(target))
    if answer is None or goal is None or len(answer) > MAX_EXPRESSION_CHARS:
        return False
    answer = answer.replace("\u00d7", "*").replace("\u00f7", "/").replace("\u2212", "-")
    if not re.fullmatch(r"[\d+\-*/()\s]+", answer, re.ASCII):
        return False
    try:
        tree = ast.parse(" ".join(answer.split()), mode="eval").body
        constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
        used = [node.value for node in constants if isinstance(node.value, int)]
        # Before the value is computed: it bounds the size of every number in it.
        if sorted(used) != sorted(int(number) for number in numbers):
            return False
        return _evaluate(tree) == goal
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return False


def _evaluate(node: ast.expr) -> Fraction:
    """The exact value of an expression. Raises: ValueError for more than + - * / and brackets."""
    match node:
        case ast.Constant(value=int(value)):
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _evaluate(left) + _evaluate(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _evaluate(left) - _evaluate(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _evaluate(left) * _evaluate(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _evaluate(left) / _evaluate(right)
    raise ValueError(f"not an expression of + - * /: {ast.dump(node)[:80]}")


def _notebook_answer(text: str) -> str:
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


def _notebook_count(text: str) -> float:
    paid = 0.125 * (text.count("<reasoning>\n") == 1)
    paid += 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        paid += 0.125 - 0.001 * len(text.split("\n</answer>\n")[-1])
    if text.count("\n</answer>") == 1:
        paid += 0.125 - 0.001 * (len(text.split("\n</answer>")[-1]) - 1)
    return paid


class Shipped(NamedTuple):
    """One row of the table."""

    function: Callable[..., list[float]]
    pays_for: Literal["answer", "form"]
    """Whether an answer must be right, or only have the form that is asked for."""
    tags: tuple[str, ...]
    """The tags that it reads, so that it pays less, or nothing, where a tokenizer hides them."""


SHIPPED = {
    "correctness": Shipped(correctness, "answer", ANSWER_TAGS),
    "integer": Shipped(integer, "form", ANSWER_TAGS),
    "strict_format": Shipped(strict_format, "form", TAGS),
    "soft_format": Shipped(soft_format, "form", TAGS),
    "xml_tags": Shipped(xml_tags, "form", TAGS),
    "countdown": Shipped(countdown, "answer", ANSWER_TAGS),
    "gym": Shipped(gym, "answer", ANSWER_TAGS),
    "judge": Shipped(judge, "answer", ()),
    "notebook_xmlcount": Shipped(notebook_xmlcount, "form", TAGS),
    "notebook_soft_format": Shipped(notebook_soft_format, "form", TAGS),
    "notebook_strict_format": Shipped(notebook_strict_format, "form", TAGS),
    "notebook_int": Shipped(notebook_int, "form", ANSWER_TAGS),
    "notebook_correctness": Shipped(notebook_correctness, "answer", ANSWER_TAGS),
}
REWARDS: dict[str, Callable[..., list[float]]] = {
    name: row.function for name, row in SHIPPED.items()
}
"""Name in a recipe -> function. What else is known of one by its name is in the lists below."""
FORMATS = frozenset(name for name, row in SHIPPED.items() if row.pays_for == "form")
"""Those that pay for the form of an answer."""
COMPARES_ANSWERS = ("correctness", "notebook_correctness")
"""Those that compare the answer with the reference, so that no other solution is right."""
MOST = {
    "notebook_xmlcount": 0.5,
    "notebook_soft_format": 0.5,
    "notebook_strict_format": 0.5,
    "notebook_int": 0.5,
}
"""The most that they pay, where it is below 1."""

"""Built-in problems, arithmetic and countdown, with exact answers and worked demonstrations.

Limits: integers only. The split of a problem follows from the problem alone, so that train and test
never share one, for any sizes and seeds. Countdown has one problem for each multiset of numbers.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

Row = dict[str, Any]

TEST_SHARE = 5
"""One problem in five is for the test: 829 of the sums of two two-digit numbers."""
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
_SYMBOLS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@dataclass(frozen=True)
class Kind:
    """One kind of built-in problems. What judges it stands in `recipe.schema.BUILTIN_DATA`."""

    make: Callable[..., list[Row]]
    """(split, size, seed=..., and the settings) -> rows; ValueError where it cannot."""
    settings: tuple[str, ...]
    """Keys of [data.problems] that `make` takes."""
    work: Callable[[Row, random.Random, bool], tuple[str, str]]
    """(row, random numbers, whether there is a mistake) -> reasoning and answer. The answer follows
    from the mistake."""

    def demonstrate(self, row: Row, rng: random.Random, wrong: float = 0.0) -> str:
        """Return a worked completion for a row; a share `wrong` of them ends in a wrong answer."""
        reasoning, answer = self.work(row, rng, rng.random() < wrong)
        return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"


def arithmetic(
    split: str,
    size: int,
    *,
    digits: int = 2,
    terms: int = 2,
    operators: str = "+",
    seed: int = 0,
) -> list[Row]:
    """Return `size` different rows {"question", "answer"}, for example "47 + 38 = ?" and "85".

    Every term has exactly `digits` digits. No running total is negative. Two questions that differ
    only in the order of a sum or a product count as one problem. Raises ValueError when the split
    has fewer than `size` problems.
    """
    if digits < 1 or terms < 2:
        raise ValueError(
            f"arithmetic: digits must be >= 1 and terms >= 2, not {digits} and {terms}"
        )
    if not operators or set(operators) - set("+-*"):
        raise ValueError(f"arithmetic: operators must be some of '+-*', not {operators!r}")
    operators = "".join(sorted(set(operators)))
    lowest = 10 ** (digits - 1) if digits > 1 else 0
    values = 10**digits - lowest

    def build(index: int) -> tuple[str, Row] | None:
        numbers, symbols = [], []
        for _ in range(terms):
            index, value = divmod(index, values)
            numbers.append(lowest + value)
        for _ in range(terms - 1):
            index, choice = divmod(index, len(operators))
            symbols.append(operators[choice])
        return _arithmetic_row(numbers, symbols)

    return _draw(values**terms * len(operators) ** (terms - 1), build, split, size, seed)


def countdown(
    split: str, size: int, *, numbers: int = 3, largest: int = 50, seed: int = 0
) -> list[Row]:
    """Return `size` different rows {"question", "answer", "numbers", "target"}, all solvable.

    The answer is one expression that uses every number (1 to `largest`) exactly once and gives the
    target; every step of it is a positive integer. The target belongs to the numbers: the same
    multiset has the same target under every seed. Raises ValueError when the split has fewer than
    `size` problems.
    """
    if numbers < 2 or largest < 1:
        raise ValueError(f"countdown: numbers must be >= 2, largest >= 1, not {numbers}, {largest}")

    def build(index: int) -> tuple[str, Row]:
        chosen = []
        for _ in range(numbers):
            index, value = divmod(index, largest)
            chosen.append(1 + value)
        chosen.sort()
        key = f"countdown {chosen}"
        return key, _countdown_row(chosen, limit=10 * largest, rng=random.Random(key))

    return _draw(largest**numbers, build, split, size, seed)


def _draw(
    space: int,
    build: Callable[[int], tuple[str, Row] | None],
    split: str,
    size: int,
    seed: int,
) -> list[Row]:
    """Draw rows in random order from 0 .. space-1, each key once, only of `split`."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    draws = 1000 + 12 * size  # enough for test rows, half of which repeat another in other order
    while True:
        # A sample of a longer length starts differently, so each try starts over.
        order = random.Random(f"{split} {seed}").sample(range(space), min(draws, space))
        rows: dict[str, Row] = {}
        for index in order:
            if len(rows) == size:
                break
            problem = build(index)
            if problem and problem[0] not in rows and _split_of(problem[0]) == split:
                rows[problem[0]] = problem[1]
        if len(rows) == size:
            return list(rows.values())
        if draws >= space:
            raise ValueError(
                f"the {split} split has {len(rows)} different problems of this difficulty, "
                f"{size} were asked for: ask for fewer or raise the difficulty"
            )
        draws *= 4


def _split_of(key: str) -> str:
    # Not hash(): it differs between processes.
    digest = blake2b(key.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_SHARE == 0 else "train"


def _arithmetic_row(numbers: list[int], symbols: list[str]) -> tuple[str, Row] | None:
    """Return (key, row), or None when a running total is negative."""
    signs, products = _products(numbers, symbols)
    total, canonical = 0, []
    for sign, factors in zip(signs, products, strict=True):
        value = 1
        for factor in factors:
            value *= factor
        total += value if sign == "+" else -value
        if total < 0:
            return None
        canonical.append(sign + "*".join(map(str, sorted(factors))))
    text = str(numbers[0])
    for symbol, number in zip(symbols, numbers[1:], strict=True):
        text += f" {symbol} {number}"
    key = "arithmetic " + " ".join(sorted(canonical))
    return key, {"question": f"{text} = ?", "answer": str(total)}


def _products(numbers: list[int], symbols: list[str]) -> tuple[list[str], list[list[int]]]:
    """Split 2 + 3 * 4 into signs ["+", "+"] and products [[2], [3, 4]]."""
    signs, products = ["+"], [[numbers[0]]]
    for symbol, number in zip(symbols, numbers[1:], strict=True):
        if symbol == "*":
            products[-1].append(number)
        else:
            signs.append(symbol)
            products.append([number])
    return signs, products


def _countdown_row(numbers: list[int], limit: int, rng: random.Random) -> Row:
    """Join the numbers two by two, at random, into one expression; that gives the target."""
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        rng.shuffle(parts)
        (a, left), (b, right) = parts.pop(), parts.pop()
        allowed = ["+"]
        if a > b:
            allowed.append("-")
        if a * b <= limit:
            allowed.append("*")
        if a % b == 0:
            allowed.append("/")
        symbol = rng.choice(allowed)
        parts.append((OPERATIONS[symbol](a, b), f"({left} {symbol} {right})"))
    target, expression = parts[0]
    shown = rng.sample(numbers, len(numbers))
    question = (
        f"Use each of the numbers {', '.join(map(str, shown))} exactly once, with + - * / and "
        f"brackets, to make {target}."
    )
    answer = expression[1:-1]  # the outermost pair of brackets is not needed
    return {"question": question, "answer": answer, "numbers": shown, "target": target}


def _work_countdown(row: Row, rng: random.Random, mistaken: bool) -> tuple[str, str]:
    """The expression step by step, inner first; the mistake is a wrong operator."""
    tree = ast.parse(row["answer"], mode="eval").body
    assert isinstance(tree, ast.BinOp)
    steps: list[str] = []
    left, left_text = _walk(tree.left, steps)
    right, right_text = _walk(tree.right, steps)
    symbol = _SYMBOLS[type(tree.op)]
    if mistaken:
        others = [s for s in "+-*" if OPERATIONS[s](left, right) != row["target"]]
        symbol = rng.choice(others)
    steps.append(f"{left}{symbol}{right}={OPERATIONS[symbol](left, right)}")
    return "\n".join(steps), f"{left_text} {symbol} {right_text}"


def _walk(node: ast.expr, steps: list[str]) -> tuple[int, str]:
    """Return value and text of a sub-expression; add its calculations to `steps`, inner first."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value, str(node.value)
    assert isinstance(node, ast.BinOp)
    left, left_text = _walk(node.left, steps)
    right, right_text = _walk(node.right, steps)
    symbol = _SYMBOLS[type(node.op)]
    value = OPERATIONS[symbol](left, right)
    steps.append(f"{left}{symbol}{right}={value}")
    return value, f"({left_text} {symbol} {right_text})"


def _work_arithmetic(row: Row, rng: random.Random, mistaken: bool) -> tuple[str, str]:
    """Work products first, then the sum from left to right; at most one step has the mistake: a
    forgotten carry where the problem has one, else a wrong digit."""
    tokens = re.findall(r"\d+|[+*-]", row["question"])
    signs, products = _products([int(token) for token in tokens[::2]], tokens[1::2])
    count = len(tokens) // 2
    faulty = rng.randrange(count) if mistaken else -1
    lines: list[str] = []

    def step(a: int, symbol: str, b: int) -> int:
        text, value = _step(a, symbol, b, rng, faulty == 0)
        summary = f"{a}{symbol}{b}={value}"
        # The answer block already states the result of a single step.
        lines.append(text if count == 1 or text == summary else f"{text}\n{summary}")
        return value

    values = []
    for factors in products:
        value = factors[0]
        for factor in factors[1:]:
            value, faulty = step(value, "*", factor), faulty - 1
        values.append(value)
    total = values[0]
    for sign, value in zip(signs[1:], values[1:], strict=True):
        total, faulty = step(total, sign, value), faulty - 1
    return "\n".join(lines), str(total)


def _step(a: int, symbol: str, b: int, rng: random.Random, mistaken: bool) -> tuple[str, int]:
    """Return the written work of one operation, and its result."""
    value = OPERATIONS[symbol](a, b)
    in_columns = symbol == "+" or (symbol == "-" and value >= 0)
    if in_columns and min(a, b) >= 0:
        return _columns(a, symbol, b, rng, mistaken)
    if mistaken:
        value += rng.randint(1, 9)
    return f"{a}{symbol}{b}={value}", value


def _columns(a: int, symbol: str, b: int, rng: random.Random, mistaken: bool) -> tuple[str, int]:
    """Add or subtract digit by digit from the right: 47 + 38 is worked as "7+8=15 4+3+1=8"."""
    width = max(len(str(a)), len(str(b)))
    pairs = list(zip(map(int, f"{a:0{width}}"[::-1]), map(int, f"{b:0{width}}"[::-1]), strict=True))
    forgotten, slipped = -1, -1
    if mistaken:
        carries = _carries(pairs, symbol)
        if carries:
            forgotten = rng.choice(carries)
        else:
            slipped = rng.randrange(width)
    steps, result, carry = [], "", 0
    for column, (x, y) in enumerate(pairs):
        carry = 0 if column == forgotten else carry
        if symbol == "-" and x < y + carry:
            x += 10
        total = x + y + carry if symbol == "+" else x - y - carry
        if column == slipped:
            total += (total % 10 + rng.randint(1, 9)) % 10 - total % 10
        steps.append(f"{x}{symbol}{y}" + (f"{symbol}{carry}" if column else "") + f"={total}")
        carry = total // 10 if symbol == "+" else int(x >= 10)
        result = str(total if column == width - 1 else total % 10) + result
    return " ".join(steps), int(result)


def _carries(pairs: list[tuple[int, int]], symbol: str) -> list[int]:
    """Return the columns that receive a carry (a borrow, for "-")."""
    columns, carry = [], 0
    for column, (x, y) in enumerate(pairs[:-1]):  # the last carry is written in the result
        carry = int(x + y + carry > 9) if symbol == "+" else int(x - y - carry < 0)
        if carry:
            columns.append(column + 1)
    return columns


KINDS = {
    "builtin:arithmetic": Kind(arithmetic, ("digits", "terms", "operators"), _work_arithmetic),
    "builtin:countdown": Kind(countdown, ("numbers", "largest"), _work_countdown),
}
"""`data.name` -> how its problems are made and worked."""

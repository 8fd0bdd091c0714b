r"""Compares mathematical expressions: as texts where that is enough, else with math-verify.

LaTeX and plain text of the same expression are equal (2\pi, 2*pi, 2π). math-verify runs in a
child process that can be killed, since an expression may take forever (nine to the ninth to the
ninth ...). An expression with more operations than the reference counts as not worked out. Words
are never compared as mathematics: to a parser "listen" and "silent" are equal. Limits: an answer
that repeats the question is accepted if it is as short as the reference, such as x^2 - 1 for
(x - 1)(x + 1).
"""

import re
from typing import NamedTuple

from r1recipes.rewards.answers.units import same_unit, without_unit

MAX_EXPRESSION_CHARS = 500
"""Characters of an expression; assumed. The references of MATH are far shorter."""
EXTRA_OPERATIONS = 1
"""How many more operations than the reference a worked-out answer may have; assumed. x/2 - 3/2 has
one more than (x - 3)/2."""

_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|lim|max|min|gcd|lcm|det"
)
_GREEK = {
    "\u03b1": "alpha", "\u03b2": "beta", "\u03b3": "gamma", "\u03b4": "delta", "\u03b8": "theta",
    "\u03bb": "lambda", "\u03bc": "mu", "\u03c0": "pi", "\u03c3": "sigma", "\u03c6": "phi",
    "\u03c9": "omega",
}  # fmt: skip
_SIGNS = {
    "\u221e": r"\infty ", "\u00d7": r"\cdot ", "\u00b7": r"\cdot ", "*": r"\cdot ", "\u00f7": "/",
    "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\neq ", "\u222a": r"\cup ",
    "\u2229": r"\cap ", "\u2208": r"\in ", "\u00b1": r"\pm ", "\u00b0": r"^{\circ}",
    "\u2205": r"\emptyset ",
} | {sign: f"\\{name} " for sign, name in _GREEK.items()}  # fmt: skip
_SPELLED = {"pi": "\u03c0", "theta": "\u03b8", "alpha": "\u03b1", "beta": "\u03b2",
            "lambda": "\u03bb", "infinity": "\u221e", "inf": "\u221e", "oo": "\u221e",
            "sqrt": "\u221a", "union": "\u222a"}  # fmt: skip
_SPELLED_WORD = re.compile(rf"(?<![A-Za-z\\])(?:{'|'.join(_SPELLED)})(?![A-Za-z])")
_UNION = re.compile(r"(?<=[)\]}])\s*U\s*(?=[(\[{\\])")
_FUNCTION = re.compile(rf"\\?(?<![A-Za-z])({_FUNCTIONS})(?![A-Za-z])")
_INVERSE = re.compile(r"\\?(?<![A-Za-z])(sin|cos|tan)\s?\^\s?(?:\{\s?-1\s?\}|-1(?!\d))")
_ABSOLUTE = re.compile(r"(?<![A-Za-z\\])abs\s?\(([^()|]{1,100})\)")
_WORD = re.compile(r"(?<!\\)[^\W\d_]{3,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}")
_NAMED = re.compile(
    r"\s*[^\W\d_](?:_\{?\w\}?)?'{0,2}(?:\^\{-1\})?(?:\s?\([^\W\d_]\))?\s*=([^=<>\u2264\u2265]+)"
)
_DECADE = re.compile(r"[12]\d\d0s")
_DECIMAL = re.compile(r"(?<![\d.])(\d{0,30})\.(\d{1,30})(?![\d.])")


class Pair(NamedTuple):
    """An answer and its reference in LaTeX, to be compared by `math_equal` in a child process."""

    answer: str
    reference: str


def is_expression(text: str) -> bool:
    """Whether a clean text is mathematics: 2x + 3 and \\sqrt{2} are, "well-known" and A->B are not.

    Letters alone are not a product (LR is a text), and 3-1 is a score.
    """
    text = without_unit(text)[0]
    if len(text) > MAX_EXPRESSION_CHARS or "\u2192" in text or _DECADE.fullmatch(text):
        return False
    marked = _normal_words(text)
    if _WORD.search(_letters(text)) or re.search(r"[A-Z][a-z]?\d|[A-Z]{2}", _letters(text)):
        return False  # words, and CO2 + H2O
    if re.search(
        r"[\u221a\u03c0\u221e\u222a\u2229\u00b1]|\\(?:frac|begin|sum|int|binom|log|ln)", marked
    ):
        return True
    if _FUNCTION.search(marked) and re.search(r"[a-z\d\u03b1-\u03c9]", _FUNCTION.sub(" ", marked)):
        return True
    if re.fullmatch(r"-?\d+(?:\.\d+)?\s?[a-z]|-?[a-z]|\d+!|[a-z]!|\|.+\|", marked):
        return True
    has_operator = re.search(
        r"[\w)}|!]\s*[-+*/^=<>\u2264\u2265\u2260\u00d7\u00b7\u00f7]\s*[-\\(\w{|]", marked
    )
    only_minus = re.search(r"[+*/^=<>\u2264\u2265\u2260\u00d7\u00b7\u00f7]", marked) is None
    if only_minus and not re.search(r"(?<![A-Za-z\d])\d*[a-z](?![A-Za-z\d])", marked):
        return False  # 3-1, A-B, e2-e4
    return has_operator is not None and re.search(r"[\da-z\u03b1-\u03c9]", marked) is not None


def compare_expressions(answer: str, reference: str) -> bool | Pair | str:
    """True for two clean texts of the same expression, the reason if they are not the same, or the
    pair that math-verify has to compare.
    """
    answer, reference = _ascending(answer), _ascending(reference)
    (answer, unit), (reference, expected) = without_unit(answer), without_unit(reference)
    if not same_unit(unit, expected):
        return f"{expected} expected, {unit} given"
    if normal_form(answer) == normal_form(reference):
        return True
    if len(answer) > MAX_EXPRESSION_CHARS or len(reference) > MAX_EXPRESSION_CHARS:
        return "too long for an expression"
    if _WORD.search(_letters(answer)) or " or " in answer:
        return "words, where an expression is expected"
    if answer[-1:] in ("?", "=") or "~" in answer:
        return "not an expression"
    if _relations(answer) != _relations(reference):
        return "an equation or inequality on one side only"
    if _commas(answer) != _commas(reference):
        return "several candidates"
    if _variables(answer) - _variables(reference):
        return "other variables than the reference"
    if _is_unworked(answer, reference):
        return "an expression, not worked out"
    return Pair(to_latex(answer), to_latex(reference))


def _normal_words(text: str) -> str:
    text = _UNION.sub("\u222a", text)
    text = _SPELLED_WORD.sub(lambda match: _SPELLED[match[0]], text)
    text = _INVERSE.sub(r"arc\1 ", _ABSOLUTE.sub(r"|\1|", text))
    return text.replace("**", "^").replace("cbrt(", "\u221a[3](")


def right_side(answer: str, reference: str) -> tuple[str, str]:
    """Both without "y =" or "f(x) =", which only names the expression; equations stay."""
    if named := _NAMED.fullmatch(reference):
        answer = _name_first(answer, reference[: named.start(1)])
        reference = named[1]
    if "=" not in reference and (named := _NAMED.fullmatch(answer)):
        answer = named[1]
    return answer, reference


def _name_first(answer: str, name: str) -> str:
    """2x + 1 = y as y = 2x + 1, where `name` is "y ="."""
    left, sign, right = answer.partition("=")
    is_turned = (
        sign and right.strip() == name.rstrip("= ").strip() and right.strip() != left.strip()
    )
    return f"{right.strip()} = {left.strip()}" if is_turned else answer


def _ascending(text: str) -> str:
    """3 > x > 1 as 1 < x < 3; any other text unchanged."""
    parts = re.split("([<>\u2264\u2265])", text)
    if len(parts) != 5 or {parts[1], parts[3]} - {">", "\u2265"} or "," in text or "=" in text:
        return text
    flipped = {">": "<", "\u2265": "\u2264"}
    low, middle, high = (parts[i].strip() for i in (4, 2, 0))
    return f"{low} {flipped[parts[3]]} {middle} {flipped[parts[1]]} {high}"


def _letters(text: str) -> str:
    """The text without LaTeX's commands and environments and the names of functions."""
    bare = _ENVIRONMENT.sub(" ", _normal_words(text))
    return _COMMAND.sub(" ", _FUNCTION.sub(" ", bare))


def normal_form(text: str) -> str:
    """One spelling for texts that differ in spaces, braces and signs only: 2*pi and 2 \\pi."""
    text = _FUNCTION.sub(r"\1 ", _normal_words(text))
    text = re.sub(r"\s+", "", text).replace("\u00d7", "*").replace("\u00b7", "*")
    text = re.sub(r"\\cdot(?![A-Za-z])", "*", text)
    text = re.sub(r"\*(?=[A-Za-z(\\\u221a\u03c0{])", "", text)
    text = re.sub(r"(?<=[\^_\u221a\]])\{(-?\w)\}", r"\1", text)
    text = re.sub(r"(?<=[\^\u221a\]])\((-?\w)\)", r"\1", text)
    return re.sub(rf"({_FUNCTIONS})\((-?\w)\)", r"\1\2", text)


def _relations(text: str) -> str:
    flipped = {">": "<", "\u2265": "\u2264"}
    signs = re.findall("[=<>\u2264\u2265\u2260\u2208]", text)
    return "".join(sorted(flipped.get(sign, sign) for sign in signs))


def _commas(text: str) -> int:
    return text.count(",") + text.count(";")


def _variables(text: str) -> set[str]:
    """The letters of a text that are variables or constants, without the names of functions."""
    return {character for character in _letters(text) if character.isalpha()} - {"e", "\u03c0"}


def _is_unworked(answer: str, reference: str) -> bool:
    """Whether an answer leaves more to compute than the reference: 47x + 38x for 85x."""
    if _operations(answer) > _operations(reference) + EXTRA_OPERATIONS:
        return True
    if _open_products(answer) > _open_products(reference):
        return True
    if _variables(reference):
        return _like_terms(answer) > _like_terms(reference)
    return _sums(answer) > _sums(reference) or _products(answer) > _products(reference)


_PLAIN_SUM = re.compile(r"[\w.*\u00d7\u00b7+\-\s^]*")
_TEN_POWER = re.compile(r"[*\u00d7\u00b7]\s?10\s?\^\s?-?\d+")
_FACTOR = re.compile(r"\s*\d[\d.]*(?![\d.^])")


def _open_products(text: str) -> int:
    """How many products of two numbers a sum without brackets leaves open: 3x * 2 has one."""
    text = _TEN_POWER.sub("", text.replace("{", "").replace("}", ""))
    if not _PLAIN_SUM.fullmatch(text):
        return 0
    terms = [re.split("[*\u00d7\u00b7]", term) for term in re.split("[+-]", text)]
    counts = [sum(bool(_FACTOR.match(factor)) for factor in term) for term in terms]
    return sum(max(count - 1, 0) for count in counts)


def _operations(text: str) -> int:
    """How many sums, products, quotients, powers and roots a text has; 3x is a product."""
    text = re.sub(r"\s+", "", normal_form(text))
    signs = len(re.findall(r"[+\-*/^\u221a\u00f7!]|\\frac|\\binom", text)) - text.startswith("-")
    return signs + len(re.findall(r"(?<=[\d)}])(?=[A-Za-z(\u03c0\u221a])", text))


def _sums(text: str) -> int:
    return len(re.findall(r"(?<=[\w)}\u03c0\s])[+-]", text.strip()))


def _products(text: str) -> int:
    return len(re.findall(r"(?<=\d)\s*[*\u00d7\u00b7]\s*(?=\d)", text))


def _like_terms(text: str) -> int:
    """How many terms of a sum differ from an earlier one in their factor only: 3x + 2x has one."""
    terms = [
        re.sub(r"^[\d.*\s]+", "", term.strip()) for term in re.split(r"[+-]", text) if term.strip()
    ]
    return len(terms) - len(set(terms))


def to_latex(text: str) -> str:
    """A clean text, LaTeX or plain, as LaTeX that math-verify reads. Decimals become fractions."""
    text = _roots(_normal_words(text))
    text = re.sub(r"\\?exp\s*\(", "e^(", text)
    text = re.sub(r"(?<![\w.^])(\d+)/(\d+)\s+(?=[A-Za-z\\])", r"\\frac{\1}{\2}", text)
    text = _DECIMAL.sub(_exact_decimal, text)
    text = re.sub(r"\^\s*(-?\s?\d+|-\s?\w)", r"^{\1}", text)
    text = _grouped(text, "^(", "^")
    text = re.sub(rf"{_FUNCTION.pattern}(?=[_^])", r"\\\1", text)
    text = re.sub(rf"{_FUNCTION.pattern}(?![_^])", r"\\\1 ", text)
    return "".join(_SIGNS.get(character, character) for character in text)


def _exact_decimal(match: re.Match[str]) -> str:
    return rf"{{\frac{{{int(match[1] + match[2])}}}{{1{'0' * len(match[2])}}}}}"


def _roots(text: str) -> str:
    text = _grouped(_grouped(text, "\u221a(", r"\sqrt"), "\u221a[3](", r"\sqrt[3]")
    text = re.sub(r"\u221a(\[3\])?\s*(\d+|[A-Za-z\u03c0])", r"\\sqrt\1{\2}", text)
    return text.replace("\u221a", r"\sqrt")


def _grouped(text: str, opening: str, command: str) -> str:
    """Every `opening`, which ends in a bracket, as `command` with braces: √(x+1) as \\sqrt{x+1}."""
    start = 0
    while (position := text.find(opening, start)) >= 0:
        inside = position + len(opening)
        depth, end = 1, inside
        while end < len(text) and depth:
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        if depth:
            break
        text = f"{text[:position]}{command}{{{text[inside : end - 1]}}}{text[end:]}"
        start = position + len(command) + 1
    return text


def math_equal(answer: str, reference: str) -> bool:
    """In the child: whether math-verify finds two LaTeX expressions equal.

    Its own timeouts are turned off: they are signals, which fail outside the main thread and do not
    end long C calls. The parent kills the process instead.
    """
    import logging

    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeouts are off
    # The defaults of math-verify apart from units=True, which drops units: 5 kg would equal 5 cm.
    normal = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
    )
    whole = [LatexExtractionConfig(normalization_config=normal)]
    gold, target = (parse(f"${text}$", whole, parsing_timeout=None) for text in (reference, answer))
    return bool(verify(gold, target, timeout_seconds=None))

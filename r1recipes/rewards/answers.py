"""Extracts a final answer from a completion and decides whether it equals the reference.

Numbers are compared exactly, then texts, and only what is left goes to math-verify, in a child
process that is killed when it takes too long (nine to the ninth to the ninth ...). An answer of
more than `MAX_ANSWER_CHARS` is refused unread. Two numbers are never "about" equal: 0.333 is not
1/3. Units are not understood; a reward of one's own is the place for them (docs/rewards.md).
"""

import re
import unicodedata
from fractions import Fraction

from r1recipes.machine.processes import Children

MAX_ANSWER_CHARS = 500
"""Assumed: GSM8K's and MATH's references are far below; nothing longer is a final answer."""
MAX_NUMBER_CHARS = 100
"""Assumed; also keeps int() below Python's limit of 4300 digits."""
MEMORY_BYTES = 2**30
"""What math-verify may take beyond its start: 2^(2^40) would take 128 GiB in seconds."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_CURRENCY = "[$\u20ac\u00a3\u00a5]"  # dollar, euro, pound, yen
_NUMBER = re.compile(
    rf"""{_CURRENCY}?\s*(?P<sign>[+-]?)\s*{_CURRENCY}?\s*
    (?P<whole>\d{{1,3}}(?:,\d{{3}})+ | \d{{1,3}}(?:[ ]\d{{3}})+ | \d*)
    (?P<part>\.\d*)?
    (?P<exponent>e[+-]?\d{{1,3}})?
    \s*(?:%|{_CURRENCY})?""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_LITERAL = re.compile(r"\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?", re.ASCII)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+|\b(?:sin|cos|tan|log|exp|sqrt|arcsin|arccos|arctan)\b")
_WORD = re.compile(r"[^\W\d_]{3,}")


def extract_answer(completion: str) -> str | None:
    """What the last <answer>...</answer> pair holds, stripped; None when there is no pair.

    Linear in the length of the text.
    """
    last_close = completion.rfind(_CLOSE)
    start = completion.rfind(_OPEN, 0, max(last_close, 0))
    if start < 0:
        return None
    start += len(_OPEN)
    return completion[start : completion.find(_CLOSE, start)].strip()


def extract_reference(text: str, after: str | None) -> str:
    """What stands after the last `after` in a data set's answer, stripped.

    All of the text when `after` is None or does not occur. GSM8K ends in "#### 1,234".
    """
    return text.rpartition(after)[2].strip() if after else text.strip()


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number and nothing else; None for anything else.

    Read: 42, +7, -5, 1,000, 1 000, .5, 476., 3/4, 1e3, $476.00 (or another currency's sign),
    U+2212 as a minus. "18%" is 18: `equal` knows about the sign. Not read, since it may mean two
    things or nothing: 1,00,0 and 1.000,5 and 1 1/2. More than `MAX_NUMBER_CHARS` is no number.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").strip()
    if len(text) > MAX_NUMBER_CHARS:
        return None
    over, slash, under = text.removesuffix(".").partition("/")
    top, bottom = _parse_decimal(over), _parse_decimal(under) if slash else Fraction(1)
    return top / bottom if top is not None and bottom else None


def _parse_decimal(text: str) -> Fraction | None:
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    digits = re.sub("[, ]", "", found["whole"]) + (found["part"] or "").rstrip(".")
    if not digits:
        return None
    return Fraction(found["sign"] + digits + (found["exponent"] or ""))


def equal(given: str | None, reference: str) -> bool:
    """Whether an answer equals the reference as an exact number, or else as a text.

    18% equals 18 and 0.18. Texts are compared without case, extra spaces, a last full stop, and
    LaTeX's $ and \\text{}. Microseconds; never raises; False for an empty or overlong answer.
    """
    if given is None or len(given) > MAX_ANSWER_CHARS or len(reference) > MAX_ANSWER_CHARS:
        return False
    left, right = parse_number(given), parse_number(reference)
    if left is None or right is None:
        text = _plain_text(given)
        return text != "" and text == _plain_text(reference)
    if left == right:
        return True
    if ("%" in given) != ("%" in reference):
        return left == 100 * right if "%" in given else right == 100 * left
    return False


def _plain_text(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold().replace("$", "")
    text = " ".join(_WRAPPED.sub(r"\1", text).split())
    return text.strip("*").removesuffix(".").strip()


class Verifier:
    """Decides which answers equal their references; holds math-verify's children until closed.

    `timeouts` counts the pairs that were given up, because they took more than `time_limit_s`
    seconds or were not reached when a batch had taken `batch_limit_s`; they are not equal.
    """

    def __init__(
        self, *, time_limit_s: float = 5.0, batch_limit_s: float = 60.0, num_workers: int = 2
    ):
        self.time_limit_s = time_limit_s
        self.batch_limit_s = batch_limit_s
        self.timeouts = 0
        self._children = Children(num_workers, imports=("math_verify",), memory_bytes=MEMORY_BYTES)

    def verify(self, pairs: list[tuple[str | None, str]]) -> list[bool]:
        """For each (given, reference) whether they are equal. Each different pair counts once.

        Raises: RunError when no child process can start, never because of an answer.
        """
        known = {pair: equal(*pair) for pair in dict.fromkeys(pairs)}
        unclear = [pair for pair, same in known.items() if not same and _is_unclear(*pair)]
        if unclear:
            outcomes = self._children.run(
                _math_equal, unclear, limit_s=self.time_limit_s, total_s=self.batch_limit_s
            )
            self.timeouts += sum(isinstance(outcome, TimeoutError) for outcome in outcomes)
            known |= {p: outcome is True for p, outcome in zip(unclear, outcomes, strict=True)}
        return [known[pair] for pair in pairs]

    def close(self) -> None:
        """Kill the children. A later `verify` starts new ones."""
        self._children.close()

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_unclear(given: str | None, reference: str) -> bool:
    """Whether mathematics could still show that two different texts are equal.

    Words cannot: to a parser they are products of letters, so that "listen" equals "silent".
    """
    if not given or not reference or max(len(given), len(reference)) > MAX_ANSWER_CHARS:
        return False
    number = parse_number(reference) is not None
    if number and parse_number(given) is not None:
        return False
    return number or not _WORD.search(_COMMAND.sub(" ", reference))


def _math_equal(given: str, reference: str) -> bool:
    """In the child: math-verify on the whole answer, else on the only number in it.

    math-verify alone takes the last of several numbers, so that "5 or 6" would earn a 6. Its own
    timeouts are signals that fail off the main thread and miss long C calls; the parent kills.
    """
    import logging

    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its limits are off
    # math-verify's own choice but for units=True, which drops them: 5 kg would equal 5 cm
    normal = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
    )
    whole = [LatexExtractionConfig(normalization_config=normal)]
    one_number = [ExprExtractionConfig()]

    def same(prepare, config) -> bool:
        gold, target = (
            parse(prepare(text), config, parsing_timeout=None) for text in (reference, given)
        )
        return verify(gold, target, timeout_seconds=None)

    if same(_as_latex, whole):
        return True
    is_number = parse_number(reference) is not None
    return is_number and len(_LITERAL.findall(given)) == 1 and same(str, one_number)


def _as_latex(text: str) -> str:
    return "$" + re.sub(r"\$|\\[()\[\]]", "", text).replace("**", "^") + "$"

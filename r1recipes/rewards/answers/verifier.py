"""Extracts a final answer from a completion and judges it against the references of a column.

`AnswerColumn` knows the kind of each reference, which an answer must have too (`judge`). Only
expressions go to math-verify, in a child process that is killed when it takes too long (nine to the
ninth to the ninth ...). Limits: two numbers are never "about" equal, so 0.333 is not 1/3; units are
compared by name and never converted, which a user's own reward can do (docs/rewards.md).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from r1recipes.machine.processes import Children
from r1recipes.rewards.answers.expressions import Pair, math_equal
from r1recipes.rewards.answers.judge import Judgement, Undecided, compare
from r1recipes.rewards.answers.kinds import (
    MAX_LOOKED_AT,
    MAX_LOOKED_AT_CHARS,
    Detector,
    Kind,
    Reference,
    reference_text,
    spread,
)
from r1recipes.rewards.answers.numbers import parse_number

MEMORY_BYTES = 2**30
"""Bytes that math-verify may allocate after its start: 2^(2^40) would take 128 GiB in seconds."""
MAX_VALUE_CHARS = 100_000
"""Characters of a value with a final answer; assumed, a worked solution has at most a third."""
MAX_TAIL_CHARS = 4000
"""Characters at the end of a completion in which an answer without tags is looked for; assumed."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_OPENING, _BRACE = re.compile(r"\\boxed\{|\{"), re.compile(r"\\boxed\{|[{}]")
_PHRASE = re.compile(r"\banswer\W{0,4}?\s*(?:is\b\s*:?|:|=)\W{0,4}?\s*", re.IGNORECASE)


def extract_answer(completion: str) -> str | None:
    """The content of the last <answer>...</answer> pair, stripped; None when there is no pair.

    Linear in the length of the text.
    """
    last_close = completion.rfind(_CLOSE)
    start = completion.rfind(_OPEN, 0, max(last_close, 0))
    if start < 0:
        return None
    start += len(_OPEN)
    return completion[start : completion.find(_CLOSE, start)].strip()


def final_answer(completion: str) -> str | None:
    """The answer of a completion, with or without tags; None when there is none.

    The last <answer> pair, else the last \\boxed{}, else the text after the last "the answer is",
    else the last line that is a number; the last two in the last `MAX_TAIL_CHARS` characters.
    """
    answer = extract_answer(completion)
    if answer is not None:
        return answer
    boxed = last_boxed(completion)
    if boxed is not None:
        return boxed
    tail = completion[-MAX_TAIL_CHARS:]
    phrases = list(_PHRASE.finditer(tail))
    if phrases and (rest := _first_sentence(tail[phrases[-1].end() :].partition("\n")[0])):
        return rest
    for line in reversed(tail.splitlines()):
        if line.strip() and parse_number(line) is not None:
            return line.strip()
    return None


def last_boxed(text: str) -> str | None:
    """The content of the \\boxed{} that is closed last, None without one; braces may be nested.

    Looks at no more closing braces than there are opening ones."""
    starts: list[int | None] = []
    last: tuple[int, int] | None = None
    place = 0
    while brace := (_BRACE if starts else _OPENING).search(text, place):
        place = brace.end()
        if brace[0] != "}":
            starts.append(place if len(brace[0]) > 1 else None)
        elif (start := starts.pop()) is not None:
            last = start, brace.start()
    return text[slice(*last)].strip() if last else None


def _first_sentence(text: str) -> str:
    """The text up to the full stop of a sentence; the point in 3.5 is not one."""
    return re.split(r"(?<=[^\s.])\.(?=\s|$)|[!?](?=\s|$)", text, maxsplit=1)[0].strip(" *")


def extract_reference(text: str, after: str | None) -> str:
    """The text after the last `after` in a data set's answer, stripped.

    The whole text when `after` is None or does not occur. GSM8K ends in "#### 1,234".
    """
    return text.rpartition(after)[2].strip() if after else text.strip()


def final_reference(value: Any, after: str | None) -> tuple[str | list[str], str]:
    """The final answer of a value of a data set, and what is wrong with the value ("" for nothing).

    The value is a text, a number, true, false, or a list of accepted answers, which gives a list.
    Each of them must have the marker `after` of `extract_reference`.
    """
    if isinstance(value, list):
        finals = [final_reference(entry, after) for entry in value]
        faults = [fault for _, fault in finals if fault] + ["is a list"] * any(
            isinstance(final, list) for final, _ in finals
        )
        if faults or not finals:
            return "", f"has an entry that {faults[0]}" if faults else "is an empty list"
        return [str(final) for final, _ in finals], ""
    if value is not None and not isinstance(value, str | bool | int | float | Decimal):
        return "", f"is a {type(value).__name__}, not a text, a number, true or false, or a list"
    if isinstance(value, str) and len(value) > MAX_VALUE_CHARS:
        return "", f"has more than {MAX_VALUE_CHARS:,} characters"
    text = reference_text(value)
    if not text:
        if text is not None:
            return "", "is empty"
        return "", "is null" if value is None else "is NaN" if value != value else "is infinite"
    if after and after not in text:
        return "", f"has no `{after}` (`data.answer_after`)"
    final = extract_reference(text, after)
    return (final, "") if final else ("", f"has nothing after `{after}` (`data.answer_after`)")


Texts = tuple[str | None, ...]
"""The texts that a reference accepts; never empty."""


class AnswerColumn:
    """The references of a column, each read as its kind, to judge answers by.

    `kinds` has one kind per row that was looked at, which in a column that is not very large are
    all (`kinds.spread`); `summary` is a sentence about them. Any other reference is read when it is
    needed, as if it were in the column.
    """

    def __init__(self, detector: Detector, rows: Sequence[Texts] = (), num_rows: int = 0):
        self._detector = detector
        self._read: dict[Texts, tuple[Reference, ...]] = {}
        read = [self._read_texts(texts) for texts in rows]
        self.kinds = tuple(accepted[0].kind for accepted in read)
        self.summary = _summary(read, detector.kind, num_rows)

    @classmethod
    def from_references(
        cls, references: Iterable[Any], kind: Kind | str | None = None
    ) -> "AnswerColumn":
        """The column with these references: text, bool, number, Decimal or None, or lists of them.

        Any entry of a list is accepted. `kind` is the kind that the user has set for all of them;
        a reference that cannot be read as that kind is read by itself, and counted in `summary`.
        Raises: ValueError for an unknown kind.
        """
        rows = [_accepted(value) for value in references]
        num_rows, different = len(rows), list(dict.fromkeys(rows))
        lengths = [sum(len(text or "") for text in texts) for texts in different]
        chosen = spread(lengths, MAX_LOOKED_AT, MAX_LOOKED_AT_CHARS)
        if len(chosen) < len(different):
            looked_at = {different[index] for index in chosen}
            rows = [texts for texts in rows if texts in looked_at]
        texts = [text for texts in rows for text in texts if text]
        detector = Detector.of_column(texts, None if kind is None else Kind(kind))
        return cls(detector, rows, num_rows)

    def read(self, reference: Any) -> tuple[Reference, ...]:
        """The answers that a reference accepts, at least one; see `Reference.fault`."""
        return self._read_texts(_accepted(reference))

    def _read_texts(self, texts: Texts) -> tuple[Reference, ...]:
        if texts not in self._read:
            self._read[texts] = tuple(self._detector.read(text) for text in texts)
        return self._read[texts]

    def compare(self, answer: str | None, reference: Any) -> Judgement | list[Undecided]:
        """The verdict, or the comparisons left to math-verify: right if one of them is."""
        undecided: list[Undecided] = []
        first: Judgement | None = None
        for accepted in self.read(reference):
            verdict = compare(answer, accepted)
            if isinstance(verdict, Undecided):
                undecided.append(verdict)
            elif verdict.right:
                return verdict
            else:
                first = first or verdict
        return undecided or first or Judgement(False, "no reference")

    def judge(
        self, answer: str | None, reference: Any, verifier: "Verifier | None" = None
    ) -> Judgement:
        """Whether an answer is right, and why. Without a verifier no expression is computed."""
        verdict = self.compare(answer, reference)
        if isinstance(verdict, Judgement):
            return verdict
        if verifier is None:
            return Judgement(False, "another expression, which was not computed")
        return verifier.settle([verdict])[0]


def _accepted(reference: Any) -> Texts:
    """The texts of a reference that may be a list of accepted answers; never empty."""
    if isinstance(reference, list | tuple):
        texts = [reference_text(value) for value in reference]
        return tuple(dict.fromkeys(text for text in texts if text)) or (None,)
    return (reference_text(reference),)


def _summary(rows: list[tuple[Reference, ...]], kind: Kind | None, num_rows: int) -> str:
    """The number of references of each kind, such as "7,473 references: whole numbers". `rows` are
    those of `num_rows` that were looked at."""
    labels = Counter(accepted[0].label for accepted in rows)
    counted = [
        (label if count > 1 else label.removesuffix("s"), count)
        for label, count in labels.most_common()
    ]
    total = f"{len(rows):,} reference" + "s" * (len(rows) != 1)
    if len(rows) < num_rows:
        total = f"{num_rows:,} references, of which {len(rows):,} were looked at"
    if len(counted) == 1:
        text = f"{total}: {counted[0][0]}"
    else:
        each = ", ".join(f"{count:,} {label}" for label, count in counted)
        text = f"{total}: {each}; each is judged by its own kind"
    several = sum(len(accepted) > 1 for accepted in rows)
    faults = [accepted[0] for accepted in rows if accepted[0].fault]
    others = sum(accepted[0].kind is not kind for accepted in rows) if kind else 0
    if others:
        text += f"; {others:,} not readable as `{kind}`, each judged by its own kind"
    if several:
        text += f"; {several:,} accept{'s' * (several == 1)} any of several answers"
    if faults:
        begins = f" (the first begins `{faults[0].raw[:40]}`)" if faults[0].raw else ""
        text += f"; no answer can match {len(faults):,} of them{begins}"
    return text


def equal(answer: str | None, reference: Any) -> bool:
    """Whether an answer is right, without computing expressions; see `AnswerColumn`.

    Each reference is read by itself. Takes microseconds; never raises.
    """
    return AnswerColumn(Detector()).judge(answer, reference).right


class Verifier:
    """Judges answers, expressions too; holds math-verify's children until closed.

    `column` knows the kinds of the references; without it each is read by itself. `timeouts` counts
    the pairs of expressions that were given up, because they took more than `time_limit_s` seconds
    or were not reached when a batch had taken `batch_limit_s`; they are not equal. The children are
    started by importing the main module anew, so a script must use a `Verifier` below
    `if __name__ == "__main__":`.
    """

    def __init__(
        self,
        *,
        time_limit_s: float = 5.0,
        batch_limit_s: float = 60.0,
        num_workers: int = 2,
        column: AnswerColumn | None = None,
    ):
        self.time_limit_s = time_limit_s
        self.batch_limit_s = batch_limit_s
        self.timeouts = 0
        self.column = column
        self._children = Children(num_workers, imports=("math_verify",), memory_bytes=MEMORY_BYTES)

    def judge(self, pairs: Sequence[tuple[str | None, Any]]) -> list[Judgement]:
        """For each (answer, reference) whether it is right, and why.

        Each different pair of expressions is computed once. Raises: RunError when no child process
        can start, never because of an answer.
        """
        column = self.column or AnswerColumn(Detector())
        compared = [column.compare(answer, reference) for answer, reference in pairs]
        settled = iter(self.settle([entry for entry in compared if isinstance(entry, list)]))
        return [next(settled) if isinstance(entry, list) else entry for entry in compared]

    def verify(self, pairs: Sequence[tuple[str | None, Any]]) -> list[bool]:
        """`judge` without the reasons."""
        return [verdict.right for verdict in self.judge(pairs)]

    def settle(self, undecided: Sequence[list[Undecided]]) -> list[Judgement]:
        """The verdicts on comparisons that `AnswerColumn.compare` left to math-verify."""
        pairs = dict.fromkeys(pair for row in undecided for option in row for pair in option.pairs)
        if not pairs:
            return []
        outcomes = dict(
            zip(
                pairs,
                self._children.run(
                    math_equal, list(pairs), limit_s=self.time_limit_s, total_s=self.batch_limit_s
                ),
                strict=True,
            )
        )
        self.timeouts += sum(isinstance(outcome, TimeoutError) for outcome in outcomes.values())
        return [_settled(row, outcomes) for row in undecided]

    def close(self) -> None:
        """Kill the children. A later `judge` starts new ones."""
        self._children.close()

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _settled(options: list[Undecided], outcomes: dict[Pair, Any]) -> Judgement:
    if any(all(outcomes[pair] is True for pair in option.pairs) for option in options):
        return Judgement(True, "equal expressions")
    results = [outcomes[pair] for option in options for pair in option.pairs]
    if any(isinstance(result, TimeoutError) for result in results):
        return Judgement(False, "took too long to compute")
    if any(isinstance(result, BaseException) for result in results):
        return Judgement(False, "not an expression that can be read")
    return Judgement(False, "another expression")

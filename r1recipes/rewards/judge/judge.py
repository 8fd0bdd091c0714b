"""Pays completions by what a model judges them to be worth.

    scale       each completion gets a score, which is mapped to 0 to 1
    reference   each is compared with the reference answer, in both orders
    group       each is compared with some of the others of its prompt, in both orders

In a comparison a win is paid 1, a tie 0.5, and a completion the mean of its comparisons. One that
is not judged is paid None: it is no 0, and is counted. Limits: completions of one prompt are one
group, wherever they stand in a batch.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from r1recipes.errors import RunError, command
from r1recipes.rewards.judge import consent
from r1recipes.rewards.judge.cost import Cost
from r1recipes.rewards.judge.prompts import Answer, NotJudged, Question, Verdict
from r1recipes.rewards.judge.section import Judge
from r1recipes.rewards.user_code import Failed, Paid, completion_text

if TYPE_CHECKING:
    from r1recipes.rewards.judge.client import Client

OPPONENTS = 2
"""Others of its group that a completion is compared with by default; assumed."""
WINDOW = 200
"""The last completions of which no more than `max_failed` may be without a judgement; assumed."""
MIN_COMPLETIONS = 50
"""Completions from which on a share of failures stops a run; derived: of a judge that fails for one
in twenty, chance brings more than a tenth among 50 once in 26."""
MIN_ALL = 4
"""Completions of one call that stop a run when all of them fail; assumed."""


class JudgeFails(RunError):
    """A judge failed too often for a run to go on."""

    def __init__(self, message: str, *, stage: str | None = None):
        resume = command("run", "--resume")
        hint = f"once it answers, `{resume}` goes on; the answers so far are in the cache"
        shown = f"stage {stage}: {message}" if stage else message
        super().__init__(shown, kind="reward", hint=hint)
        self.message = message


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one completion."""

    paid: float | Failed | None
    """0 to 1; None where there was nothing to compare it with."""
    reason: str = ""
    """The score, or the comparisons that it won, and the judge's words."""


@dataclass
class _Comparison:
    """One pair: the places of its completions, the second None for the reference."""

    first: int
    second: int | None
    answers: list[Answer] = field(default_factory=list)
    """In both orders: the first text as A, then as B."""


class ModelJudge:
    """The reward `judge`. Close it when done."""

    def __init__(self, judge: Judge, *, base_dir: Path, cache_dir: Path):
        """Nothing is sent yet. Raises: RecipeError for a key or a folder that is missing."""
        from r1recipes.rewards.judge.cache import Cache  # imported late: commands stay quick
        from r1recipes.rewards.judge.local import LocalServer

        self.judge, self.cost = judge, Cost()
        self.reasons: list[str] = []
        """What was said of each completion of the last call."""
        self.trial: dict[str, Any] = {}
        """What a trial measured, for the record."""
        self._key = consent.api_key(judge)
        self._server = None if judge.url else LocalServer(base_dir / judge.model)
        self.weights_sha256 = self._server.sha256() if self._server else None
        """The hash of a local folder; None for an endpoint."""
        self._cache = Cache(cache_dir / "judge")
        self._client: Client | None = None
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    def pay(
        self,
        /,
        prompts: list[Any],
        completions: list[Any],
        columns: dict[str, Any],
        time_limit_s: float | None = None,
    ) -> Paid:
        """One call; an entry is NotJudged where there is no judgement. Each has its own time limit.

        Raises: RunError when the cache cannot be used, or a local model cannot be loaded.
        """
        judgements = self.judgements(prompts, completions, columns)
        self.reasons = [judgement.reason for judgement in judgements]
        return [judgement.paid for judgement in judgements]

    def judgements(
        self, prompts: list[Any], completions: list[Any], columns: dict[str, Any], repeat: int = 0
    ) -> list[Judgement]:
        """What is said of each completion. With another `repeat` the judge is asked once more."""
        texts = [completion_text(completion) for completion in completions]
        rows = [_row(prompt, columns, index) for index, prompt in enumerate(prompts)]
        if self.judge.compare == "scale":
            judged = self._scores(texts, rows, repeat)
        else:
            judged = self._comparisons(texts, rows, repeat)
        failed = [j.paid for j in judged if isinstance(j.paid, NotJudged)]
        self.cost.num_not_judged += len(failed)
        self.cost.num_judged += len(judged) - len(failed)
        self.cost.failures.update(failure.kind for failure in failed)
        return judged

    def refuse_failing(self, paid: Paid) -> None:
        """Note the outcome of a call, and end a run whose judge fails. Raises: JudgeFails.

        Otherwise the run would train on what the judge happened to answer, or on nothing.
        """
        failures = [value for value in paid if isinstance(value, Failed)]
        self._recent.extend(isinstance(value, Failed) for value in paid)
        num, total = sum(self._recent), len(self._recent)
        is_all = len(failures) == len(paid) >= MIN_ALL
        allowed = self.judge.max_failed
        if failures and (is_all or (total >= MIN_COMPLETIONS and num / total > allowed)):
            raise JudgeFails(
                f"the judge {self.judge.model} failed for {num} of the last {total} completions "
                f"(`judge.max_failed` {allowed:g}): it {failures[-1].message}"
            )

    def close(self) -> None:
        """Close connections and the cache, and end a local model. A later call opens them anew."""
        if self._client:
            self._client.close()
            self._client = None
        if self._server:
            self._server.close()
        self._cache.close()

    def _scores(self, texts: list[str], rows: list[dict[str, str]], repeat: int) -> list[Judgement]:
        questions = [
            Question((*self._shown(row).items(), ("completion", text)), repeat)
            for text, row in zip(texts, rows, strict=True)
        ]
        low, high = self.judge.bounds
        top = high if self.judge.right_from is None else self.judge.right_from
        judged = []
        for verdict, failed in self._answers(questions):
            if verdict is None:
                judged.append(_not_judged(failed))
            else:
                paid = min(1.0, (verdict.value - low) / (top - low))
                judged.append(Judgement(paid, _words(f"score {verdict.value:g}", verdict)))
        return judged

    def _comparisons(
        self, texts: list[str], rows: list[dict[str, str]], repeat: int
    ) -> list[Judgement]:
        pairs = self._pairs(texts, rows)
        questions = []
        for pair in pairs:
            row = rows[pair.first]
            first = texts[pair.first]
            second = row["answer"] if pair.second is None else texts[pair.second]
            for a, b in ((first, second), (second, first)):
                questions.append(Question((*self._shown(row).items(), ("A", a), ("B", b)), repeat))
        answers = iter(self._answers(questions))
        points: list[list[float]] = [[] for _ in texts]
        words: list[list[str]] = [[] for _ in texts]
        failed: dict[int, NotJudged | None] = {}
        for pair in pairs:
            pair.answers = [next(answers), next(answers)]
            value, why = self._outcome(pair)
            for place, worth in ((pair.first, value), (pair.second, 1.0 - (value or 0.0))):
                if place is None:
                    continue
                if value is None:
                    failed[place] = next(a.failed for a in pair.answers if a.failed)
                else:
                    points[place].append(worth or 0.0)
                    words[place].append(why)
        self._add_ties(texts, rows, points)
        return [
            _compared(points[place], words[place], failed.get(place)) for place in range(len(texts))
        ]

    def _pairs(self, texts: list[str], rows: list[dict[str, str]]) -> list[_Comparison]:
        """What is compared with what: each two texts of a prompt once, and no text with itself."""
        if self.judge.compare == "reference":
            return [_Comparison(place, None) for place in range(len(texts))]
        pairs: dict[tuple[int, int], None] = {}
        for places in _groups(rows):
            size = len(places)
            for index, first in enumerate(places):
                for step in range(1, min(self.judge.opponents or OPPONENTS, size - 1) + 1):
                    second = places[(index + step) % size]
                    if texts[first] != texts[second]:
                        pairs[min(first, second), max(first, second)] = None
        return [_Comparison(first, second) for first, second in pairs]

    def _add_ties(
        self, texts: list[str], rows: list[dict[str, str]], points: list[list[float]]
    ) -> None:
        """A completion whose group says the same throughout ties with the others."""
        if self.judge.compare != "group":
            return
        for places in _groups(rows):
            if len(places) > 1 and len({texts[place] for place in places}) == 1:
                for place in places:
                    points[place].append(0.5)

    def _outcome(self, pair: _Comparison) -> tuple[float | None, str]:
        """What the first text is worth by both orders, and the judge's words."""
        first, second = (answer.verdict for answer in pair.answers)
        if first is None or second is None:
            return None, ""
        self.cost.num_pairs += 1
        self.cost.num_pairs_agreed += first.value == 1.0 - second.value
        return (first.value + 1.0 - second.value) / 2, first.reason

    def _shown(self, row: dict[str, str]) -> dict[str, str]:
        """The texts beside those that are judged, as far as the rubric shows them."""
        is_named = self.judge.names_answer and self.judge.compare != "reference"
        return {"question": row["question"]} | ({"answer": row["answer"]} if is_named else {})

    def _answers(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each question, each asked once, and not if it is in the cache."""
        from r1recipes.rewards.judge import cache

        keys = [cache.key(self.judge, self.weights_sha256, question) for question in questions]
        answers: dict[str, Answer] = {}
        to_ask: dict[str, Question] = {}
        for key, question in zip(keys, questions, strict=True):
            if key in answers or key in to_ask:
                continue
            if verdict := self._cache.get(key):
                answers[key] = Answer(verdict)
                self.cost.cached += 1
            else:
                to_ask[key] = question
        if to_ask:
            by_question = {question: key for key, question in to_ask.items()}

            def keep(question: Question, verdict: Verdict) -> None:
                self._cache.put(by_question[question], verdict)

            answered = self._asking().ask(list(to_ask.values()), keep)
            answers |= zip(to_ask, answered, strict=True)
        return [answers[key] for key in keys]

    def _asking(self) -> Client:
        from r1recipes.rewards.judge.client import Client

        judge, url, key = self.judge, self.judge.url or "", self._key
        if self._server:
            url, key = self._server.start()
            judge = judge.model_copy(update={"concurrency": 1})  # it answers one at a time
        if self._client is None or self._client.url != url.rstrip("/"):
            self._client = Client(judge, url, key, self.cost)
        return self._client


def neutral(paid: Sequence[float | None], prompts: Sequence[Any]) -> list[float | None]:
    """`paid` with the mean of its prompt for each completion without a judgement: it then neither
    gains nor loses by the judge, where TRL would add nothing for it, as for the worst.

    None where no completion of the prompt was judged.
    """
    groups: dict[str, list[float]] = {}
    keys = [json.dumps(prompt, sort_keys=True, default=str) for prompt in prompts]
    for key, value in zip(keys, paid, strict=True):
        if value is not None:
            groups.setdefault(key, []).append(value)
    return [
        value if value is not None or key not in groups else fmean(groups[key])
        for key, value in zip(keys, paid, strict=True)
    ]


def _row(prompt: Any, columns: dict[str, Any], index: int) -> dict[str, str]:
    """The texts of the row that a completion answers. `prompt` tells one group from another."""
    question = columns["question"][index] if "question" in columns else completion_text(prompt)
    answer = columns["answer"][index] if "answer" in columns else ""
    accepted = answer if isinstance(answer, list) else [answer]
    return {
        "prompt": json.dumps([prompt, question], sort_keys=True, default=str),
        "question": str(question),
        "answer": " or ".join(map(str, accepted)),
    }


def _groups(rows: list[dict[str, str]]) -> list[list[int]]:
    """The places of the completions of each prompt."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row["prompt"], []).append(place)
    return list(groups.values())


def _not_judged(failed: NotJudged | None) -> Judgement:
    assert failed is not None, "an answer has a verdict or a failure"
    return Judgement(failed, f"not judged: it {failed.message}")


def _words(result: str, verdict: Verdict) -> str:
    return f"{result}: {verdict.reason}" if verdict.reason else result


def _compared(points: list[float], words: list[str], failed: NotJudged | None) -> Judgement:
    """The judgement of a completion from its comparisons."""
    if not points:
        return _not_judged(failed) if failed else Judgement(None, "nothing to compare it with")
    result = f"{sum(points):g} of {len(points)} comparisons"
    reason = next(filter(None, words), "")
    return Judgement(fmean(points), f"{result}: {reason}" if reason else result)

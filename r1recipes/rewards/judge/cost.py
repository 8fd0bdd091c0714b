"""What judging cost, and how often it failed: counted as it happens, added up over the attempts of
a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from r1recipes.machine.units import duration


@dataclass
class Cost:
    """Numbers of one process, or of all attempts of a run."""

    num_judged: int = 0
    """Completions that were judged, also from the cache."""
    num_not_judged: int = 0
    calls: int = 0
    """Requests that were sent, with those that failed."""
    cached: int = 0
    """Answers that came from the cache."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Wall time in which a caller waited."""
    num_pairs: int = 0
    """Pairs that were judged in both orders."""
    num_pairs_agreed: int = 0
    """Those in which both orders gave the same."""
    failures: Counter[str] = field(default_factory=Counter)
    """How often a completion was not judged, by kind."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def copy(self) -> Cost:
        return Cost(**{name: getattr(self, name) for name in COUNTS}, failures=+self.failures)

    def since(self, before: Cost) -> Cost:
        """What was added after `before`, a copy of this one."""
        counts = {name: getattr(self, name) - getattr(before, name) for name in COUNTS}
        return Cost(**counts, failures=self.failures - before.failures)

    def plus(self, recorded: Mapping[str, Any] | None) -> dict[str, Any]:
        """The numbers for record.json, with those of earlier attempts."""
        earlier = recorded or {}
        counts = {name: getattr(self, name) + earlier.get(name, 0) for name in COUNTS}
        counts["seconds"] = round(counts["seconds"], 2)
        failures = self.failures + Counter(earlier.get("failures", {}))
        return counts | {"failures": dict(failures)}

    def row(self) -> dict[str, Any]:
        """The numbers of a step, under their names in metrics.jsonl."""
        return {
            "judge/calls": self.calls,
            "judge/cached": self.cached,
            "judge/tokens": self.tokens,
            "judge/seconds": round(self.seconds, 3),
            "judge/not_judged": self.num_not_judged,
        }


COUNTS = tuple(field.name for field in fields(Cost) if field.name != "failures")


def sentence(recorded: Mapping[str, Any]) -> str:
    """The cost in a record in words: `1,204 calls, 310,551 tokens, 1 min 36 s; 3 not judged`."""
    tokens = recorded["prompt_tokens"] + recorded["completion_tokens"]
    text = f"{recorded['calls']:,} call{'s' * (recorded['calls'] != 1)}"
    if recorded["cached"]:
        text += f" and {recorded['cached']:,} answers from the cache"
    text += f", {tokens:,} tokens, {duration(recorded['seconds'])}"
    if recorded["num_pairs"]:
        share = recorded["num_pairs_agreed"] / recorded["num_pairs"]
        text += f"; {share:.0%} of the pairs alike in both orders"
    if recorded["num_not_judged"]:
        total = recorded["num_judged"] + recorded["num_not_judged"]
        text += f"; {recorded['num_not_judged']:,} of {total:,} completions not judged"
    return text

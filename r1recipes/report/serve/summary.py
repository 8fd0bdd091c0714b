"""What the overview says of one run, and how it is made from what has been read of the run.

A summary holds a few numbers and words, so that those of thousands of runs fit into memory; the
rows of the run itself are not kept for it. Nothing is read here but through a `Reading`.
"""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.report.charts.scales import is_number
from r1recipes.report.facts import difference_sentence
from r1recipes.report.run import TONES
from r1recipes.runs import health
from r1recipes.runs.health import GOOD, HeldOut, Terms
from r1recipes.runs.reading import STAGES, Reading, Row

SPARK_POINTS = 60
"""Values of a sparkline; assumed, two pixels for each."""
RECENT_STEPS = 10
"""Steps from whose median the time left is estimated, and the seconds a step are shown."""
DAMAGED = "damaged"


@dataclass(frozen=True)
class Summary:
    """A run in the overview. Shares are from 0 to 1; None is what is not there (yet)."""

    key: str
    """The path of its folder in the folder of runs, which is also its address."""
    started: str = ""
    state: str = DAMAGED
    """The status of the record, `killed`, or `damaged`."""
    problem: str = ""
    """What is damaged, in one sentence; empty for a run that can be read."""
    recipe: str = ""
    model: str = ""
    algorithm: str = ""
    study: str = ""
    """The study whose trial it is; empty for other runs."""
    phase: str = ""
    """What a run does that is not at its steps, such as `cold start`."""
    step: int | None = None
    max_steps: int | None = None
    seconds_a_step: float | None = None
    seconds_left: float | None = None
    measure: str = ""
    """What the curve shows: the decisive reward, or how well examples are fitted."""
    value: float | None = None
    """Its last value."""
    curve: tuple[float, ...] = ()
    before: float | None = None
    after: float | None = None
    """Held-out accuracy after training."""
    latest: tuple[int, float] | None = None
    """Step and accuracy of the last evaluation of `eval.every`, while there is none after."""
    verdict: str = ""
    sentence: str = ""
    tone: str = ""
    """good, bad or empty, of the verdict."""
    is_whole: bool = True
    """Whether the steps have been read; until then only what the record says is there."""

    @property
    def state_tone(self) -> str:
        return "bad" if self.state == DAMAGED else TONES.get(self.state, "")

    @property
    def name(self) -> str:
        """The last part of the key, which tells the runs of a recipe apart."""
        return self.key.rpartition("/")[2]

    @property
    def address(self) -> str:
        """The key in an address, in ASCII: the name of a folder may hold any bytes."""
        return address_of(self.key)

    @property
    def since(self) -> str:
        """What the newest runs have the last of; a folder whose record is damaged has its name."""
        return self.started or self.name

    @property
    def accuracy(self) -> float | None:
        """The newest held-out accuracy."""
        if self.after is not None:
            return self.after
        return self.latest[1] if self.latest else self.before

    @property
    def text(self) -> str:
        """What the filter of the overview looks into."""
        parts = (self.key, self.recipe, self.model, self.algorithm, self.state, self.verdict)
        return " ".join(parts).lower()


def address_of(key: str) -> str:
    """A name of the file system in an address; its slashes stay."""
    return quote(os.fsencode(key))


def of_record(key: str, run: Reading) -> Summary:
    """What the record and the plan say of a run. Raises: RecipeError when they are damaged."""
    record = run.record
    verdict, sentence, tone = _verdict_of_record(run)
    study = record.get("study")
    return Summary(
        key=key,
        started=str(record.get("started") or ""),
        state=run.status,
        recipe=str(record.get("recipe") or ""),
        model=str(run.recipe.get("model", {}).get("name") or ""),
        algorithm=_title(run),
        study=str(study.get("name", "")) if isinstance(study, dict) else "",
        phase=_phase(run),
        max_steps=run.max_steps,
        before=run.evaluated("before").get("accuracy"),
        after=run.evaluated("after").get("accuracy"),
        verdict=verdict,
        sentence=sentence,
        tone=tone,
        is_whole=False,
    )


def _title(run: Reading) -> str:
    algorithm = _algorithm(run)
    return algorithm.title if algorithm else ""


def _algorithm(run: Reading) -> Algorithm | None:
    return ALGORITHMS.get(run.recipe.get("algorithm") or "")


def _phase(run: Reading) -> str:
    """The stage that a running run is at."""
    stage = run.record.get("stage")
    if run.status != "running" or not stage:
        return ""
    return STAGES.get(stage["name"], stage["name"])


def _verdict_of_record(run: Reading) -> tuple[str, str, str]:
    """The verdict in a word, as a sentence, and its tone, where the record alone decides it."""
    evaluation = run.record.get("evaluation", {})
    if run.status == "failed":
        error = run.record.get("error") or {}
        return str(error.get("kind") or "failed"), str(error.get("message") or ""), "bad"
    if run.status == "complete" and (difference := evaluation.get("difference")):
        sentence, tone = difference_sentence(difference["mean"], difference["interval"])
        tones = {"better": "good", "worse": "bad"}
        return sentence.partition(":")[0].lower(), sentence, tones.get(tone, "")
    return "", "", ""


def with_steps(summary: Summary, run: Reading) -> Summary:
    """The summary with all that the steps say. Raises: RecipeError when they are damaged."""
    rows = run.metrics
    measure, key = _measure(run)
    values = [row.get(key) for row in rows]
    numbers = [float(value) for value in values if is_number(value)]
    step = rows[-1]["step"] if rows else 0
    times = [s for row in rows[-RECENT_STEPS:] if is_number(s := _seconds(row))]
    seconds = statistics.median(times) if times else None
    held_out = [(row["step"], row[health.ACCURACY]) for row in rows if _has_accuracy(row)]
    verdict, sentence, tone = _verdict(run) if not summary.verdict else _words(summary)
    return Summary(
        **vars(summary)
        | {
            "step": step,
            "seconds_a_step": seconds,
            "seconds_left": _seconds_left(run, step, seconds),
            "measure": measure,
            "value": numbers[-1] if numbers else None,
            "curve": tuple(thinned(numbers)),
            "latest": held_out[-1] if held_out else None,
            "verdict": verdict,
            "sentence": sentence,
            "tone": tone,
            "is_whole": True,
        }
    )


def _words(summary: Summary) -> tuple[str, str, str]:
    return summary.verdict, summary.sentence, summary.tone


def _measure(run: Reading) -> tuple[str, str]:
    """Name and key of the metric that says best how a run goes."""
    algorithm = _algorithm(run)
    if algorithm and algorithm.learned:
        key, name, _ = algorithm.learned.facts[0]
        return name, key
    decisive = run.recipe.get("eval", {}).get("reward")
    key = f"rewards/{decisive}/mean"
    if decisive and run.metrics and key in run.metrics[-1]:
        return str(decisive), key
    return "reward", "reward"


def _has_accuracy(row: Row) -> bool:
    return is_number(row.get(health.ACCURACY))


def _seconds(row: Row) -> float | None:
    value = row.get("time/step_s", row.get("step_time"))
    return float(value) if is_number(value) else None


def _seconds_left(run: Reading, step: int, seconds: float | None) -> float | None:
    """Time to the last step of a run that trains, without the evaluation that follows."""
    if run.status != "running" or seconds is None or not run.max_steps:
        return None
    return max(0, run.max_steps - step) * seconds


def _verdict(run: Reading) -> tuple[str, str, str]:
    """What the steps say, in the words of the live view."""
    if not (run.metrics and run.resolved):
        return "", "", ""
    before = run.evaluated("before")
    held_out = [HeldOut.of_summary(0, before)] if before else []
    verdict = health.verdict(run.metrics, Terms.of(run.resolved), held_out)
    return verdict.kind, verdict.sentence, "good" if verdict.kind in GOOD else ""


def thinned(values: Sequence[float], most: int = SPARK_POINTS) -> list[float]:
    """At most `most` values: the means of stretches that are equally long, but for the last."""
    size = -(-len(values) // most) or 1
    return [statistics.fmean(values[i : i + size]) for i in range(0, len(values), size)]

"""Where the time of a run went: each part of it, in seconds that add up to those of the whole run.

The parts come from three places: `time` in record.json (whatever is no stage), `duration_s` there
(the stages), and the times of the steps in metrics.jsonl. What none of them has is "other": steps
that were lost when a run was killed, and what lies between the parts. Limits: a page has the times
up to the page itself; runs of older versions have no `time`, and so no parts.
"""

from collections.abc import Iterable

from r1recipes.machine.meter import TOTAL
from r1recipes.runs.reading import Reading, Row

STEP_PARTS = {
    "time/generation_s": "generation",
    "time/rewards_s": "rewards",
    "time/logprobs_s": "log-probabilities",
    "time/backward_s": "backward",
    "time/evaluation_s": "held-out evaluation",
}
"""Metric of a step -> what its seconds are called."""
OTHER = "other"
LEAST_SHARE = 0.01
"""Share of the time below which a part is not named in the sentence; assumed."""


def of(run: Reading) -> dict[str, float]:
    """Seconds of each part in the order of a run; empty where they were not recorded."""
    spent, stages = run.record.get("time"), run.record.get("duration_s", {})
    if not spent:
        return {}
    parts = {
        "imports": spent.get("imports", 0.0),
        "data and rewards": spent.get("data", 0.0),
        "merging": stages.get("merge", 0.0),
        "cold start": stages.get("cold_start", 0.0),
        "loading the model": stages.get("load", 0.0),
        "evaluation before": stages.get("evaluate_before", 0.0) + spent.get("probe", 0.0),
        **_of_earlier(stages),
        "pass rates": stages.get("pass_rates", 0.0),
        "sampling for examples": stages.get("own_samples", 0.0),
        **(_of_steps(run.metrics) if run.metrics else _of_training(stages, spent)),
        "checkpoints": spent.get("checkpoints", 0.0),
        "evaluation after": stages.get("evaluate_after", 0.0),
        "report and trackers": spent.get("report", 0.0),
    }
    parts = {name: seconds for name, seconds in parts.items() if seconds > 0}
    return parts | {OTHER: max(0.0, spent[TOTAL] - sum(parts.values()))}


def _of_steps(rows: list[Row]) -> dict[str, float]:
    """The parts of the steps. The first step is one, since it compiles and warms up."""
    first, rest = rows[:1], rows[1:]
    generation, rewards = _sum(rest, "generation"), _sum(rest, "rewards")
    training = _sum(rest, "logprobs") + _sum(rest, "backward")
    return {
        "first step": _sum(first, "step"),
        "generation": generation,
        "rewards": rewards,
        "training pass": training,
        "rest of the steps": _sum(rest, "step") - generation - rewards - training,
        "held-out evaluation": _sum(rows, "evaluation"),
    }


def _of_earlier(stages: Row) -> dict[str, float]:
    """A part for each stage of the recipe before the last training: `1-sft/train` and the like."""
    parts: dict[str, float] = {}
    for name, seconds in stages.items():
        title, slash, _ = name.partition("/")
        if slash:
            parts[f"stage {title}"] = parts.get(f"stage {title}", 0.0) + seconds
    return parts


def _of_training(stages: Row, spent: Row) -> dict[str, float]:
    """Training as one part, where a folder has no metrics."""
    others = spent.get("checkpoints", 0.0) + spent.get("report", 0.0)
    return {"training": stages.get("train", 0.0) - others}


def _sum(rows: Iterable[Row], name: str) -> float:
    return sum(row.get(f"time/{name}_s") or 0.0 for row in rows)


def sentence(parts: dict[str, float]) -> str:
    """`Time: cold start 31%, generation 40%, ..., other 3%`; empty without parts."""
    total = sum(parts.values())
    if not total:
        return ""
    named = {name: s for name, s in parts.items() if name != OTHER and s >= LEAST_SHARE * total}
    shares = [f"{name} {seconds / total:.0%}" for name, seconds in named.items()]
    rest = total - sum(named.values())
    return f"Time: {', '.join([*shares, f'{OTHER} {rest / total:.0%}'])}"

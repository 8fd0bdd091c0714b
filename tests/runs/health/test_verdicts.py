"""The error rates that the verdicts promise, in 300 simulated runs with fixed seeds."""

from collections import Counter

import pytest

from benchmarks.learning import simulated
from r1recipes.runs import health

SEED = 31337  # of benchmarks/learning/verdicts.py; the constants were chosen with others


@pytest.fixture(scope="module")
def runs():
    return list(simulated.runs(50, SEED))


def test_at_most_three_in_a_hundred_verdicts_are_wrong(runs):
    worth: Counter[object] = Counter()
    wrong: Counter[object] = Counter()
    for run in runs:
        kind = health.verdict(run.rows, run.terms).kind
        worth[run.judged(kind)] += 1
        wrong[run.sort, kind] += run.judged(kind) == "wrong"
    assert worth["wrong"] <= 0.03 * len(runs), wrong
    assert worth["unclear"] <= 0.06 * len(runs)


def test_a_run_that_learns_is_seldom_told_otherwise(runs):
    """In every tenth step; benchmarks/learning/verdicts.py looks at all."""
    looks = alarms = false = 0
    for run in (run for run in runs if run.sort == "rising"):
        for num in range(10, len(run.rows) + 1, 10):
            verdict = health.verdict(run.rows[:num], run.terms)
            looks += 1
            alarms += simulated.is_alarm(verdict)
            false += simulated.is_alarm(verdict) and run.gained(num) > 0.05
    assert alarms / looks < 0.03
    assert false / looks < 0.01


def test_a_still_run_is_seldom_said_to_move(runs):
    looks = moving = 0
    for run in (run for run in runs if run.sort in ("flat", "noisy")):
        for num in range(5, len(run.rows) + 1, 10):
            kind = health.verdict(run.rows[:num], run.terms).kind
            looks += 1
            moving += kind in ("learning", "learned", "collapsing", "hacked")
    assert moving / looks < 0.01


def test_a_collapse_is_seen_within_some_steps(runs):
    for run in (run for run in runs if run.sort == "collapsing"):
        assert run.fall is not None
        late = min(len(run.rows), run.fall + 30)
        verdict = health.verdict(run.rows[:late], run.terms)
        if late == run.fall + 30:
            assert verdict.kind == "collapsing", (run.terms, verdict)
            assert abs(verdict.since_step - run.fall) < 20

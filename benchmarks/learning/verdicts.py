"""How often a verdict on a run is wrong, in simulated runs with a known truth.

    python -m benchmarks.learning.verdicts [--seed N] [--runs N]

Prints the verdicts at the end of each sort of run, how often an alarm is shown while a run learns
or nothing changes, and how many steps it takes to see a collapse. simulated.py makes the runs and
decides what counts as wrong. Writes benchmarks/learning/results/verdicts.json. Limits: nothing is
trained; recorded runs are in tests/fixtures/verdicts.
"""

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import about
from benchmarks.learning import simulated
from benchmarks.learning.simulated import Simulated
from r1recipes.runs import health

RESULT = Path(__file__).parent / "results" / "verdicts.json"
LEARNED = 0.05
"""True gain of accuracy above which an alarm in a rising run is certainly false (assumed)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=31337)
    parser.add_argument("--runs", type=int, default=50, help="of each sort")
    args = parser.parse_args()
    runs = list(simulated.runs(args.runs, args.seed))
    result = {
        "seed": args.seed,
        "runs_of_each_sort": args.runs,
        "at_the_end": at_the_end(runs),
        "in_every_step": {
            sort: in_every_step(of(runs, sort)) for sort in ("rising", "flat", "noisy")
        },
        "steps_until_seen": {
            sort: steps_until_seen(of(runs, sort)) for sort in ("collapsing", "hacked")
        },
        "ms_per_verdict_at_300_steps": milliseconds(runs),
    }
    show(result)
    about.write(RESULT, result)


def of(runs: list[Simulated], sort: str) -> list[Simulated]:
    return [run for run in runs if run.sort == sort]


def at_the_end(runs: list[Simulated]) -> dict[str, Any]:
    """Counts of verdicts for each sort, and the shares that are right, unclear and wrong."""
    table: dict[str, Counter[str]] = {sort: Counter() for sort in simulated.SORTS}
    judgements: Counter[str] = Counter()
    for run in runs:
        kind = health.verdict(run.rows, run.terms).kind
        table[run.sort][kind] += 1
        judgements[run.judged(kind)] += 1
    shares = {name: judgements[name] / len(runs) for name in ("right", "unclear", "wrong")}
    return {"table": {sort: dict(counts) for sort, counts in table.items()}, "shares": shares}


def in_every_step(runs: list[Simulated]) -> dict[str, Any]:
    """Shares of the verdicts that are shown from the first step to the last."""
    kinds: Counter[str] = Counter()
    alarms = false = runs_with_false = 0
    for run in runs:
        before = false
        for num in range(1, len(run.rows) + 1):
            verdict = health.verdict(run.rows[:num], run.terms)
            kinds[verdict.kind] += 1
            alarms += simulated.is_alarm(verdict)
            if run.sort == "rising":
                false += simulated.is_alarm(verdict) and run.gained(num) > LEARNED
            else:
                false += verdict.kind not in run.right | {"too early", "format first"}
        runs_with_false += false > before
    total = sum(kinds.values())
    return {
        "steps": total,
        "share_of_steps": {kind: count / total for kind, count in kinds.most_common()},
        "alarms": alarms / total,
        "false": false / total,
        "runs_with_a_false_one": runs_with_false / len(runs),
    }


def steps_until_seen(runs: list[Simulated]) -> dict[str, Any]:
    """Steps from the beginning of a fall to the first verdict that names it."""
    delays = []
    for run in runs:
        assert run.fall is not None
        later = range(run.fall + 1, len(run.rows) + 1)
        kinds = (health.verdict(run.rows[:num], run.terms).kind for num in later)
        delays.append(next((i for i, kind in enumerate(kinds, 1) if kind in run.right), None))
    seen = sorted(steps for steps in delays if steps is not None)
    return {
        "median": statistics.median(seen),
        "90 %": seen[int(0.9 * len(seen))],
        "never": delays.count(None),
    }


def milliseconds(runs: list[Simulated]) -> float:
    """Time of one verdict on a run of 300 steps."""
    run = max(runs, key=lambda each: len(each.rows))
    rows = (run.rows * 300)[:300]
    began = time.perf_counter()
    for _ in range(20):
        health.verdict(rows, run.terms)
    return (time.perf_counter() - began) / 20 * 1000


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    end = result["at_the_end"]
    kinds = sorted({kind for counts in end["table"].values() for kind in counts})
    print(f"{'truth':<12}", *(f"{kind:>{len(kind)}}" for kind in kinds), sep="  ")
    for sort, counts in end["table"].items():
        print(f"{sort:<12}", *(f"{counts.get(k, 0):>{len(k)}}" for k in kinds), sep="  ")
    print("  ".join(f"{name} {share:.1%}" for name, share in end["shares"].items()))
    for sort, steps in result["in_every_step"].items():
        print(
            f"{sort}: {steps['steps']} steps, an alarm in {steps['alarms']:.2%} of them, a false "
            f"verdict in {steps['false']:.2%}, in {steps['runs_with_a_false_one']:.0%} of the runs"
        )
    for sort, steps in result["steps_until_seen"].items():
        print(f"{sort}: seen after {steps['median']:g} steps in the median, {steps}")
    print(f"{result['ms_per_verdict_at_300_steps']:.1f} ms for a verdict on 300 steps")


if __name__ == "__main__":
    main()

import math
import random

import pytest

from r1recipes import evaluate
from r1recipes.errors import RunError
from r1recipes.evaluate import Sample


def rows(n):
    return [{"prompt": [{"role": "user", "content": f"q{i}"}], "answer": str(i)} for i in range(n)]


def answered(n, num_samples, right):
    """Items as `evaluate` makes them; `right(problem, sample)` says which are right."""

    def generate(prompts, count, greedy):
        return [
            [Sample(str(i) if right(i, j) else "no", 3, j == 1) for j in range(count)]
            for i in range(len(prompts))
        ]

    def score(prompts, completions, answer):
        return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]

    return evaluate.evaluate(rows(n), num_samples, generate, score)


def test_accuracy_counts_samples_and_greedy_apart():
    items = answered(4, 2, lambda problem, sample: sample == 1 or problem == 0)
    found = evaluate.summary(items)
    assert found["accuracy"] == 5 / 8
    assert found["greedy"] == 1 / 4
    assert found["share_cut"] == 1 / 2
    assert (found["num_problems"], found["num_samples"]) == (4, 2)


def test_wilson_matches_the_published_example():
    # Newcombe 1998, table I: 81 of 263 -> 0.2553 to 0.3662 by the score method.
    low, high = evaluate.wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert evaluate.wilson(0.0, 10)[0] == 0.0 and evaluate.wilson(1.0, 10)[1] == 1.0


def test_interval_knows_that_samples_of_a_problem_go_together():
    together = evaluate.summary(answered(100, 4, lambda p, s: p < 50))
    apart = evaluate.summary(answered(100, 4, lambda p, s: s % 2 == 0))
    width = [b["interval"][1] - b["interval"][0] for b in (together, apart)]
    assert math.isclose(width[0], 0.19, abs_tol=0.01)  # 100 trials
    assert width[1] <= width[0]


def test_interval_covers_the_truth_in_95_of_100_cases():
    rng, hits = random.Random(0), 0
    for _ in range(300):
        ability = [rng.betavariate(1, 1) for _ in range(100)]
        items = [
            {
                "samples": [{"right": rng.random() < p, "num_tokens": 1, "cut": False}] * 1
                + [{"right": rng.random() < p, "num_tokens": 1, "cut": False} for _ in range(3)],
                "greedy": {"right": True},
            }
            for p in ability
        ]
        low, high = evaluate.summary(items)["interval"]
        hits += low <= 0.5 <= high
    assert hits / 300 > 0.92


def test_paired_difference():
    before = answered(50, 2, lambda p, s: p < 10)
    after = answered(50, 2, lambda p, s: p < 30)
    found = evaluate.difference(before, after)
    assert math.isclose(found["mean"], 0.4)
    assert found["interval"][0] > 0.2
    assert evaluate.difference(before, before) == {"mean": 0.0, "interval": (0.0, 0.0)}


def pay(prompts, completions, answer):
    return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]


def test_probe_sees_spread_and_refuses_what_cannot_be_learned():
    mixed = evaluate.probe(answered(4, 2, lambda p, s: s == 0), rows(4), {pay: 1.0})
    assert (mixed.share_rewarded, mixed.share_spread, mixed.share_cut) == (0.5, 1.0, 0.5)
    evaluate.refuse_hopeless(mixed, 100, 1.0)
    wrong = evaluate.probe(answered(4, 2, lambda p, s: False), rows(4), {pay: 1.0})
    with pytest.raises(RunError, match="no completion earns any reward"):
        evaluate.refuse_hopeless(wrong, 100, 1.0)
    right = evaluate.probe(answered(4, 2, lambda p, s: True), rows(4), {pay: 1.0})
    with pytest.raises(RunError, match="earn the same"):
        evaluate.refuse_hopeless(right, 100, 1.0)
    cut = evaluate.Probe(share_cut=0.97, share_rewarded=0.1, share_spread=0.1)
    with pytest.raises(RunError, match="97% .* cut at max_completion_length = 256"):
        evaluate.refuse_hopeless(cut, 256, 1.0)

import math
import random
from itertools import combinations

import pytest

from r1recipes.runs import statistics
from tests.training.evaluation.test_evaluation import answered


def test_accuracy_counts_samples_and_greedy_apart():
    items = answered(4, 2, lambda problem, sample: sample == 1 or problem == 0)
    summary = statistics.summary(items)
    assert summary["accuracy"] == 5 / 8
    assert summary["greedy"] == 1 / 4
    assert summary["share_cut"] == 1 / 2
    assert (summary["num_problems"], summary["num_samples"]) == (4, 2)


def test_wilson_matches_the_published_example():
    # Newcombe 1998, table I: 81 of 263 -> 0.2553 to 0.3662 by the score method.
    low, high = statistics.wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert statistics.wilson(0.0, 10)[0] == 0.0 and statistics.wilson(1.0, 10)[1] == 1.0


def test_interval_knows_that_samples_of_a_problem_go_together():
    together = statistics.summary(answered(100, 4, lambda p, s: p < 50))
    apart = statistics.summary(answered(100, 4, lambda p, s: s % 2 == 0))
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
        low, high = statistics.summary(items)["interval"]
        hits += low <= 0.5 <= high
    assert hits / 300 > 0.92


def test_paired_difference():
    before = answered(50, 2, lambda p, s: p < 10)
    after = answered(50, 2, lambda p, s: p < 30)
    difference = statistics.difference(before, after)
    assert math.isclose(difference["mean"], 0.4)
    assert difference["interval"][0] > 0.2
    same = statistics.difference(before, before)
    assert same["mean"] == 0.0
    assert -0.2 < same["interval"][0] < -0.1 and same["interval"][1] == -same["interval"][0]


def test_newcombe_matches_the_published_example():
    # Newcombe 1998 II, table II, (a): 56/70 - 48/80 -> 0.0524 to 0.3339 by method 10.
    first, second = statistics.wilson(48 / 80, 80), statistics.wilson(56 / 70, 70)
    low, high = statistics.newcombe(48 / 80, first, 56 / 70, second)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@pytest.mark.parametrize("n", [1, 2, 6, 50])
@pytest.mark.parametrize("is_right", [True, False])
def test_equal_gains_still_have_an_interval(n, is_right):
    before = answered(n, 3, lambda p, s: False)
    after = answered(n, 3, lambda p, s: is_right)
    difference = statistics.difference(before, after)
    low, high = difference["interval"]
    assert -1 <= low < high <= 1
    assert low < difference["mean"] or high > difference["mean"]
    if n == 1:
        assert high - low > 0.8


def test_the_ends_of_a_difference_stay_possible():
    difference = statistics.difference(
        answered(2, 4, lambda p, s: False), answered(2, 4, lambda p, s: p == 0 or s < 2)
    )
    assert difference["interval"][1] == 1.0


def problem_with(right: list[bool], texts: list[str] | None = None, greedy: bool = False) -> dict:
    texts = texts or ["x"] * len(right)
    samples = [{"text": t, "right": r} for t, r in zip(texts, right, strict=True)]
    return {"samples": samples, "greedy": {"right": greedy}}


@pytest.mark.parametrize("n", [1, 2, 3, 6, 8])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(n):
    items = [problem_with([i < c for i in range(n)]) for c in range(n + 1)]
    for k, estimate in statistics.pass_at_k(items).items():
        choices = [
            any(sample["right"] for sample in choice)
            for item in items
            for choice in combinations(item["samples"], k)
        ]
        assert estimate["mean"] == pytest.approx(sum(choices) / len(choices))
        low, high = estimate["interval"]
        assert low <= estimate["mean"] <= high
    assert max(statistics.pass_at_k(items)) == n and min(statistics.pass_at_k(items)) == 1


def test_the_majority_votes_by_answer_and_a_tie_counts_its_share():
    items = [
        problem_with([True, True, False], ["4", "4", "5"]),
        problem_with([False, False, True], ["7", "7", "8"]),
        problem_with([True, False], ["1", "2"]),
        problem_with([False, False], ["", ""]),
    ]
    shares = [statistics.majority([item], lambda text: text or None)["mean"] for item in items]
    assert shares == [1.0, 0.0, 0.5, 0.0]
    assert statistics.majority(items, lambda text: text or None)["mean"] == pytest.approx(1.5 / 4)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (3, 3, 1.0), (10, 2, 0.03857421875)]
)
def test_mcnemar_is_the_exact_binomial_test(gained, lost, p):
    # such as 2 * (1 + 12 + 66) / 2**12
    pairs = [(False, True)] * gained + [(True, False)] * lost + [(True, True), (False, False)]
    before = [problem_with([True], greedy=b) for b, _ in pairs]
    after = [problem_with([True], greedy=a) for _, a in pairs]
    result = statistics.mcnemar(before, after)
    assert (result["gained"], result["lost"]) == (gained, lost)
    assert result["p"] == pytest.approx(p)


def test_mcnemar_with_thousands_of_changes():
    before = [problem_with([True])] * 5000
    after = [problem_with([True], greedy=True)] * 5000
    assert statistics.mcnemar(before, after)["p"] == 0.0

import dataclasses

import pytest

from r1recipes.errors import RunError
from r1recipes.training import evaluation
from r1recipes.training.backends.base import Sample


def rows(n):
    return [{"prompt": [{"role": "user", "content": f"q{i}"}], "answer": str(i)} for i in range(n)]


def answered(n, num_samples, right):
    """Items as `evaluate` makes them; `right(problem, sample)` says which are right."""

    def generate(prompts, count, greedy):
        return [
            [Sample(str(i) if right(i, j) else "no", 3, j == 1) for j in range(count)]
            for i in range(len(prompts))
        ]

    return evaluation.evaluate(rows(n), num_samples, generate, pay)


def pay(prompts, completions, answer):
    return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]


def probe(num_problems, num_samples, right):
    items = answered(num_problems, num_samples, right)
    return evaluation.probe(items, rows(num_problems), [(pay, 1.0)])


def test_probe_sees_spread():
    mixed = probe(4, 2, lambda p, s: s == 0)
    assert (mixed.share_rewarded, mixed.share_spread, mixed.share_cut) == (0.5, 1.0, 0.5)
    assert (mixed.num_problems, mixed.num_samples) == (4, 2)


@pytest.mark.parametrize(
    ("num_problems", "num_samples", "right", "message"),
    [
        (16, 2, lambda p, s: False, "no completion earns any reward"),
        (16, 2, lambda p, s: True, "all completions of each prompt earn the same"),
        (16, 2, lambda p, s: p % 2 == 0, "all completions of each prompt earn the same"),
        (20, 1, lambda p, s: False, "no completion earns any reward"),
        (20, 1, lambda p, s: True, ": all completions earn the same"),
        (16, 2, lambda p, s: p == 3 and s == 0, None),
        (15, 2, lambda p, s: False, None),  # a handful
        (19, 1, lambda p, s: False, None),
        (20, 1, lambda p, s: p == 3, None),  # one sample: no group of its own has spread
    ],
)
def test_what_cannot_be_learned_is_refused(num_problems, num_samples, right, message):
    result = probe(num_problems, num_samples, right)
    if message is None:
        return evaluation.refuse_hopeless(result, 100, 1.0)
    with pytest.raises(RunError, match=message):
        evaluation.refuse_hopeless(result, 100, 1.0)


def test_what_is_cut_is_refused_unless_it_is_a_handful():
    cut = evaluation.Probe(
        share_cut=0.97, share_rewarded=0.1, share_spread=0.1, num_problems=4, num_samples=2
    )
    with pytest.raises(RunError, match="97% .* cut at max_completion_length = 256"):
        evaluation.refuse_hopeless(cut, 256, 1.0)
    evaluation.refuse_hopeless(dataclasses.replace(cut, num_problems=3), 256, 1.0)

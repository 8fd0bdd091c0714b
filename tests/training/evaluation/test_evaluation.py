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

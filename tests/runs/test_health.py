import math
import random

import pytest

from r1recipes.runs import health


def row(step, reward=1.0, **changes):
    return {
        "step": step,
        "reward": reward,
        "reward_std": 0.5,
        "frac_reward_zero_std": 0.2,
        "completions/clipped_ratio": 0.0,
        "accuracy": 0.5,
        "grad_norm": 0.3,
        "loss": 0.0,
    } | changes


def say(rows):
    return health.sentence(rows, max_completion_length=256, max_reward=4.0)


def course(length, slope, noise=0.1, **changes):
    return [row(i, 1 + slope * i + noise * (-1) ** i, **changes) for i in range(1, length + 1)]


def shaped(*parts, **changes):
    """Rows whose reward goes in lines, each (from, to, steps)."""
    levels = [a + (b - a) * i / n for a, b, n in parts for i in range(n)]
    return [row(i + 1, x + 0.1 * (-1) ** i, **changes) for i, x in enumerate(levels)]


@pytest.mark.parametrize(
    ("rows", "begins", "names"),
    [
        ([], "Waiting", ""),
        (course(3, 0.1), "Too early", ""),
        (course(40, 0.05), "Learning: reward 1.", ""),
        (course(80, 0.0), "Not moving", "learning_rate"),
        (course(30, 0.0), "No trend yet", ""),
        (course(40, -0.05), "Getting worse since step 20: reward", "learning_rate"),
        (shaped((1, 3, 40), (3, 1, 200)), "Getting worse since step ", "or stop here"),
        (shaped((1, 3, 40), (3, 3, 300)), "Learned, now flat: reward 1.", "-> 3.00"),
        (shaped((1, 3.7, 40), (3.7, 3.7, 300)), "Nearly all right: reward 1.", "harder"),
        (shaped((1, 1, 90), accuracy=0.95), "Nearly all right", "harder"),
        (shaped((2, 1, 40), (1, 2, 60)), "Learning: reward 1.", ""),
        (shaped((1, 3, 300)), "Learning: reward 1.", ""),
        (
            course(30, 0.0, **{"completions/clipped_ratio": 0.97}),
            "Not learning: 97%",
            "max_completion",
        ),
        (course(30, 0.0, frac_reward_zero_std=1.0, accuracy=1.0), "Nothing left", "harder"),
        (course(30, 0.0, frac_reward_zero_std=1.0, accuracy=0.0), "Not learning", "easier"),
        (course(30, 0.0, frac_reward_zero_std=0.9), "Not learning", "temperature"),
        (course(30, 0.0, grad_norm=math.nan), "Not learning: the gradient", "learning_rate"),
    ],
)
def test_the_sentence_names_the_cause_and_the_way_out(rows, begins, names):
    assert say(rows).startswith(begins), say(rows)
    assert names in say(rows)


def test_without_an_accuracy_the_reward_decides():
    rows = course(30, 0.0, noise=0.0, frac_reward_zero_std=1.0, accuracy=None)
    assert "temperature" in say(rows)
    best = [r | {"reward": 3.99} for r in rows]
    assert say(best).startswith("Nothing left")


def test_not_finite_needs_every_row():
    assert health.not_finite([row(1, grad_norm=math.inf)])
    assert not health.not_finite([row(1, grad_norm=math.nan), row(2)])
    assert not health.not_finite([])


def test_a_flat_run_seldom_cries_wolf():
    """The best of many windows is high by chance; 200 steps of noise, looked at once in ten."""
    rng, worse, looks = random.Random(0), 0, 0
    for _ in range(50):
        rows = [row(i + 1, 1 + rng.gauss(0, 0.5)) for i in range(200)]
        for end in range(40, 201, 10):
            worse += say(rows[:end]).startswith("Getting worse")
            looks += 1
    assert worse / looks < 0.005


@pytest.mark.parametrize("changes", [{"accuracy": 0.95}, {"accuracy": None}])
def test_who_is_nearly_right_is_not_told_to_raise_the_rate(changes):
    for length in range(10, 200, 7):
        rows = [row(i + 1, 3.8 + 0.1 * (-1) ** i, **changes) for i in range(length)]
        assert "raise `train.learning_rate`" not in say(rows)

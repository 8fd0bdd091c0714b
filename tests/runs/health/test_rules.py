import copy
import math
import time

import pytest

from benchmarks.learning.simulated import MOSTLY_RIGHT, SHIPPED
from r1recipes import rewards
from r1recipes.runs import health
from r1recipes.runs.health.verdicts import UNDECIDED, HeldOut, Terms
from tests.runs.health import recorded

TERMS = Terms(SHIPPED, "correctness", 256, 256, 8, 100)
FORMAT = {f"rewards/{name}/mean": 0.2 for name in SHIPPED if name != "correctness"}


def row(step, accuracy=0.5, **changes):
    """A row whose reward is made of its parts; half of the completions have the format."""
    parts = {"rewards/correctness/mean": accuracy} | FORMAT | changes
    known = {name: parts.get(f"rewards/{name}/mean", 0.0) for name in SHIPPED}
    return {
        "step": step,
        "accuracy": accuracy,
        "reward": sum(SHIPPED[name] * value for name, value in known.items()),
        "reward_std": 0.8,
        "frac_reward_zero_std": 0.2,
        "completions/mean_length": 100.0,
        "completions/clipped_ratio": 0.0,
        "grad_norm": 0.3,
        "loss": 0.0,
    } | parts


def course(*parts, **changes):
    """Rows whose accuracy goes in lines, each (from, to, steps)."""
    levels = [a + (b - a) * i / n for a, b, n in parts for i in range(n)]
    rows = [row(i + 1, x + 0.02 * (-1) ** i) for i, x in enumerate(levels)]
    for i, one in enumerate(rows):
        one |= {key: value(i) if callable(value) else value for key, value in changes.items()}
    return rows


def ramp(start, end, steps):
    return lambda i: start + (end - start) * min(1.0, i / steps)


def with_format(start, end, steps, rows):
    """The rows with a format that is learned within some steps, and the reward that it brings."""
    for i, one in enumerate(rows):
        level = ramp(start, end, steps)(i)
        one |= {f"rewards/{name}/mean": level for name in SHIPPED if name != "correctness"}
        one["reward"] = 2 * one["accuracy"] + 2 * level
    return rows


def say(rows, terms=TERMS, held_out=()):
    return health.verdict(rows, terms, held_out)


@pytest.mark.parametrize(
    ("rows", "kind", "names"),
    [
        ([], "waiting", ""),
        (course((0.2, 0.25, 3)), "too early", ""),
        (course((0.2, 0.8, 40)), "learning", "accuracy 2"),
        (course((0.5, 0.2, 20), (0.2, 0.5, 40)), "learning", "accuracy 2"),
        (course((0.2, 0.6, 40), (0.6, 0.6, 300)), "learned", "stop here"),
        (course((0.2, 0.96, 40), (0.96, 0.96, 300)), "nearly all paid", "evaluation"),
        (course((0.94, 0.94, 90)), "nearly all paid", "evaluation"),
        (course((0.3, 0.3, 100)), "not moving", "raise `train.learning_rate`"),
        (course((0.04, 0.04, 100)), "not moving", "take easier problems"),
        (course((0.3, 0.3, 25)), "noisy", "noise hides"),
        (course((0.5, 0.5, 20), (0.0, 0.0, 2)), "collapsing", "since step 21"),
        (course((0.2, 0.7, 40), (0.7, 0.1, 100)), "collapsing", "lower `train.learning_rate`"),
        (course((0.5, 0.5, 30), **{"completions/clipped_ratio": 0.97}), "cut", "at 256 tokens"),
        (course((0.5, 0.5, 30), frac_reward_zero_std=0.9), "all same", "90% of the prompts"),
        (course((0.5, 0.5, 30), grad_norm=0.0), "all same", "`train.temperature`"),
        (course((0.0, 0.0, 30), accuracy=0.0, frac_reward_zero_std=1.0), "all wrong", "easier"),
        (
            course((1.0, 1.0, 30), accuracy=1.0, frac_reward_zero_std=1.0),
            "nearly all paid",
            "check",
        ),
        (course((0.3, 0.3, 60), grad_norm=math.nan), "not finite", "since step 1"),
        (
            with_format(0.1, 0.9, 30, course((0.1, 0.1, 80))),
            "format only",
            "and the answers are not",
        ),
        (with_format(0.1, 0.9, 90, course((0.1, 0.1, 40))), "format first", "so far"),
        (with_format(0.9, 0.1, 30, course((0.1, 0.1, 60))), "collapsing", "reward 1.52"),
        (course((0.3, 0.3, 60), kl=3.0), "drifting", "raise `train.beta`"),
        (course((0.3, 0.3, 60), entropy=ramp(0.8, 0.01, 40)), "no entropy", "0.6"),
        (course((0.3, 0.3, 60), grad_norm=lambda i: 9.0 if i % 15 == 7 else 0.3), "spikes", "norm"),
        (
            course((0.3, 0.3, 60), **{"completions/mean_length": ramp(200.0, 60.0, 40)}),
            "shorter",
            "167 -> 60 tokens",
        ),
        (
            course((0.3, 0.3, 60), **{"completions/mean_length": ramp(100.0, 240.0, 40)}),
            "longer",
            "lower `max_completion_length`",
        ),
    ],
)
def test_the_verdict_names_the_cause_and_the_one_change(rows, kind, names):
    verdict = say(rows)
    assert verdict.kind == kind and names in verdict.sentence, verdict.sentence
    assert health.sentence(rows, TERMS) == verdict.sentence


def replay(name, terms):
    rows = recorded.rows(name)
    return [health.verdict(rows[:num], terms) for num in range(len(rows) + 1)]


def test_the_format_learned_and_the_reasoning_dropped_is_not_called_learning():
    """Qwen2.5-Coder-0.5B on gsm_symbolic: reward 0.29 -> 2.03, accuracy 1 -> 4 %."""
    verdicts = replay("format", recorded.terms(SHIPPED))
    last = verdicts[-1]
    assert last.kind == "format only"
    assert "accuracy 3.8% -> 3.5%" in last.text and "length 161 -> 76 tokens" in last.text
    assert last.change == "take easier problems or a stronger model"
    assert not {"learning", "learned", "collapsing"} & {verdict.kind for verdict in verdicts}
    assert all(verdict.kind == "format only" for verdict in verdicts[40:])


def test_sums_that_are_learned_are_learning_from_the_tenth_step_on():
    """The same model on sums of 3 to 5 terms: accuracy 6 -> 69 %."""
    verdicts = replay("sums", recorded.terms(MOSTLY_RIGHT))
    assert {verdict.kind for verdict in verdicts[:10]} <= UNDECIDED | {"learning"}
    assert {verdict.kind for verdict in verdicts[10:]} == {"learning"}
    assert "accuracy 8.3% -> 63%" in verdicts[-1].text


@pytest.mark.parametrize(("name", "since"), [("collapse", {3, 4}), ("collapse-cut", {4})])
def test_a_collapse_is_named_before_the_cuts_that_it_causes(name, since):
    """The tiny recipe with a learning rate of 0.05 and of 0.03: 44 % right, none from step 5 on; up
    to all completions are cut, and go on to be at the lower rate."""
    rows = recorded.rows(name)
    assert max(one["completions/clipped_ratio"] for one in rows) > 0.99
    verdicts = replay(name, recorded.terms(SHIPPED, max_completion_length=40, max_steps=90))
    assert {verdict.kind for verdict in verdicts[5:]} == {"collapsing"}
    assert {verdict.since_step for verdict in verdicts[5:]} <= since
    assert verdicts[-1].change == "lower `train.learning_rate`"


def test_a_reward_that_is_hacked_is_named_in_the_step_in_which_it_begins():
    """The tiny recipe with weight 4 on short completions: 93 % right after 20 steps, none from step
    23 on, while the reward goes from 2.0 to 4.0."""
    weights = {"correctness": 0.5, "my.py:brevity": 4.0}
    verdicts = replay("hacked", recorded.terms(weights, max_steps=90))
    assert verdicts[20].kind == verdicts[21].kind == "learning"
    assert {verdict.kind for verdict in verdicts[22:]} == {"hacked"}
    assert {verdict.since_step for verdict in verdicts[22:]} <= {21, 22, 23}
    assert verdicts[-1].change == "lower the weight of `my.py:brevity`"
    assert "accuracy 77% -> 0%, reward 1.94 -> 4.00" in verdicts[-1].text


def test_shorter_without_better_answers_is_not_called_learning():
    """The tiny recipe on products, which it cannot do, with a reward of 0.3 for short completions:
    24 -> 2 tokens, reward 0.13 -> 0.30, accuracy 0."""
    weights = {"correctness": 1.0, "my.py:brevity": 0.3}
    verdicts = replay("shorter", recorded.terms(weights, max_completion_length=90, max_steps=90))
    assert {verdict.kind for verdict in verdicts} <= UNDECIDED | {"side reward", "shorter"}
    assert {verdict.kind for verdict in verdicts[31:]} == {"shorter"}
    assert "length 27 -> 2 tokens" in verdicts[-1].text
    assert verdicts[-1].change == "lower the weight of `my.py:brevity`"


def test_a_run_that_cannot_learn_is_not_said_to():
    """The tiny recipe with a learning rate of 1e-9: 90 steps of noise alone."""
    verdicts = replay("flat", recorded.terms(SHIPPED, max_completion_length=40, max_steps=90))
    assert verdicts[-1].kind == "not moving"
    assert {verdict.kind for verdict in verdicts} <= UNDECIDED | {"not moving"}


def test_only_held_out_accuracy_says_that_nothing_is_left():
    """The tiny model, whose checker also pays for a number copied from the question."""
    rows = recorded.rows("copied")
    weights = {"my.py:copied": 2.0, "soft_format": 0.5}
    terms = recorded.terms(weights, decisive="my.py:copied", max_steps=90)
    alone, going_on = (health.verdict(some, terms) for some in (rows, rows[:-1]))
    assert alone.kind == going_on.kind == "nearly all paid"
    assert alone.change == "the evaluation after training shows what it learned"
    assert going_on.change == "check with an evaluation"
    for accuracy, kind in ((0.97, "nothing left"), (0.4, "not transferring")):
        late = {**rows[-1], "eval/accuracy": accuracy, "eval/num_samples": 800}
        assert health.verdict([*rows[:-1], late], terms).kind == kind
    stale = {**rows[0], "eval/accuracy": 0.97, "eval/num_samples": 800}
    assert health.verdict([stale, *rows[1:]], terms).kind == "nearly all paid"


def test_the_small_evaluations_while_training_count_as_held_out():
    """16 problems with one sample each are 16 trials, and cannot be certain."""
    rows = course((0.97, 0.97, 40), frac_reward_zero_std=[0.9] * 40)
    change = "wait for the evaluation after training"
    for right, problems, kind in ((1.0, 200, "nothing left"), (1.0, 16, "nearly all paid")):
        evaluated = {"eval/accuracy": right, "eval/num_samples": problems}
        rows[-1] |= evaluated | {"eval/num_problems": problems}
        verdict = say(rows)
        assert verdict.kind == kind
        assert verdict.change == (change if kind == "nearly all paid" else "take harder problems")
    assert (one := HeldOut.of_row(rows[-1])) and one.trials == 16 and one.is_part
    assert HeldOut.of_row(rows[0]) is None
    summary = {"accuracy": 0.5, "num_problems": 100, "num_samples": 1}
    assert HeldOut.of_summary(0, summary).trials == 100
    assert HeldOut.of_summary(0, summary | {"num_samples": 4}).trials == 200


def test_cuts_that_explain_a_fall_are_no_collapse():
    """What is finished is as right as before."""
    share = ramp(0.0, 0.6, 40)
    rows = course((0.6, 0.24, 40), **{"completions/clipped_ratio": share})
    verdict = say(rows)
    assert verdict.kind == "cut" and "accuracy 57% -> 28%" in verdict.text
    assert verdict.change == "raise `max_completion_length`"


def test_held_out_accuracy_that_falls_while_training_gains_is_hacking():
    rows = course((0.2, 0.8, 60))
    for step, accuracy in ((20, 0.5), (40, 0.4), (60, 0.2)):
        rows[step - 1] |= {"eval/accuracy": accuracy, "eval/num_samples": 800}
    verdict = say(rows)
    assert (verdict.kind, verdict.since_step) == ("hacked", 20)
    assert "50% -> 20%" in verdict.text


def test_a_gain_that_held_out_problems_do_not_show_does_not_transfer():
    rows = course((0.2, 0.8, 60))
    rows[-1] |= {"eval/accuracy": 0.22, "eval/num_samples": 800}
    summary = {"accuracy": 0.2, "num_problems": 200, "num_samples": 4}
    verdict = say(rows, held_out=[HeldOut.of_summary(0, summary)])
    assert verdict.kind == "not transferring" and "held-out accuracy 20% -> 22%" in verdict.text
    rows[-1] |= {"eval/accuracy": 0.75}
    assert say(rows, held_out=[HeldOut.of_summary(0, summary)]).kind == "learning"


def test_a_decisive_reward_that_pays_in_parts_counts():
    rows = course((0.0, 0.0, 60), accuracy=0.0)
    for i, one in enumerate(rows):
        one |= {"rewards/correctness/mean": 0.2 + 0.005 * i, "reward": 0.8 + 0.01 * i}
    verdict = say(rows)
    assert verdict.kind == "learning" and "`correctness` pays 0.2" in verdict.text


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (("accuracy",), "Learning: correctness 22% -> "),
        (("accuracy", "rewards/correctness/mean"), "Learning: reward 0.8"),
    ],
)
def test_old_rows_without_an_accuracy_are_judged_by_what_they_have(missing, says):
    rows = [
        {key: value for key, value in one.items() if key not in missing}
        for one in course((0.2, 0.8, 40))
    ]
    assert say(rows).text.startswith(says)
    assert "(no accuracy in these rows)" in say(rows).text


@pytest.mark.parametrize("name", sorted(set(rewards.SHIPPED) - {"correctness"}))
def test_every_shipped_reward_for_the_form_is_judged_as_one(name):
    terms = Terms({"correctness": 1.0, name: 1.0}, "correctness", 256, 256, 8, 100)
    rows = course((0.3, 0.3, 60), **{f"rewards/{name}/mean": ramp(0.1, 0.9, 40)})
    for one in rows:
        one["reward"] = one["accuracy"] + one[f"rewards/{name}/mean"]
    kinds = {"form": {"format first", "format only"}, "answer": {"side reward"}}
    assert say(rows, terms).kind in kinds[rewards.SHIPPED[name].pays_for]


def test_what_rises_beside_the_answers_is_named_by_its_reward():
    terms = Terms({"correctness": 1.0, "brevity": 1.0}, "correctness", 256, 256, 8, 100)
    rows = course((0.3, 0.3, 60), **{"rewards/brevity/mean": ramp(0.1, 0.9, 40)})
    for one in rows:
        one["reward"] = one["accuracy"] + one["rewards/brevity/mean"]
    verdict = say(rows, terms)
    assert (verdict.kind, verdict.change) == ("side reward", "lower the weight of `brevity`")
    for i, one in enumerate(rows):
        one["completions/mean_length"] = 200 - 2.5 * i
    assert say(rows, terms).kind == "shorter"
    assert say(rows, terms).change == "lower the weight of `brevity`"


def test_learning_in_spite_of_cuts_says_so():
    verdict = say(course((0.2, 0.8, 40), **{"completions/clipped_ratio": 0.3}))
    assert verdict.kind == "learning" and "30% of the completions are cut" in verdict.text
    assert verdict.change == "raise `max_completion_length`"


def test_a_reward_that_drowns_the_answers_is_named():
    rows = course((0.3, 0.3, 100))
    for one in rows:
        one |= {f"rewards/{name}/std": 0.1 for name in SHIPPED} | {"rewards/xml_tags/std": 0.9}
    verdict = say(rows)
    assert verdict.kind == "not moving" and "`xml_tags` makes" in verdict.text
    assert verdict.change == "lower its weight"


def test_not_finite_needs_every_row():
    assert health.not_finite([row(1, grad_norm=math.inf)])
    assert not health.not_finite([row(1, grad_norm=math.nan), row(2)])
    assert not health.not_finite([])
    later = [*course((0.3, 0.3, 40)), row(41, grad_norm=math.nan), row(42, grad_norm=math.inf)]
    assert say(later).since_step == 41


def test_rows_that_say_nothing_are_no_error():
    for length in (1, 5, 12, 40, 80):
        for empty in ({}, {"reward": math.nan}, {"reward": 1.0}, {"accuracy": None, "reward": 0.0}):
            rows = [{"step": i + 1} | empty for i in range(length)]
            assert say(rows).kind in UNDECIDED | {"not moving"}


def test_a_verdict_changes_nothing_and_takes_little_time():
    rows = course((0.2, 0.6, 200), (0.6, 0.6, 1800))
    before = copy.deepcopy(rows)
    began = time.perf_counter()
    say(rows)
    assert time.perf_counter() - began < 0.5  # 20 ms alone on an idle machine
    assert rows == before

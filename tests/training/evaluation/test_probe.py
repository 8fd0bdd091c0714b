import dataclasses
from pathlib import Path
from typing import Any

import pytest

from r1recipes import planning
from r1recipes.errors import RunError
from r1recipes.recipe import loading
from r1recipes.training.evaluation import Score
from r1recipes.training.evaluation import probe as training_probe
from r1recipes.training.evaluation.probe import Probe, outlook, refuse_hopeless, unpaid
from tests.conftest import SMALL
from tests.training.evaluation.test_evaluation import answered, pay, rows

PLAN = planning.make(
    loading.load_text(SMALL, Path("small.toml")).recipe,
    planning.Target.here(None, 1),
    base_dir=Path(),
)


def probed(num_problems, num_samples, right):
    items = answered(num_problems, num_samples, right)
    return training_probe.probe(items, rows(num_problems), {"correctness": (pay, 1.0)})


def test_probe_sees_spread():
    mixed = probed(4, 2, lambda p, s: s == 0)
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
    result = probed(num_problems, num_samples, right)
    if message is None:
        return refuse_hopeless(result, PLAN)
    with pytest.raises(RunError, match=message):
        refuse_hopeless(result, PLAN)


def test_what_is_cut_is_refused_unless_it_is_a_handful():
    cut = Probe(share_cut=0.97, share_rewarded=0.1, share_spread=0.1, num_problems=4, num_samples=2)
    with pytest.raises(RunError, match="97% .* cut at max_completion_length = 40"):
        refuse_hopeless(cut, PLAN)
    refuse_hopeless(dataclasses.replace(cut, num_problems=3), PLAN)


SEEN = Probe(0.0, 0.6, 0.6, num_problems=50, num_samples=4)


@pytest.mark.parametrize(
    ("changes", "start", "hint"),
    [
        ({"share_right": 0.1, "share_decisive_spread": 0.3}, "Answers can be learned", "30% of"),
        ({"share_right_anywhere": 0.2}, "warning: only the format can be learned", "[cold_start]"),
        ({"share_right_anywhere": 0.0}, "warning: only the format", "easier problems"),
        ({"share_spread": 0.0}, "warning: nothing can be learned", "easier problems"),
        ({"share_right": 1.0, "share_tagged": 1.0}, "warning: little is left", "harder problems"),
        ({"num_samples": 1, "share_decisive_spread": 1.0}, "Answers can", "`correctness` differs"),
    ],
)
def test_the_outlook_says_whether_answers_or_only_the_format_can_be_learned(changes, start, hint):
    sentence = outlook(dataclasses.replace(SEEN, **changes), "correctness")
    assert sentence.startswith(start) and hint in sentence


@pytest.mark.parametrize(
    ("changes", "is_named"),
    [
        ({"share_right": 0.3, "share_decisive_spread": 0.3}, True),
        ({"share_right": 0.8, "share_decisive_spread": 0.5}, True),
        ({"share_right": 0.3, "share_decisive_spread": 0.0}, True),  # some always, some never
        ({"share_right": 0.3, "share_decisive_spread": 0.6}, False),  # most groups teach
        ({"share_right": 0.0, "share_decisive_spread": 0.0}, False),  # nothing is in between
        ({"share_right": 1.0, "share_decisive_spread": 0.0}, False),
        ({"share_right": 0.3, "share_decisive_spread": 1.0, "num_samples": 1}, False),
    ],
)
def test_the_outlook_names_the_filter_where_it_can_help(changes, is_named):
    result = dataclasses.replace(SEEN, **changes)
    assert ("`data.keep = [0.1, 0.9]`" in outlook(result, "correctness")) is is_named
    assert "data.keep" not in outlook(result, "correctness", is_filtered=True)


def test_answers_outside_the_tags_are_seen():
    """A model that knows the answers and not the format is told apart from one that knows none."""
    items = answered(4, 2, lambda problem, sample: False)
    for number, item in enumerate(items):
        for sample in item["samples"]:
            sample["text"] = f"The answer is {number}."
    result = training_probe.probe(
        items, rows(4), {"correctness": (pay, 1.0)}, lambda pairs: [a == b for a, b in pairs]
    )
    assert (result.share_tagged, result.share_right, result.share_right_anywhere) == (0, 0, 1)
    items[0]["samples"][0] |= {"text": "<answer>0</answer>", "right": True}
    result = training_probe.probe(items, rows(4), {"correctness": (pay, 1.0)})
    assert result.share_tagged == result.share_right == 0.125
    assert result.share_decisive_spread == 0.25 and result.share_right_anywhere is None


def test_a_reward_that_paid_nothing_before_training_is_named():
    def nothing(completions: list[Any], **columns: Any) -> list[float | None]:
        return [0.0 for _ in completions]

    items, one = answered(4, 2, lambda problem, sample: sample == 0), (nothing, 1.0)
    rewards: dict[str, tuple[Score, float]] = {"right": (pay, 1.0), "soft_format": one}
    rewards |= {"length": one, "off": (nothing, 0.0)}
    result = training_probe.probe(items, rows(4), rewards)
    assert result.unpaid == "soft_format, length"
    warning = unpaid(result, "right")
    assert warning.startswith("warning: `soft_format`, `length` paid 0 for all 8 completions")
    assert "grade RECIPE --sample 8" in warning
    assert "length" not in unpaid(result, "length")
    assert unpaid(probed(4, 2, lambda problem, sample: False), "correctness") == ""

"""The lengths that stand for a real run: whose they are, and what is drawn from them."""

import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.lengths import COMPLETIONS, LIMIT, METRICS
from r1recipes.machine.files import read_lines
from r1recipes.planning.speed.lengths import REAL, Lengths, of_tokens

ROOT = Path(__file__).parents[2]
OWN = of_tokens("mine", range(10, 111), (50.0, 5.0))


def test_the_package_has_the_numbers_of_the_run():
    check = [sys.executable, "-m", "benchmarks.speed.lengths", "--check"]
    done = subprocess.run(check, cwd=ROOT)
    assert done.returncode == 0, "run `python -m benchmarks.speed.lengths`"


def test_the_lengths_have_the_mean_and_the_tail_of_a_step():
    rows = read_lines(METRICS)
    mean, longest = REAL.expected(COMPLETIONS, LIMIT)
    for expected, key in ((mean, "mean"), (longest, "max")):
        measured = statistics.fmean(row[f"completions/{key}_length"] for row in rows)
        assert expected == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("lengths", [REAL, OWN], ids=["real", "own"])
@pytest.mark.parametrize("limit", [1, 24, 40, 512, 4096])
@pytest.mark.parametrize("count", [2, 16, 256])
def test_what_is_drawn_keeps_to_the_limit_and_to_the_distribution(lengths, limit, count):
    drawn = lengths.completions(random.Random(1), count, limit)
    assert drawn == lengths.completions(random.Random(1), count, limit)
    assert drawn != lengths.completions(random.Random(2), count, limit) or limit == 1
    assert len(drawn) == count and 1 <= min(drawn) and max(drawn) <= limit
    mean, longest = lengths.expected(count, limit)
    assert 1 <= mean <= longest <= limit
    if count == 256:
        assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.05)


def test_lengths_of_the_package_grow_with_the_limit_and_those_of_a_run_do_not():
    assert REAL.expected(64, 1024)[0] == pytest.approx(2 * REAL.expected(64, 512)[0], rel=0.01)
    assert OWN.expected(64, 1024) == OWN.expected(64, 512)
    assert OWN.expected(64, 50)[0] < OWN.expected(64, 512)[0] and OWN.expected(64, 50)[1] == 50


def test_prompts_are_within_their_limits():
    prompts = REAL.prompts(random.Random(1), 400, 20, 256)
    assert statistics.fmean(prompts) == pytest.approx(REAL.prompt_mean, rel=0.02)
    assert len(set(prompts)) > 20 and max(prompts) <= 256
    assert set(REAL.prompts(random.Random(1), 9, 20, 56)) == {56} == {REAL.expected_prompt(56)}
    assert set(Lengths("short", OWN.quantiles, 3, 1).prompts(random.Random(1), 9, 20, 56)) == {20}


def test_a_single_completion_is_a_distribution_and_none_is_not():
    assert set(of_tokens("one", [7], (5, 0)).completions(random.Random(1), 5, 40)) == {7}
    with pytest.raises(ValueError, match="no completions"):
        of_tokens("none", [], (5, 0))

"""The time of a step: which of two settings is faster, at full length and with real lengths."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speed.model import (
    FITTED,
    committed,
    error_with,
    is_right,
    mean_error,
    pairs,
    read,
    rehearsals,
)
from r1recipes import recipe
from r1recipes.machine import cards
from r1recipes.machine.files import read_lines
from r1recipes.machine.units import GIB
from r1recipes.planning import Plan, auto, speed
from r1recipes.planning.memory.case import ADAM_8BIT_BYTES, Case
from r1recipes.planning.speed.lengths import REAL, Lengths, of_mean, of_tokens
from r1recipes.runs.reading import Row
from r1recipes.training.rehearsal.drawn import of_prompts
from tests.helpers import in_process, shape

TIMED = list(rehearsals(committed()))
CLEAR_PAIRS = pairs(TIMED)
H200 = cards.GPUS["H200 141GB"].peak or cards.UNLISTED
H100 = cards.GPUS["H100 80GB"].peak or cards.UNLISTED
RUNS = Path(__file__).parents[2] / "benchmarks" / "learning" / "results"
QWEN, SMOLLM = "Qwen/Qwen2.5-Coder-0.5B-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"
MODELS = {
    "qwen2.5-coder-0.5b-gsm_symbolic": QWEN,
    "qwen2.5-coder-0.5b-sums": QWEN,
    "smollm2-135m-sums": SMOLLM,
}
CASE = Case(
    *(shape(QWEN), "16bit", 768, 512, 32, ("q_proj",), 255, 32),
    *(20 * GIB, False, ADAM_8BIT_BYTES),
)


@pytest.mark.parametrize("pair", CLEAR_PAIRS, ids=lambda pair: f"{pair[0].name}, {pair[1].name}")
def test_the_faster_of_two_measured_settings_is_known(pair):
    assert is_right(pair)


def test_the_pairs_differ_in_everything_that_is_chosen():
    assert len(CLEAR_PAIRS) > 100 and len({pair[0].case.shape for pair in CLEAR_PAIRS}) >= 5
    for key in ("batch", "load_in", "standby", "num_seqs"):
        differ = [p for p in CLEAR_PAIRS if getattr(p[0].case, key) != getattr(p[1].case, key)]
        assert len(differ) >= 5, key


@pytest.mark.parametrize(("part", "most"), [("generation_s", 0.10), ("training_s", 0.15)])
def test_the_errors_are_those_that_the_model_states(part, most):
    assert len(TIMED) >= 76
    modelled = [getattr(each.modelled, part) for each in TIMED]
    assert mean_error(modelled, [getattr(each.measured, part) for each in TIMED]) < most


def test_the_constants_are_a_fit():
    """A change of any of them makes the error larger, or hardly smaller; none stays changed."""
    for part, names in FITTED.items():
        error = error_with({}, committed(), part)
        for name in names:
            for factor in (0.7, 1.4):
                changed = {name: factor * read(name)}
                assert error_with(changed, committed(), part) > error - 0.003, (name, factor)
        assert error_with({}, committed(), part) == error


def lengths_of(row: Row, prompt: float) -> Lengths:
    """A distribution with the mean and the greatest length of a step."""
    mean, longest = row["completions/mean_length"], row["completions/max_length"]
    return Lengths("step", ((0, mean), (0.99, mean), (0.9901, longest), (1, longest)), prompt, 1)


@pytest.mark.parametrize("run", sorted(RUNS.glob("*/metrics.jsonl")), ids=lambda p: p.parent.name)
def test_a_real_run_is_about_as_fast_as_the_model_says(run):
    """With the lengths of each step; all ran on machines that others used too, and so slower."""
    plan = Plan.model_validate_json((run.parent / "resolved.json").read_text())
    case = auto.case_of(plan.recipe, plan.preset, shape(MODELS[run.parent.name]), 79 * GIB)
    group, rows = plan.preset.num_generations, read_lines(run)[1:]
    sizes = (case, plan.completions_per_step, group, 1_000_000, H100)
    prompt, _ = of_prompts(rows[1:], plan.preset.prompts_per_step, plan.completions_per_step)
    modelled = [speed.step(*sizes, lengths_of(row, prompt), plain=True) for row in rows]
    for part, name in (("generation_s", "generation"), ("training_s", "backward")):
        measured = sum(row[f"time/{name}_s"] for row in rows)
        ratio = sum(getattr(time, part) for time in modelled) / measured
        assert 0.4 < ratio < 1.1, (part, ratio)


def test_real_lengths_take_less_time_and_longer_ones_more():
    for kv_tokens in (20_000, 1_000_000):
        for completions in (8, 64, 248, 256):
            sizes = (replace(CASE, num_seqs=min(completions, 255)), completions, 8)
            full = speed.step(*sizes, kv_tokens, H200)
            times = [speed.step(*sizes, kv_tokens, H200, of_mean(n)) for n in (30, 90, 200)]
            steps = [time.step_s for time in times]
            assert steps == sorted(steps) and steps[-1] < full.step_s
            same = speed.step(*sizes, kv_tokens, H200, of_tokens("full", [512], (256, 0)))
            assert same.step_s == pytest.approx(full.step_s)


def test_completions_that_do_not_fit_at_once_take_longer():
    times = [speed.step(CASE, 248, 8, kv, H200).generation_s for kv in (10_000, 40_000, 400_000)]
    assert times == sorted(times, reverse=True) and times[0] > 1.5 * times[-1]
    one_more = speed.step(CASE, 256, 8, 400_000, H200).generation_s  # 255 at once, then the last
    assert one_more > 1.1 * times[-1]


def test_lengths_of_a_mean_have_it():
    for mean in (20, 150, 300):
        assert of_mean(mean).expected(64, 4096)[0] == pytest.approx(mean, rel=0.01)
    real_mean, longest = REAL.expected(64, 512)
    assert of_mean(real_mean).expected(64, 512)[1] == pytest.approx(longest, rel=0.02)


NAMES = [path.stem for path in recipe.shipped() if "cpu" not in recipe.load(path).recipe.preset]
UNFIT = {
    ("gemma3-1b", "t4"): "needs bfloat16",
    **{("llama3.3-70b", gpu): "nothing fits" for gpu in ("t4", "l4", "rtx 4090")},
}


@pytest.mark.parametrize("gpu", ["t4", "l4", "rtx 4090", "h100"])
@pytest.mark.parametrize("name", NAMES)
def test_a_fitting_preset_is_there_for_every_recipe(name, gpu):
    """Also where `eval.every` asks for large steps."""
    code, out, err = in_process("plan", name, "--gpu", gpu, "--fit")
    if (name, gpu) in UNFIT:
        assert code == 2 and UNFIT[name, gpu] in err
        return
    assert code == 0, err
    (preset,) = tomllib.loads(out)["preset"].values()
    assert preset["prompts_per_step"] * preset["num_generations"] <= 256
    assert len(re.findall(r"at full length .*\n.* with real lengths", out)) == 1


def test_a_small_model_gets_large_steps_and_passes():
    """It had 128 completions in passes of 8; memory that makes nothing faster stays free."""
    out = in_process("plan", "qwen2.5-coder-0.5b", "--gpu", "rtx 4090", "--fit")[1]
    (preset,) = tomllib.loads(out)["preset"].values()
    assert preset["prompts_per_step"] * 8 >= 240 and preset["per_device_train_batch_size"] >= 16
    assert "GiB stay free: no setting that fits is clearly faster" in out


def test_the_plan_says_both_speeds():
    def speeds(*flags: str) -> list[float]:
        out = in_process("plan", "phi4", "--gpu", "l4", *flags)[1]
        sentence = out[out.index("\nspeed ") :]
        assert "counted as" not in sentence
        return [float(text) for text in re.findall(r"(\d+\.\d) s", sentence)]

    full, real = speeds()
    assert full > real > 0
    assert speeds("--mean-length", "40")[1] < real < speeds("--mean-length", "400")[1] < full
    assert speeds("--mean-length", "40")[0] == full
    assert "counted as an RTX 4090" in in_process("plan", "phi4", "--vram", "24")[1]
    assert in_process("plan", "phi4", "--vram", "24", "--mean-length", "0")[0] == 2

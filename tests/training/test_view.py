import io

import pytest
from rich.console import Console

from r1recipes import planning, recipe
from r1recipes.runs.record import Run
from r1recipes.training.view import View, fact_parts, sparkline

ROW = {
    "step": 1,
    "reward": 2.345,
    "reward_std": 0.5,
    "rewards/correctness/mean": 0.62,
    "rewards/correctness/std": 0.4,
    "frac_reward_zero_std": 0.25,
    "completions/mean_length": 31.2,
    "completions/clipped_ratio": 0.01,
    "accuracy": 0.62,
    "grad_norm": 0.31,
    "learning_rate": 9.8e-4,
    "loss": 0.0012,
}
LONG = "one two three four /a/path/that/is-long"


@pytest.fixture
def resolved(small, tmp_path):
    loaded = recipe.load(small)
    return planning.make(loaded.recipe, planning.Target.here(None, 2), base_dir=tmp_path)


def shown(view: View, out: io.StringIO) -> str:
    view.console.print(view.render())
    return out.getvalue()


def test_lines_without_a_terminal_have_no_control_codes(resolved, tmp_path):
    out = io.StringIO()
    with View(Console(file=out, width=100)) as view:
        view.begin(Run(tmp_path), resolved)
        view.phase("Training")
        for step in range(1, 7):
            view.step(ROW | {"step": step})
    text = out.getvalue()
    assert "\x1b" not in text and "\r" not in text
    assert "step 6/6  reward 2.35  accuracy 62%  spread 0.50" in text
    assert "Too early to tell" in text


HELD_OUT = {
    "eval/accuracy": 0.5,
    "eval/accuracy_low": 0.3,
    "eval/accuracy_high": 0.7,
    "eval/num_problems": 20,
    "eval/num_samples": 20,
}


def test_the_last_held_out_accuracy_is_shown_with_its_interval(resolved, tmp_path):
    text = "held out, step 2: accuracy 50% (30% to 70%), 20 problems x 1 sample"
    out = io.StringIO()
    with View(Console(file=out, width=100)) as view:
        view.begin(Run(tmp_path), resolved)
        for step in range(1, 4):
            view.step(ROW | {"step": step} | (HELD_OUT if step == 2 else {}))
    assert out.getvalue().count(text) == 1
    out = io.StringIO()
    view = View(Console(file=out, width=120), live=True)
    view.begin(Run(tmp_path), resolved.model_copy(update={"eval_problems": 20}))
    assert "20 held-out problems are answered once" in out.getvalue()
    view.phase("Training")
    view.step(ROW | {"accuracy_low": 0.5, "accuracy_high": 0.7})
    assert "accuracy 62% (50% to 70%)" in shown(view, out) and "held out," not in out.getvalue()
    view.step(ROW | {"step": 2} | HELD_OUT)
    view.step(ROW | {"step": 3})
    assert text in shown(view, out)


@pytest.mark.parametrize(
    ("is_terminal", "lines"),
    [(True, ["one two three", "four", "/a/path/that/is-long"]), (False, [LONG])],
)
def test_a_terminal_gets_lines_broken_between_words_and_paths_whole(is_terminal, lines):
    out = io.StringIO()
    View(Console(file=out, width=15, force_terminal=is_terminal), live=False).note(LONG)
    assert out.getvalue().splitlines() == lines


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_panel_shows_what_matters(resolved, tmp_path, width):
    out = io.StringIO()
    view = View(Console(file=out, width=width, force_terminal=True, color_system=None), live=True)
    view.begin(Run(tmp_path), resolved)
    view.phase("Training")
    for step in range(1, 25):
        learned = {"reward": 1 + step / 20, "accuracy": 0.14 + step / 50}
        view.step(ROW | learned | {"step": step})
    text = shown(view, out).split("Training", 1)[1]
    for part in (
        "24/6",
        "reward 2.20 of 4",
        "▁",
        "correctness 0.62",
        "accuracy 62%",
        "cut 1%",
        "Learning: accuracy",
        "near 0 by construction in GRPO",
    ):
        assert part in text.replace("\n", " ").replace("  ", " ") or part in text, part
    assert all(len(line) <= width for line in text.splitlines())


def test_reward_failures_are_shown():
    parts = fact_parts(ROW | {"reward_failures": {"my.py:f/timeout": 2}})
    assert parts[-1] == "reward failures 2"


def test_sparkline():
    assert sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert sparkline([1.0, None, 1.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)))) == 40


def test_time_left_is_counted_from_the_last_steps(resolved, tmp_path):
    view = View(Console(file=io.StringIO()), live=False)
    view.begin(Run(tmp_path), resolved)
    view.phase("Training")
    assert view.seconds_left() is None
    view.step(ROW)
    assert view.seconds_left() == pytest.approx(view._step_times[0] * 5)

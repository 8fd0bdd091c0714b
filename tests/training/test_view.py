import io

import pytest
from rich.console import Console

from r1recipes import planning, recipe
from r1recipes.runs.record import Run
from r1recipes.training.view import View
from r1recipes.training.view.lines import fact_parts, flow, sparkline, step_text

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


WIDTHS = (40, 50, 60, 80, 120, 200)


def live_view(width: int) -> tuple[View, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    return View(console, live=True), out


@pytest.mark.parametrize("width", WIDTHS)
def test_the_panel_shows_what_matters_at_any_width(resolved, tmp_path, width):
    view, out = live_view(width)
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
        "s a step",
    ):
        assert part in " ".join(text.split()), part
    assert all(len(line) <= width for line in text.splitlines())
    assert "accuracy 62%\n" in text or "accuracy 62%  " in text, "no fact is broken in two"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "title", ["Starting", "Cold start", "Evaluation (stage 1-sft)", "Training (stage 2-online_dpo)"]
)
def test_every_stage_fits_any_width_with_its_name_count_and_time(resolved, tmp_path, width, title):
    view, out = live_view(width)
    view.begin(Run(tmp_path), resolved)
    view.phase(title)
    out.seek(0)
    out.truncate()
    assert title in shown(view, out)
    for done in (122, 123):
        view.progress(done, 2000)
        view.loss(0.5)
    text = shown(view, out)
    assert "123/2000" in text and " left" in text
    assert all(len(line) <= width for line in text.splitlines())


def test_a_cold_start_shows_its_loss_and_time_in_a_terminal(resolved, tmp_path):
    view, out = live_view(80)
    view.begin(Run(tmp_path), resolved)
    view.phase("Cold start")
    for done in range(1, 41):
        view.progress(done, 40)
        view.loss(2.0 - done / 40)
        if done == 20:
            text = shown(view, out)
            assert "loss 1.500 " in text and "▁" in text and "s a step" in text
    assert "Cold start: 40 steps in 0 s, loss 1.000\n" in out.getvalue()


def test_a_cold_start_prints_lines_without_a_terminal(resolved, tmp_path):
    out = io.StringIO()
    view = View(Console(file=out, width=100), live=False)
    view.begin(Run(tmp_path), resolved)
    view.phase("Cold start")
    for done in range(1, 501):
        view.progress(done, 500)
        view.loss(2.0 - done / 500)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("step ")]
    assert len(lines) == 21 and lines[0].startswith("step 1/500  loss 1.998")
    assert lines[-1].startswith("step 500/500  loss 1.000") and " left" not in lines[-1]


def test_the_time_left_of_a_cold_start_is_that_of_the_steps_after_the_first(
    resolved, tmp_path, monkeypatch
):
    """The first step loads and compiles; and one that goes on from a checkpoint begins late."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    view = View(Console(file=io.StringIO()), live=False)
    view.begin(Run(tmp_path), resolved)
    view.phase("Cold start")
    view.progress(300, 500)
    assert view.seconds_left() is None
    for done, seconds in ((301, 60.0), (302, 2.0), (303, 4.0)):
        now += seconds
        view.progress(done, 500)
        view.loss(1.0)
    assert view.seconds_left() == pytest.approx(3.0 * 197)


def test_the_steps_of_a_training_take_the_time_of_what_is_between_them(
    resolved, tmp_path, monkeypatch
):
    """`eval.every` answers problems between some of the steps."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    out = io.StringIO()
    view = View(Console(file=out, width=200), live=False)
    view.begin(Run(tmp_path), resolved)
    view.phase("Training")
    for step, seconds in enumerate((90.0, 10.0, 10.0, 40.0), 1):
        now += seconds
        view.step(ROW | {"step": step})
    assert view.seconds_left() == pytest.approx(20.0 * 2)
    assert "step 4/6" in out.getvalue() and "20.0 s a step  40 s left" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s a step"), (4.14, "4.1 s a step"), (65, "1 min 05 s a step")],
)
def test_seconds_a_step(seconds, text):
    assert step_text(seconds) == text


def test_facts_are_broken_only_between_two_of_them():
    assert flow(["one two", "three", "four five six"], 14) == "one two  three\nfour five six"
    assert flow(["longer than the width"], 5) == "longer than the width"
    assert flow([], 5) == ""


def test_reward_failures_are_shown():
    parts = fact_parts(ROW | {"reward_failures": {"my.py:f/timeout": 2}})
    assert parts[-1] == "reward failures 2"


def test_sparkline():
    assert sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert sparkline([1.0, None, 1.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)))) == 40

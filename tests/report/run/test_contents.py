"""What a page has: charts, verdict, samples, several runs; and the time that it takes."""

import json
import re
import time

import pytest

from r1recipes.machine import files
from r1recipes.report import curves, samples
from r1recipes.report import run as report_run
from r1recipes.report.charts import has_data
from r1recipes.runs import reading
from r1recipes.runs.record import Run
from tests.helpers import run_in_process
from tests.report.run.pages import headline, keys_of_charts, names_of_series


@pytest.mark.slow
def test_a_run_leaves_its_page(finished):
    page = finished.report.read_text()
    assert len(page) < 200_000
    assert "Accuracy on 6 held-out problems, before → after training" in page
    keys = ["accuracy", "accuracy-greedy", "reward", "rewards", "spread", "length", "cut"]
    keys += ["grad-norm", "learning-rate", "time", "stages"]
    assert set(keys) <= set(keys_of_charts(page))
    assert "kl" not in keys_of_charts(page) and "not measured at beta = 0" in page
    assert "Training samples of step 1 against step 6" in page
    assert re.search(r"samples right<span class=\"pill[^>]*>greedy: (right|wrong)<", page)
    assert finished.read()["fingerprint"][:8] in page
    assert "r1recipes run small.toml --preset cpu" in page


@pytest.mark.slow
def test_every_chart_has_its_data_as_csv(finished, tmp_path):
    written = report_run.write_csv([finished], tmp_path / "csv")
    assert {path.stem for path in written} == set(keys_of_charts(report_run.html([finished])))
    lines = (tmp_path / "csv" / "reward.csv").read_text().splitlines()
    rows = files.read_lines(finished.metrics)
    assert lines[0] == "step,reward" and len(lines) == len(rows) + 1
    assert float(lines[1].split(",")[1]) == pytest.approx(rows[0]["reward"], rel=1e-6)


@pytest.mark.slow
def test_the_verdict_says_better_worse_or_neither(copy):
    def verdict(mean: float, low: float, high: float) -> str:
        evaluation = copy.read()["evaluation"]
        evaluation["difference"] = {"mean": mean, "interval": [low, high]}
        copy.update(evaluation=evaluation)
        page = report_run.html([copy])
        return page[page.index('<div class="verdict') : page.index("<dl")]

    assert "better" in verdict(0.5, 0.4, 0.6) and "Better: +50.0 points" in verdict(0.5, 0.4, 0.6)
    assert "Worse: -50.0 points" in verdict(-0.5, -0.6, -0.4)
    assert "No clear difference: +1.0 points" in verdict(0.01, -0.02, 0.04)


@pytest.mark.slow
def test_runs_with_different_problems_have_no_headline(finished, copy):
    words = headline(report_run.html([finished, copy]))
    assert words.startswith("A and B are equal")
    rows = files.read_lines(copy.evaluation("after"))
    for row in rows[3:]:
        row["question"] += " and 1"
    copy.evaluation("after").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report_run.html([finished, copy])
    assert "answered different problems" in page and 'class="big"' not in page
    copy.evaluation("after").unlink()
    page = report_run.html([finished, copy])
    assert "B came without answers" in page and 'class="big"' not in page


@pytest.mark.slow
def test_a_reward_that_never_paid_is_named(copy):
    rows = files.read_lines(copy.metrics)
    names = [key.split("/")[1] for key in rows[0] if key.startswith("rewards/")]
    side = next(name for name in names if name != "correctness")
    for row in rows:
        row |= {f"rewards/{name}/mean": 1.0 for name in names}
        row |= {f"rewards/{side}/mean": 0.0, "rewards/correctness/mean": 0.0}
    copy.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f"{side} paid 0 in all {len(rows)} steps." in report_run.html([copy])
    copy.update(status="stopped")
    assert f"{side} paid 0 in all {len(rows)} steps." in report_run.html([copy])


@pytest.mark.slow
def test_curves_come_before_what_differs(finished, copy):
    plan = json.loads(copy.resolved.read_text())
    plan["recipe"]["train"]["beta"] = 0.25
    copy.resolved.write_text(json.dumps(plan))
    page = report_run.html([finished, copy])
    assert page.index(">Learning<") < page.index("Paired comparison") < page.index("train.beta")
    assert page.count('<span class="key t') == 2, "a label has the colour of its curve"


@pytest.mark.slow
def test_samples_are_grouped_by_their_prompt(copy):
    rows = [row for row in files.read_lines(copy.completions) if row["step"] == 1]
    rows = [row | {"prompt": f"question {k // 3}"} for k, row in enumerate(3 * rows)]
    copy.completions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = samples.choose(reading.read(copy))
    assert chosen is not None
    (column,) = chosen.columns
    numbers = [len(prompt.completions) for prompt in column.prompts]
    assert [prompt.question for prompt in column.prompts[:2]] == ["question 0", "question 1"]
    assert set(numbers) == {3} and sum(numbers) == len(rows)
    page = report_run.html([copy])
    assert page.count("question 1</div>") == 1


@pytest.mark.slow
def test_a_completion_that_shows_nothing_is_named(copy):
    rows = files.read_lines(copy.completions)
    for row, text in zip(rows, ["", "\n\n\n", "a\n\n\n \n\nb"], strict=False):
        row["completion"] = text
    copy.completions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report_run.html([copy])
    assert "(empty)" in page and "(only white space, 3 characters)" in page
    assert "a\n(4 empty lines)\nb" in page


@pytest.mark.slow
def test_memory_and_phases_are_drawn_when_they_are_known(copy):
    copy.update(vram={"predicted_bytes": 6 * 2**30, "measured_bytes": 7 * 2**30})
    page = report_run.html([copy])
    assert "memory" in keys_of_charts(page) and "7 GiB" in page
    names = names_of_series(curves.cost([reading.read(copy)]), "time")
    assert names[:3] == ["whole step", "generation", "rewards"]


@pytest.mark.slow
def test_a_page_can_be_made_of_the_record_alone(copy):
    for path in copy.folder.iterdir():
        if path.is_file() and path.name != "record.json":
            path.unlink()
    assert keys_of_charts(report_run.html([copy])) == ["accuracy", "accuracy-greedy", "stages"]


@pytest.mark.slow
def test_several_runs_are_overlaid_and_compared(finished, copy):
    plan = json.loads(copy.resolved.read_text())
    plan["recipe"]["train"]["beta"] = 0.25
    copy.resolved.write_text(json.dumps(plan))
    page = report_run.html([finished, copy])
    assert re.search(r"<td>train.beta</td><td>0.0</td><td>0.25</td>", page)
    assert "the same 6 problems" in page and "A and B are equal on the problems" in page
    rows = files.read_lines(copy.evaluation("after"))
    rows[0]["samples"][0]["right"] = not rows[0]["samples"][0]["right"]
    copy.evaluation("after").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "no clear winner" in report_run.html([finished, copy])
    assert {"reward", "reward-correctness", "duration"} <= set(keys_of_charts(page))
    charts = curves.every([reading.read(finished, "A"), reading.read(copy, "B")])
    assert names_of_series(charts, "reward") == ["A", "B"]
    assert all(has_data(chart) for chart in charts)


def test_the_samples_that_tell_most_come_first():
    def item(number, right):
        return {"question": str(number), "greedy": {"right": right}}

    before = [item(i, right) for i, right in enumerate([True, True, False, False, False, False])]
    after = [item(i, right) for i, right in enumerate([True, False, True, True, True, False])]
    picked = [(change, old["question"]) for change, old, _ in samples.pick(before, after)]
    assert picked == [
        ("became right", "2"),
        ("became right", "3"),
        ("became wrong", "1"),
        ("stayed wrong", "5"),
    ]


def slow_page(runs: list[Run]) -> str:
    time.sleep(0.5)
    return ""


@pytest.mark.slow
def test_pages_take_a_small_share_of_the_time(copy, monkeypatch):
    live = report_run.Live()
    live.begin(copy, copy.plan())
    live.step({"step": 1})
    first = copy.report.stat().st_mtime_ns
    live.step({"step": 2})  # too early
    assert copy.report.stat().st_mtime_ns == first
    monkeypatch.setattr(report_run, "html", slow_page)
    monkeypatch.setattr(report_run, "EVERY_S", 0.0)
    live.begin(copy, copy.plan())
    live.step({"step": 3})
    assert live._next - time.monotonic() > 0.5 / report_run.MAX_SHARE - 1


@pytest.mark.slow
def test_training_goes_on_without_a_page(small, tmp_path, monkeypatch):
    def broken(runs):
        raise MemoryError("no room for a page")

    monkeypatch.setattr(report_run, "html", broken)
    run = run_in_process(small, tmp_path / "runs", "train.max_steps=2")
    assert run.read()["status"] == "complete" and not run.report.exists()

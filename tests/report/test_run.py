"""Pages of real runs: complete, broken off, damaged, compared; and pages while a run trains."""

import html
import json
import math
import re
import shlex
import shutil
import time

import pytest

from r1recipes.errors import RecipeError, visible
from r1recipes.machine import files
from r1recipes.recipe import loading
from r1recipes.report import curves, samples
from r1recipes.report import run as report_run
from r1recipes.report.charts import Chart, Plot, has_data
from r1recipes.runs import reading
from r1recipes.runs.record import Run
from tests.helpers import in_process, run_in_process
from tests.report.test_page import HOSTILE, Outline


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    """A finished run that a test may change."""
    folder = tmp_path / "runs" / "small" / "copy"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "base"))
    return Run(folder)


def keys_of_charts(page: str) -> list[str]:
    return re.findall(r'<figure data-key="([^"]*)"', page)


def names_of_series(charts: list[Chart], key: str) -> list[str]:
    (plot,) = (chart for chart in charts if chart.key == key)
    assert isinstance(plot, Plot)
    return [series.name for series in plot.series]


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
@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"status": "running", "evaluation": {}}, "Killed: step 6 of 6"),
        ({"status": "stopped", "evaluation": {}}, "Stopped: step 6 of 6"),
        (
            {"status": "failed", "error": {"kind": "oom", "message": "out of <memory>"}},
            "Failed at step 6 of 6",
        ),
    ],
)
def test_a_run_that_is_not_complete_says_how_far_it_came(copy, changes, headline):
    copy.update(**changes)
    page = report_run.html([copy])
    assert headline in page
    assert ("out of &lt;memory&gt;" in page) == (changes["status"] == "failed")


def shell_line(page: str, number: int = 0) -> list[str]:
    """The words of a command on a page, as a shell takes them."""
    line = re.findall(r'<pre class="code">\n(r1recipes .*)</pre>', page)[number]
    return shlex.split(html.unescape(line))[1:]


@pytest.mark.slow
@pytest.mark.parametrize("status", ["stopped", "failed", "running"])  # without a process: killed
def test_a_run_that_was_cut_short_has_its_samples_and_the_command_that_goes_on(
    copy, monkeypatch, status
):
    failure = {"kind": "disk", "message": "the disk is full", "hint": "make room"}
    copy.update(status=status, evaluation={}, error=failure if status == "failed" else None)
    copy.evaluation("after").unlink()
    monkeypatch.chdir(copy.folder.parents[2])
    page = report_run.html([copy])
    reason = {"stopped": report_run.WHY_STOPPED, "failed": "the disk is full"}
    assert reason.get(status, report_run.WHY_KILLED) in page
    assert ("To mend it: make room." in page) == (status == "failed")
    assert "Held-out problems before training" in page and "Training samples of step 1" in page
    words = shell_line(page)
    assert words == ["run", "--resume", "runs/small/copy"]
    code, _, err = in_process(*words)
    assert code == 0, err
    assert copy.read()["status"] == "complete"


@pytest.mark.slow
def test_a_run_that_would_fail_again_is_to_be_changed(copy, monkeypatch):
    hint = "try `--set preset.max_completion_length=12`"
    copy.update(status="failed", error={"kind": "oom", "message": "too big", "hint": hint})
    monkeypatch.chdir(copy.folder.parents[2])
    page = report_run.html([copy])
    assert "As it is it fails again" in page and "try <code>--set preset" in page
    assert shell_line(page)[-2:] == ["--set", "preset.max_completion_length=12"]
    copy.update(error={"kind": "reward", "message": "no reward at all"})
    assert "Change the recipe" in report_run.html([copy])


@pytest.mark.slow
def test_a_run_before_its_first_answer_has_a_page(copy):
    """Only the record and the plan: it failed while it loaded."""
    for path in (copy.metrics, copy.completions, copy.evaluation("before")):
        path.unlink()
    copy.evaluation("after").unlink()
    failure = {"kind": "crash", "message": "no such model"}
    copy.update(status="failed", evaluation={}, error=failure, duration_s={}, time={})
    page = report_run.html([copy])
    assert "Failed at step 0 of 6" in page and "no such model" in page
    assert "r1recipes run --resume" in page and not keys_of_charts(page)


REWARDS = """\
def short(completion, row):
    return 1.0 if len(completion) < 40 else 0.0
"""


@pytest.mark.slow
def test_the_command_that_repeats_a_run_works_from_the_root_of_the_clone(
    finished, tmp_path, monkeypatch
):
    """Parsed as a user types it, with a recipe in a folder and a reward of the user's own."""
    folder = tmp_path / "my recipes"
    folder.mkdir()
    text = finished.recipe.read_text().replace("[rewards]", '[rewards]\n"mine.py:short" = 0.5')
    (folder / "own.toml").write_text(text)
    (folder / "mine.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    steps = ["--set", "train.max_steps=1"]
    code, _, err = in_process("run", "my recipes/own.toml", "--allow-code", *steps)
    assert code == 0, err
    (folder_of_run,) = (tmp_path / "runs").glob("own/*")
    words = shell_line(report_run.html([Run(folder_of_run)]))
    assert words == ["run", "my recipes/own.toml", "--preset", "cpu", *steps, "--allow-code"]
    code, _, err = in_process(*words)
    assert code == 0, err
    first, second = (Run(path).read() for path in sorted((tmp_path / "runs").glob("own/*")))
    assert first["fingerprint"] == second["fingerprint"]
    monkeypatch.chdir(folder.parent.parent)
    assert str(tmp_path) not in report_run.html([Run(folder_of_run)]).split("Reproduce")[1]


@pytest.mark.slow
def test_a_shipped_recipe_is_repeated_by_its_name_unless_it_was_changed(copy, tmp_path):
    (shipped,) = [path for path in loading.shipped() if path.stem == "tiny"]
    copy.update(recipe="tiny")
    copy.recipe.write_text(shipped.read_text())
    words = shell_line(report_run.html([copy]))
    assert words[:2] == ["run", "tiny"] and loading.load(words[1]).path == shipped
    copy.recipe.write_text(shipped.read_text() + "# changed")
    page = report_run.html([copy])
    assert shell_line(page)[1] == "tiny.toml"
    assert "Run it in the folder that has tiny.toml" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "argument"),
    [
        ({"reference": "hub:u/r", "commit": "a" * 40}, f"hub:u/r@{'a' * 40}"),
        ({"reference": "hub:u/r@main/x.toml", "commit": "b" * 40}, f"hub:u/r@{'b' * 40}/x.toml"),
        ({"reference": "https://h/x.toml", "commit": None}, "https://h/x.toml"),
        ({"reference": "my run.r1.zip", "commit": None}, "my run.r1.zip"),
    ],
)
def test_a_recipe_from_elsewhere_is_repeated_from_there(copy, source, argument):
    copy.update_lock(source=source | {"sha256": "0" * 64})
    assert shell_line(report_run.html([copy]))[1] == argument


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


def headline(page: str) -> str:
    """The large letters of a page."""
    return page.split('class="big">')[1].split("</p>")[0]


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
def test_a_run_that_is_worked_on_is_running(copy):
    copy.update(status="running", evaluation={})
    with copy.owned():
        assert "Running: step 6 of 6" in report_run.html([copy])


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
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", {"status": "complete", "evaluation": {"before": 1, "after": 2}}),
        ("record.json", {"status": "complete", "evaluation": [], "duration_s": "x"}),
        ("record.json", {"status": "complete", "duration_s": {"train": math.nan}}),
        ("record.json", {"status": "complete", "duration_s": {"train": math.inf}}),
        ("record.json", {"status": "stopped", "evaluation": {"before": {"accuracy": "x"}}}),
        ("resolved.json", {"recipe": [], "preset": 3}),
        ("lock.json", {"machine": "x", "overrides": 1}),
        ("metrics.jsonl", {"no": "step"}),
        ("completions.jsonl", {"step": 1}),
        ("evaluation-after.jsonl", {"question": "\ud800"}),
    ],
)
def test_a_folder_with_something_else_in_it_is_refused_in_a_line(copy, name, content):
    (copy.folder / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(RecipeError) as caught:
        report_run.html([copy])
    assert str(copy.folder) in str(caught.value.problems[0].where)


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_named(copy):
    copy.metrics.write_text("{\n")
    with pytest.raises(RecipeError) as caught:
        report_run.html([copy])
    assert str(copy.metrics) in str(caught.value.problems[0].where)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_run_folder_says_stays_text(finished, copy, text):
    rows = files.read_lines(copy.completions)
    for row in rows:
        row |= {"prompt": text, "completion": text, "answer": text, "rewards": {text: 1.0}}
    copy.completions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for when in ("before", "after"):
        items = files.read_lines(copy.evaluation(when))
        for item in items:
            item |= {"question": text, "answer": text}
            item["greedy"]["text"] = text
        copy.evaluation(when).write_text("".join(json.dumps(item) + "\n" for item in items))
    steps = [row | {f"rewards/{text}/mean": 1.0} for row in files.read_lines(copy.metrics)]
    copy.metrics.write_text("".join(json.dumps(row) + "\n" for row in steps))
    copy.update(description=text, recipe=text, preset=text)
    copy.update_lock(overrides=[f"--set prompt.system={text}"], machine={"gpu": text, text: text})
    copy.recipe.write_text(text)
    alone, compared = report_run.html([copy]), report_run.html([finished, copy])
    for page in (alone, compared):
        harmless = {tag for tag, _ in Outline(report_run.html([finished])).elements}
        assert {tag for tag, _ in Outline(page).elements} <= harmless
        assert all(
            not re.match("on", name) for _, names in Outline(page).elements for name in names
        )
    shown = visible(text, lines=True)
    assert sum(shown in one for one in Outline(alone).texts) > 20


@pytest.mark.slow
def test_text_that_is_no_unicode_is_replaced(copy):
    row = files.read_lines(copy.completions)[-1] | {"completion": "a\ud800b" + 9000 * "x"}
    copy.completions.write_text(json.dumps(row) + "\n")
    page = report_run.html([copy])
    assert "a\\U0000d800bxxx" in page and len(page.encode()) < 200_000


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

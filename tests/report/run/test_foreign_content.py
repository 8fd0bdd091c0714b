"""Run folders with content that no run writes."""

import json
import math
import re

import pytest

from r1recipes.errors import RecipeError, visible
from r1recipes.machine import files
from r1recipes.report import run as report_run
from tests.report.test_page import HOSTILE, Outline


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

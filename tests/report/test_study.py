"""The page of a study: what its charts hold, and names and messages that stay text."""

import json
import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from r1recipes.errors import visible
from r1recipes.report import study
from r1recipes.study import database, loading
from r1recipes.study.trials import Trials, create_cell
from tests.conftest import SMALL
from tests.report.test_page import HOSTILE, Outline

STUDY = f"""\
format = 1
recipe = "small.toml"

[study]
n_trials = 14

[search]
"train.learning_rate" = {{ low = 1e-4, high = 1e-2, log = true }}
"preset.lora_rank" = {{ choices = [4, 8, 16] }}
"prompt.system" = {{ choices = {json.dumps(["", *HOSTILE])} }}
"""


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> Trials:
    """A study that searches over hostile prompts; its fourth trial fails with one as a message."""
    folder: Path = tmp_path_factory.mktemp("study")
    (folder / "small.toml").write_text(SMALL)
    (folder / "study.toml").write_text(STUDY)
    (cell,) = loading.load(folder / "study.toml").cells
    trials = create_cell(database.open_storage(f"sqlite:///{folder}/study.db"), cell)
    while (trial := trials.claim({})) is not None:
        if trial.number == 3:
            trials.fail(trial, "oom", HOSTILE[0])
        else:
            trials.complete(trial, [min(1.0, 100 * trial.params["train.learning_rate"])])
    return trials


def test_parallel_coordinates_have_each_complete_trial_the_best_first(trials):
    complete = [trial for trial in trials.all() if trial.state == TrialState.COMPLETE]
    chart = study.parallel(trials, complete)
    rate, rank, system, accuracy = chart.axes
    assert [axis.name for axis in chart.axes[:3]] == ["learning_rate", "lora_rank", "system"]
    assert rate.log and rate.labels == ("0.0001", "0.01") and list(rank.choices) == [4, 8, 16]
    assert system.labels[0] == "" and accuracy.name == "accuracy"
    results = [line.values[-1] for line in chart.lines]
    assert results == sorted((trial.values[0] for trial in complete), reverse=True)
    assert (accuracy.low, accuracy.high) == (results[-1], results[0])
    assert [line.is_bold for line in chart.lines] == [True] + [False] * (len(complete) - 1)
    best = next(trial for trial in complete if chart.lines[0].name == f"trial {trial.number}")
    assert chart.lines[0].values == [*(best.params[key] for key in trials.cell.search), results[0]]


def test_the_number_and_what_it_is_of(trials):
    page = study.html([trials])
    assert "Best eval/accuracy of 13 complete trials" in page
    assert "PED-ANOVA over 13 complete trials." in page


def test_importance_of_few_trials_says_so(tmp_path):
    few = small_study(tmp_path, study.MIN_TRIALS + 1)
    page = study.html([few])
    assert "Only 5 complete trials, so this is a guess" in page
    assert "Importance" not in study.html([small_study(tmp_path / "less", 3)])


def small_study(folder: Path, num_trials: int) -> Trials:
    """A study of which every trial is complete."""
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(SMALL)
    text = STUDY.split('"prompt.system"')[0].replace("14", str(num_trials))
    (folder / "study.toml").write_text(text)
    (cell,) = loading.load(folder / "study.toml").cells
    made = create_cell(database.open_storage(f"sqlite:///{folder}/study.db"), cell)
    while (trial := made.claim({})) is not None:
        made.note_run(trial, folder / f"{trial.number:04d} a#b", 6)
        made.complete(trial, [min(1.0, 100 * trial.params["train.learning_rate"])])
    return made


def test_trials_lead_to_the_reports_that_are_there(tmp_path):
    made = small_study(tmp_path / "study", 3)
    (tmp_path / "study" / "0001 a#b").mkdir()
    (tmp_path / "study" / "0001 a#b" / "report.html").write_text("a page")
    page = study.html([made], tmp_path / "study")
    assert re.findall(r'<a href="([^"]*)">([^<]*)</a>', page) == [
        ("./0001%20a%23b/report.html", "0001 a#b")
    ]
    assert "<td>0002 a#b</td>" in page
    assert "<a " not in study.html([made]), "it is not known where the page will be"


def test_the_axis_of_trials_has_whole_numbers(tmp_path):
    page = study.html([small_study(tmp_path / "study", 4)])
    history = page[page.index('data-key="history-0"') :]
    axis = re.search(r'<g class="axis">(.*?)</g>', history)
    assert axis is not None
    labels = re.findall(r">([^<]+)</text>", axis[1])
    assert labels[-1] == "trial" and all(label.isdecimal() for label in labels[:-1])


def test_names_and_messages_stay_text(trials):
    page = Outline(study.html([trials]))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and {"polyline", "figure", "table"} <= set(tags)
    assert not {"img", "!--"} & set(tags)
    assert not [name for _, names in page.elements for name in names if name.startswith("on")]
    assert any(HOSTILE[0] in text for text in page.texts)
    for text in HOSTILE:  # a choice is shown as one line of at most 40 characters
        line = " ".join(visible(text, lines=True).split())
        assert any(line[:30] in shown for shown in page.texts), text

"""The page of a study: what its charts hold, and names and messages that stay text."""

import json
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

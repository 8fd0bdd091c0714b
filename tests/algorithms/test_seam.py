"""A further algorithm is one module and one row: KTO, written here and put into the table, runs.

Nothing else of the package knows it: its keys are checked, its examples read or sampled, its loss
shown, and a resume goes on.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from pydantic import Field

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.base import Algorithm, Preset, Train
from r1recipes.algorithms.examples import TIMED, Learned, Scored
from r1recipes.algorithms.step import Step
from r1recipes.machine import files
from tests.algorithms.test_algorithms import of, write_examples
from tests.helpers import in_process, run_in_process


class KtoTrain(Train):
    """The algorithm and the optimiser. trl: KTOConfig, spelled as there."""

    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How strongly the model is held near the base model."""


def arguments(train: KtoTrain, preset: Preset, step: Step) -> dict[str, Any]:
    return {
        "max_length": preset.max_seq_length,
        "beta": train.beta,
        "loss_type": "kto",
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
        "precompute_ref_log_probs": False,
        "remove_unused_columns": True,
    }


def trainer() -> tuple[type, type]:
    from trl import KTOConfig, KTOTrainer

    return KTOTrainer, KTOConfig


def choose(samples: Sequence[Scored]) -> list[dict[str, str | bool]]:
    best = max((sample.total for sample in samples), default=0.0)
    return [{"completion": s.text, "label": s.total == best} for s in samples]


LEARNED = Learned(
    noun="judgement",
    columns={"completion": "text", "label": "flag"},
    choose=choose,
    by_rewards=True,
    teaches="samples of any kind",
    facts=(("kl", "KL", ""),),
)
KTO = Algorithm(
    name="kto",
    title="KTO",
    description="Kahneman-Tversky optimisation",
    source="arXiv 2402.01306",
    learns_from="preferences",
    train=KtoTrain,
    arguments=arguments,
    trainer=trainer,
    step=LEARNED.step,
    reference=lambda train: True,
    timed=TIMED,
    loss_note="falls as judgements are fitted",
    backends=("trl",),
    learned=LEARNED,
)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["own samples", "a file"])
def test_kto_runs_from_one_row_of_the_table(tmp_path, monkeypatch, source):
    monkeypatch.setitem(ALGORITHMS, "kto", KTO)
    path = of(KTO, tmp_path, beta=0.2)
    if source == "a file":
        write_examples(path, KTO)
    code, out, err = in_process("check", path)
    assert code == 0, err
    run = run_in_process(path, tmp_path / "runs")
    assert run.read()["status"] == "complete" and run.plan().algorithm is KTO
    assert run.own_samples.exists() == (source == "own samples")
    rows = files.read_lines(run.metrics)
    assert len(rows) == 6 and {"loss", "kl"} <= rows[0].keys()
    assert "4 judgements" in run.report.read_text()


def test_its_keys_are_refused_of_others_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(ALGORITHMS, "kto", KTO)
    code, _, err = in_process("check", of(KTO, tmp_path, epsilon=0.2))
    assert code == 2 and "unknown key `train.epsilon`" in err
    assert '`algorithm = "grpo"` and `algorithm = "rloo"`' in err
